"""Large arrays in a memory limit: they are in memory once, and are given back."""

from __future__ import annotations

import json

import pytest
from live import cgroups


pytestmark = pytest.mark.skipif(
    cgroups.missing() is not None, reason=str(cgroups.missing())
)

HEAD = """
import gc, json, sys, threading, time
from functools import partial
from pathlib import Path
import numpy as np
from coresize import ProcessPoolExecutor, run_batch, share

MIB = 1 << 20

def cgroup():
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path)

def number(name):
    return int((cgroup() / f"memory.{name}").read_text())

def shmem():
    lines = (cgroup() / "memory.stat").read_text().splitlines()
    return int(dict(line.split() for line in lines)["total_shmem"])

def meet(array, others, folder, index):
    "Wait until all tasks have begun, and read the whole array meanwhile."
    (Path(folder) / str(index)).touch()
    end = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < others and time.monotonic() < end:
        time.sleep(0.02)
    return len(list(Path(folder).iterdir())), float(array[:: 512].sum())
"""


def run(mebibytes, program, *words):
    done = cgroups.run(mebibytes, HEAD + program, *words)
    assert (done.code, done.kills) == (0, 0), done.err[-3000:]
    return json.loads(done.out.splitlines()[-1])


def test_eight_tasks_share_an_array_at_once(tmp_path):
    """In 1.5 GiB, with the array of the caller and one copy of it for all workers."""
    found = run(
        1536,
        """
array = np.random.default_rng(0).random(400 * MIB // 8)
right = float(array[:: 512].sum())
with ProcessPoolExecutor(8, memory="auto") as pool:
    pool.submit(meet, array, 1, sys.argv[1], 0).result()  # its need is learned
    futures = [pool.submit(meet, array, 8, sys.argv[1], n) for n in range(8)]
    values = [future.result() for future in futures]
print(json.dumps([[v == right for _, v in values], [m for m, _ in values],
    max(future.peak_memory for future in futures) // MIB,
    number("max_usage_in_bytes") // MIB]))
""",
        tmp_path,
    )
    right, met, most, peak = found
    assert all(right)
    assert met == [8] * 8
    assert most < 200  # the array is no part of what a task has taken
    assert peak < 2 * 400 + 8 * 60


def test_what_a_fork_of_a_task_shares_is_not_its_own():
    """A child that reads the array of the task takes next to nothing."""
    most = run(
        900,
        """
import os, signal

def forked(array):
    child = os.fork()
    if not child:
        array[:: 512].sum()
        time.sleep(1000)
        os._exit(0)
    time.sleep(1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

array = np.ones(200 * MIB // 8)
with ProcessPoolExecutor(1, memory="auto") as pool:
    future = pool.submit(forked, array)
    future.result()
print(json.dumps(future.peak_memory // MIB))
""",
    )
    assert most < 100


def test_memory_is_given_back(tmp_path):
    """By the last future and the last task, though the pool goes on."""
    found = run(
        800,
        """
def fresh(n):
    return np.full(50 * MIB // 8, float(n))

with ProcessPoolExecutor(2) as pool:
    pool.submit(abs, -1).result()
    before = shmem()
    array = np.ones(100 * MIB // 8)
    futures = [pool.submit(meet, array, 0, sys.argv[1], n) for n in range(20)]
    [future.result() for future in futures]
    results = [pool.submit(fresh, n) for n in range(6)]
    kept = [future.result()[0] for future in results]
    during = shmem()
    del futures, results, array
    end = time.monotonic() + 30
    while shmem() > before + MIB and time.monotonic() < end:
        time.sleep(0.05)
    after = shmem()
print(json.dumps([kept, (during - before) // MIB, (after - before) // MIB]))
""",
        tmp_path,
    )
    kept, during, after = found
    assert kept == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert during >= 300
    assert after <= 1


def test_what_cannot_fit_is_refused_before_it_is_copied():
    found = run(
        600,
        """
from coresize.errors import InsufficientMemoryError
array = np.ones(350 * MIB // 8)
texts = []
try:
    share(array)
except InsufficientMemoryError as error:
    texts.append([error.needed // MIB, error.budget // MIB])
with ProcessPoolExecutor(1) as pool:
    error = pool.submit(len, array).exception()
    texts.append([type(error).__name__, pool.submit(abs, -1).result()])
with share(array, spill=sys.argv[1]) as shared, ProcessPoolExecutor(1) as pool:
    texts.append(pool.submit(len, shared.value).result() == len(array))
print(json.dumps([texts, number("max_usage_in_bytes") // MIB]))
""",
        "/var/tmp",
    )
    ((needed, budget), refused, spilt), peak = found
    assert needed >= 350 > budget
    assert refused == ["InsufficientMemoryError", 1]
    assert spilt
    assert peak <= 600


@pytest.mark.parametrize(
    ("make", "options"),
    [
        ("submit", ""),
        ("submit", ', memory="auto"'),
        ("submit", ', memory="20MiB"'),
        ("map", ""),
        ("run_batch", ', memory="auto"'),
        ("joblib", ""),
    ],
)
def test_calls_wait_until_their_own_arrays_fit(make, options):
    """Six arrays of 120 MiB, of which three fit at a time; pages of zeros are free."""
    if make == "joblib":
        pytest.importorskip("joblib")
    found = run(
        500,
        f"""
def hold(array):
    time.sleep(0.2)
    return float(array[:: 512].sum())

def zeros():
    return np.zeros(120 * MIB // 8)

def joblib_backend():
    import joblib
    from coresize.adapters import joblib as backend
    backend.register()
    with joblib.parallel_config("coresize", n_jobs=3{options}):
        return joblib.Parallel()(joblib.delayed(hold)(zeros()) for _ in range(6))

def submit():
    with ProcessPoolExecutor(3{options}) as pool:
        futures = [pool.submit(hold, zeros()) for _ in range(6)]
        return [future.result() for future in futures]

def map():
    with ProcessPoolExecutor(3{options}) as pool:
        return list(pool.map(hold, [zeros() for _ in range(6)]))

def run_all():
    arrays = [zeros() for _ in range(6)]
    return run_batch(hold, arrays, max_workers=3{options}).results()

made = {{"run_batch": run_all, "joblib": joblib_backend}}.get({make!r})
values = (made or {make if make in ("submit", "map") else None})()
print(json.dumps([values, number("max_usage_in_bytes") // MIB]))
""",
    )
    values, peak = found
    assert values == [0.0] * 6
    assert peak <= 500


def test_what_can_never_fit_fails_once_nothing_is_left_to_wait_for():
    found = run(
        500,
        """
def hold(array):
    time.sleep(0.2)
    return float(array[:: 512].sum())

with ProcessPoolExecutor(2) as pool:
    futures = [pool.submit(hold, np.zeros(n * MIB // 8)) for n in (120, 600, 120, 150)]
    errors = [future.exception() for future in futures]
print(json.dumps([[type(error).__name__ for error in errors],
    errors[1].needed // MIB, errors[1].budget // MIB]))
""",
    )
    names, needed, budget = found
    assert names == ["NoneType", "InsufficientMemoryError", "NoneType", "NoneType"]
    assert needed == 600
    assert 300 < budget < 500  # no task held anything any more


def test_the_copy_of_a_result_belongs_to_the_need():
    """In two rounds, of which the second knows the need."""
    found = run(
        700,
        """
def fresh(number):
    array = np.full(100 * MIB // 8, float(number))
    time.sleep(0.1)
    return array

told = []
with ProcessPoolExecutor(4, memory="auto") as pool:
    for _ in range(2):
        futures = [pool.submit(fresh, n) for n in range(4)]
        values = [float(future.result()[0]) for future in futures]
        told.append([values, min(future.peak_memory for future in futures) // MIB])
        del futures
    state = pool.observe()
print(json.dumps([told, state.kills + state.evictions, state.need // MIB]))
""",
    )
    told, ended, need = found
    assert [values for values, _ in told] == [[0.0, 1.0, 2.0, 3.0]] * 2
    assert min(peak for _, peak in told) >= 200
    assert (ended, need >= 200) == (0, True)


def test_what_is_copied_ahead_leaves_memory_for_the_tasks():
    """Twenty calls of 20 MiB, of which a fifth can be copied before a task runs."""
    values, ended, peak = run(
        500,
        """
def work(array):
    return float(np.ones(250 * MIB // 8)[0] + array[0])

arrays = [np.zeros(20 * MIB // 8) for _ in range(20)]
with ProcessPoolExecutor(2, memory="auto") as pool:
    futures = [pool.submit(work, array) for array in arrays]
    values = [future.result() for future in futures]
    state = pool.observe()
print(json.dumps([values, state.kills, number("max_usage_in_bytes") // MIB]))
""",
    )
    assert (values, ended) == ([1.0] * 20, 0)
    assert peak < 500
