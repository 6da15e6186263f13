"""The backend "coresize" of joblib: a pool that is kept between calls."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import tasks

from coresize.adapters import joblib as adapter
from coresize.executor import reuse


SECONDS = 60  # a machine may be slow; nothing waits for as long


def answer(seconds=0.0):
    time.sleep(seconds)
    return os.getpid(), Path.cwd(), os.environ.get("NEW"), sys.path[0]


def fail(_number):
    msg = "boo"
    raise ValueError(msg)


def wait_or_fail(folder, number):
    """The first waits; the second fails as soon as the first has begun."""
    mark = Path(folder, "pid")
    if number == 0:
        mark.with_suffix(".new").write_text(str(os.getpid()))
        mark.with_suffix(".new").rename(mark)
        time.sleep(1000)
    until(mark.exists)
    fail(number)


def until(happened):
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_gone(pid):
    return not Path(f"/proc/{pid}").exists()


def ask(n_jobs=2, **options):
    """What the workers answer."""
    parallel = joblib.Parallel(n_jobs, "coresize", batch_size=1, **options)
    return parallel([joblib.delayed(answer)(0.05)] * 4)


def pids(answers):
    return {pid for pid, *_ in answers}


@pytest.fixture(autouse=True)
def _begin_anew():
    """Each test begins with new workers, in the same state."""
    reuse.drop()
    environment, path, folder = dict(os.environ), sys.path[:], Path.cwd()
    yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    os.chdir(folder)
    reuse.drop()


def test_the_pool_is_kept():
    first = pids(ask())
    for options in ({}, {"return_as": "generator"}, {"n_jobs": 2}):
        assert pids(ask(**options)) <= first
    with joblib.Parallel(2, "coresize") as parallel:
        for _ in range(2):
            answers = parallel([joblib.delayed(answer)()] * 4)
            assert pids(answers) <= first


def test_a_kept_pool_is_resized():
    three = pids(ask(3))
    assert len(pids(ask(2)) & three) in (1, 2)


@pytest.mark.parametrize("change", ["variable", "path", "threads", "memory", "init"])
def test_what_workers_inherit_ends_the_pool(change, tmp_path):
    first = pids(ask())
    options = {}
    if change == "variable":
        os.environ["NEW"] = "new"
    elif change == "path":
        sys.path.insert(0, str(tmp_path))
    elif change == "threads":
        options = {"inner_max_num_threads": 3}
    elif change == "memory":
        options = {"memory": "1MiB"}
    else:
        options = {"initializer": time.sleep, "initargs": (0,)}
    config = {name: options.pop(name) for name in list(options) if "inner" in name}
    with joblib.parallel_config("coresize", **config):
        answers = ask(**options) if options else _asked_in_config()
    assert not pids(answers) & first
    assert {new for *_, new, _ in answers} == {os.environ.get("NEW")}
    assert {path for *_, path in answers} == {sys.path[0]}
    for pid in first:
        until(lambda pid=pid: is_gone(pid))


def _asked_in_config():
    return joblib.Parallel(2, batch_size=1)([joblib.delayed(answer)(0.05)] * 4)


def test_what_calls_bring_along_keeps_the_pool(tmp_path):
    first = pids(ask())
    os.environ["PYTEST_CURRENT_TEST"] = "another"
    os.chdir(tmp_path)
    answers = ask()
    assert pids(answers) <= first
    assert {folder for _, folder, *_ in answers} == {tmp_path}


def test_an_error_alone_costs_no_worker():
    first = pids(ask())
    for _ in range(2):
        with pytest.raises(ValueError, match="boo"):
            joblib.Parallel(2, "coresize")([joblib.delayed(fail)(1)])
    assert pids(ask()) <= first


@pytest.mark.parametrize("managed", [True, False])
def test_no_task_goes_on_after_an_abort(managed, tmp_path):
    parallel = joblib.Parallel(2, "coresize", batch_size=1)
    calls = [joblib.delayed(wait_or_fail)(str(tmp_path), n) for n in range(2)]
    if managed:
        with parallel, pytest.raises(ValueError, match="boo"):
            parallel(calls)
    else:
        with pytest.raises(ValueError, match="boo"):
            parallel(calls)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: is_gone(pid))
    assert pid not in pids(ask())


def test_two_threads_have_a_pool_each(tmp_path):
    """The abort of one does not reach the tasks of the other."""
    found = []
    go = tmp_path / "go"
    there = tmp_path / "there"

    def other():
        calls = [joblib.delayed(_wait_for)(str(there), str(go))] * 2
        found.extend(joblib.Parallel(2, "coresize")(calls))

    thread = threading.Thread(target=other)
    thread.start()
    until(there.exists)
    calls = [joblib.delayed(wait_or_fail)(str(tmp_path), n) for n in range(2)]
    with pytest.raises(ValueError, match="boo"):
        joblib.Parallel(2, "coresize", batch_size=1)(calls)
    go.touch()
    thread.join()
    assert found == ["went"] * 2
    assert len(ask()) == 4


def _wait_for(there, go):
    Path(there).touch()
    until(Path(go).exists)
    return "went"


def test_one_backend_serves_generators_in_turns():
    with joblib.parallel_config("coresize", n_jobs=2):
        parallels = [joblib.Parallel(return_as="generator") for _ in range(2)]
        outputs = [
            one(joblib.delayed(pow)(n, 2) for n in range(50)) for one in parallels
        ]
        assert [a == b for a, b in zip(*outputs, strict=True)] == [True] * 50


def test_idle_workers_end_and_others_come():
    first = pids(ask(idle_worker_timeout=0.1))
    for pid in first:
        until(lambda pid=pid: is_gone(pid))
    second = pids(ask(idle_worker_timeout=0.1))
    assert second
    assert not second & first


KEPT = []


def keep(mebibytes):
    KEPT.append(b"x" * (mebibytes * 1024**2))
    return os.getpid()


def test_a_worker_that_keeps_much_ends():
    call = joblib.delayed(keep)
    parallel = joblib.Parallel(2, "coresize", batch_size=1)
    parallel([call(0)] * 2)
    time.sleep(1)  # memory is looked at once a second
    large = parallel([call(400), call(0)])[0]

    def ended():
        parallel([call(0)] * 2)
        return is_gone(large)

    until(ended)


@pytest.mark.parametrize("n_jobs", [1, -1])
def test_one_worker_is_no_worker(n_jobs):
    os.environ["CORESIZE_OVERRIDE_CORES"] = "1"
    assert pids(ask(n_jobs)) == {os.getpid()}


# --- Programs -----------------------------------------------------------------------


def run(tmp_path, text, *words):
    program = tmp_path / "program.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, *words, str(program)],
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


UNGUARDED = """
import joblib
import numpy
import coresize.adapters.joblib
class Number:
    def __init__(self, value): self.value = value
    def double(self): return Number(2 * self.value)
class OddError(Exception): pass
def fail(number):
    raise OddError(number.value)
delayed = joblib.delayed
with joblib.parallel_config("coresize", n_jobs=2):
    done = joblib.Parallel()(delayed(Number.double)(Number(n)) for n in range(3))
    print([type(one) is Number and one.value for one in done])
    print(joblib.Parallel()(delayed(lambda n: -n)(n) for n in range(3)))
    try:
        joblib.Parallel()([delayed(fail)(Number(5)), delayed(fail)(Number(5))])
    except OddError as error:
        print("error", error)
    calls = [delayed(abs)(n) for n in range(3)]
    generator = joblib.Parallel(return_as="generator")(calls)
    print(next(generator))
"""


def test_a_program_without_a_guard(tmp_path):
    """It ends, too, though a generator is abandoned and a pool kept."""
    printed = run(tmp_path, UNGUARDED, "-W", "ignore")
    assert printed == "[0, 2, 4]\n[0, -1, -2]\nerror 5\n0\n"


GUARDED = """
import os
import sys
import multiprocessing
import joblib
import numpy

def inner(backend):
    with joblib.parallel_config(backend, n_jobs=2):
        return joblib.Parallel()(joblib.delayed(abs)(-n) for n in range(2))

def daemon(queue):
    queue.put(joblib.Parallel(2, "coresize")(joblib.delayed(abs)(-n) for n in range(3)))

if __name__ == "__main__":
    from coresize.adapters.joblib import register
    register()
    call = joblib.delayed(inner)
    print(joblib.Parallel(2, "coresize")([call("coresize")] * 2))
    print(joblib.Parallel(2, "loky", initializer=register)([call("coresize")] * 2))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=daemon, args=(queue,), daemon=True)
    process.start()
    print(queue.get(timeout=60))
    process.join()
    print(joblib.Parallel(2, "coresize")([call("threading")] * 2))
"""


def test_tasks_name_the_backend_and_children_have_pools_of_their_own(tmp_path):
    printed = run(tmp_path, GUARDED, "-W", "ignore")
    assert printed == "[[0, 1], [0, 1]]\n" * 2 + "[0, 1, 2]\n" + "[[0, 1], [0, 1]]\n"


def test_importing_the_adapter_registers_the_backend():
    assert adapter.NAME in joblib.parallel.BACKENDS


FORKS = """
import multiprocessing
import joblib
import numpy
from coresize import ProcessPoolExecutor
from coresize.adapters.joblib import register

register()
with joblib.parallel_config("coresize", n_jobs=2):
    joblib.Parallel()(joblib.delayed(abs)(n) for n in (1, 2))
with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
    print(list(pool.map(abs, [-1, -2])))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_kept_pool_ends_where_workers_are_forked():
    words = [sys.executable, "-c", FORKS]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("[1, 2]\n", "")


@pytest.mark.parametrize(
    ("options", "shared", "writeable"),
    [
        ({}, True, False),
        ({"mmap_mode": "c"}, True, True),
        ({"mmap_mode": "r+"}, True, True),
        ({"max_nbytes": "8M"}, False, True),
        ({"max_nbytes": None}, False, True),
        ({"mmap_mode": None}, False, True),
    ],
)
def test_large_arrays_are_shared_as_joblib_s_options_say(options, shared, writeable):
    array = np.arange(500_000.0)
    with joblib.parallel_config("coresize"):
        call = joblib.delayed(tasks.mapped)
        found = joblib.Parallel(2, **options)(call(array, n) for n in range(4))
    assert found == [(shared, writeable, float(n)) for n in range(4)]
    assert array[0] == 0


def test_an_array_that_changes_between_two_calls_is_copied_again():
    array = np.zeros(500_000)
    with joblib.parallel_config("coresize"), joblib.Parallel(2) as parallel:
        for value in range(3):
            array[:] = value
            calls = (joblib.delayed(tasks.mapped)(array, n) for n in range(4))
            assert [each[2] for each in parallel(calls)] == [value] * 4
