"""The pools in other libraries: joblib, threadpoolctl, pytest-xdist, any executor."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import pytest
import tasks

import coresize
from coresize import ConfigError, ProcessPoolExecutor, TaskKilledError, limit_memory
from coresize.adapters import joblib as adapter
from coresize.adapters.threads import limit_threads, thread_env


@pytest.fixture(autouse=True, scope="module")
def _registered():
    adapter.register()


# --- joblib -------------------------------------------------------------------


def test_joblib_gives_the_same_in_order():
    with joblib.parallel_config("coresize", n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(pow)(n, 2) for n in range(500))
    assert found == [number**2 for number in range(500)]


def test_joblib_all_jobs_are_what_fits():
    with joblib.parallel_config("coresize", memory="1TiB"):
        assert joblib.effective_n_jobs(-1) == 1
    with joblib.parallel_config("coresize", memory="1MiB"):
        assert joblib.effective_n_jobs(-1) == len(os.sched_getaffinity(0))
        found = joblib.Parallel(n_jobs=-1)(joblib.delayed(abs)(n) for n in (-1, -2))
    assert found == [1, 2]


def test_joblib_threads_of_workers_are_what_was_asked():
    with joblib.parallel_config("coresize", n_jobs=2, inner_max_num_threads=3):
        names = ["OMP_NUM_THREADS"]
        call = joblib.delayed(tasks.environment)
        assert joblib.Parallel()(call(names) for _ in range(2)) == [["3"]] * 2


def test_joblib_an_error_or_a_death_is_raised_and_nothing_hangs():
    with joblib.parallel_config("coresize", n_jobs=2):
        with pytest.raises(ValueError, match="boo"):
            joblib.Parallel()([joblib.delayed(tasks.fail)("boo")])
        with pytest.raises(TaskKilledError):
            joblib.Parallel()(joblib.delayed(tasks.end_by)(n) for n in range(8))
        assert joblib.Parallel()([joblib.delayed(abs)(-1)]) == [1]


def test_joblib_nested_calls_do_not_multiply():
    with joblib.parallel_config("coresize", n_jobs=2):
        call = joblib.delayed(tasks.joblib_inside)
        inner = joblib.Parallel()(call() for _ in range(2))
    assert inner == [1, 1]


def test_joblib_s_own_tests_of_its_backends(tmp_path):
    """In a program of its own: they change joblib, and warn."""
    folders = [str(Path(coresize.__file__).parents[1]), str(Path(__file__).parent)]
    plugins = ["-p", "joblib_backend", "-p", "no:cacheprovider"]
    words = ["-c", os.devnull, f"--rootdir={tmp_path}", "-q", "--tb=short", "-rf"]
    words += [
        "--pyargs",
        "joblib.test.test_memmapping",
        "joblib.test.test_parallel",
        "joblib.test.test_store_backends",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    assert " passed" in done.stdout


def test_n_jobs_is_for_those_who_keep_loky():
    assert adapter.n_jobs(memory="1TiB") == 1
    with pytest.raises(ConfigError):
        adapter.n_jobs(memory="2 apples")


# --- threads ------------------------------------------------------------------


def test_threads_are_limited_and_given_back():
    before = tasks.blas_threads()
    with limit_threads(1) as threads:
        assert (threads, tasks.blas_threads()) == (1, 1)
    assert tasks.blas_threads() == before
    with pytest.raises(ConfigError), limit_threads(0):
        pass


def test_threads_of_children():
    environment = {**os.environ, **thread_env(1)}
    command = [sys.executable, "-c", "import tasks; print(tasks.blas_threads())"]
    folder = os.path.dirname(tasks.__file__)  # noqa: PTH120
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


# --- pytest-xdist -------------------------------------------------------------


@pytest.mark.hazard(32)
@pytest.mark.parametrize(
    ("words", "env", "started"),
    [
        ([], {}, 3),
        (["--worker-memory", "1TiB"], {}, 1),
        ([], {"PYTEST_XDIST_AUTO_NUM_WORKERS": "2"}, 2),
    ],
)
def test_xdist_starts_what_fits(words, env, started, tmp_path):
    (tmp_path / "test_one.py").write_text("def test(): pass\n")
    command = [sys.executable, "-m", "pytest", "-n", "auto", *words]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "CORESIZE_OVERRIDE_CORES": "3", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"created: {started}/{started}" in done.stdout, done.stdout + done.stderr


# --- Any executor -------------------------------------------------------------


@pytest.mark.parametrize("memory", ["1MiB", "auto", lambda *_: 1])
def test_a_gate_before_another_executor(memory):
    with limit_memory(
        concurrent.futures.ProcessPoolExecutor(2, mp_context=None), memory=memory
    ) as pool:
        futures = [pool.submit(tasks.echo, number) for number in range(20)]
        assert [future.result(30) for future in futures] == list(range(20))
        assert isinstance(pool.submit(tasks.fail, "boo").exception(30), ValueError)
        assert list(pool.map(tasks.echo, [1, 2])) == [1, 2]
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.echo, 1)


def test_what_does_not_fit_beside_another_waits():
    """Two that need more than half of all there is, in threads of this process."""
    running, most = [], []
    lock = threading.Lock()

    def task():
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.05)
        with lock:
            running.pop()

    with limit_memory(concurrent.futures.ThreadPoolExecutor(8), memory="1TiB") as pool:
        concurrent.futures.wait([pool.submit(task) for _ in range(5)])
    assert most == [1] * 5


def test_the_gate_takes_our_own_pool_as_well():
    with limit_memory(ProcessPoolExecutor(2), memory="1MiB") as pool:
        assert pool.submit(tasks.echo, 1).result(20) == 1
