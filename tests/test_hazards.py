"""What is known to go wrong in pools of processes, and that each has its test."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import tasks

from coresize import ProcessPoolExecutor, TaskKilledError, processes


MIB = 1024**2
HERE = Path(__file__).parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")

#: What happens elsewhere. A test carries the number of what it keeps from happening
#: here: ``pytest -m hazard`` runs all of them.
HAZARDS = {
    1: "one worker killed for memory takes all results along",
    2: "a pool waits for ever for a worker that was killed",
    3: "a map waits for ever for a worker that was killed",
    4: "an error that cannot be unpickled breaks the pool",
    5: "the kernel kills the parent, as it is the largest",
    6: "one kill takes the whole container (memory.oom.group)",
    7: "tasks that have not begun are blamed for a kill",
    8: "few large tasks among small ones defeat a profile of one",
    9: "a task larger than all memory is retried for ever",
    10: "retries after a kill are a storm of kills",
    11: "the memory of the host is taken for that of the container",
    12: "native memory and that of subprocesses is not measured",
    13: "ru_maxrss of a fresh process is that of its parent",
    14: "what a fork copies of what it inherited is not measured",
    15: "counting references copies what is only read after a fork",
    16: "a fork takes the locks of other threads along",
    17: "replacing workers after so many tasks hangs",
    18: "workers times threads of BLAS are more than cores",
    19: "pools within pools multiply",
    20: "all workers are started for the first task",
    21: "the memory of idle workers is not counted",
    22: "a map takes all of its input at once",
    23: "a container has 64 MB of /dev/shm, and says so by SIGBUS",
    24: "limits of address space end what would have fitted",
    25: "a lock of the pool dies with the worker that held it",
    26: "a quota that is no whole number is refused",
    27: "workers outlive a parent that was killed",
    31: "what the main module loads is loaded by each worker",
    32: "pytest-xdist counts the cores of the host",
}


def test_every_hazard_has_a_test():
    found = {number for path in HERE.rglob("test_*.py") for number in _marks(path)}
    assert found == set(HAZARDS)


def _marks(path):
    """The numbers that the tests of a file carry."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for mark in node.decorator_list:
                if ast.unparse(mark).startswith("pytest.mark.hazard("):
                    yield from (argument.value for argument in mark.args)


def _killed(function, *args, method):
    """The most that was seen of a task, in MiB, by a pool whose workers start so."""
    with ProcessPoolExecutor(1, get_context(method), memory="auto") as pool:
        error = pool.submit(function, *args).exception(30)
    assert isinstance(error, TaskKilledError)
    assert error.signal == signal.SIGKILL
    return error.peak_memory / MIB


@linux
@pytest.mark.hazard(13)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_large_parent_makes_no_large_task(method):
    kept = bytearray(b"x") * (300 * MIB)
    assert _killed(tasks.stay_until_killed, method=method) < 30
    del kept


def _fork(script, body, *, held):
    """A program that forks a worker, and what is seen of its task in MiB."""
    script.write_text(
        "import os, signal, sys, time\n"
        "from multiprocessing import get_context\n"
        "from coresize import ProcessPoolExecutor\n"
        f"kept = {held}\n"
        f"def task():\n    {body}\n"
        "    time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)\n"
        "with ProcessPoolExecutor(1, get_context('fork'), memory='auto') as pool:\n"
        "    print(pool.submit(task).exception().peak_memory / 1024**2)\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return float(done.stdout)


@linux
@pytest.mark.hazard(14)
def test_what_a_fork_copies_of_its_parent_is_its_need(tmp_path):
    script, held = tmp_path / "script.py", "bytearray(b'x') * (150 << 20)"
    assert _fork(script, "kept[::4096]", held=held) < 10
    write = "kept[0 : 100 << 20 : 4096] = bytes(100 << 8)"
    assert 99 < _fork(script, write, held=held) < 115


@linux
@pytest.mark.hazard(15)
def test_what_a_fork_copies_by_counting_references_is_its_need(tmp_path):
    """Two million floats of 24 bytes, each of which has its count within."""
    script, held = tmp_path / "script.py", "[n / 7 for n in range(2 * 10**6)]"
    assert 45 < _fork(script, "for _ in kept: pass", held=held) < 70


@pytest.mark.hazard(18)
@pytest.mark.skipif(os.cpu_count() == 1, reason="BLAS has one thread anyway")
def test_blas_is_told_its_threads_before_it_is_loaded():
    with ProcessPoolExecutor(1, threads=1) as one, ProcessPoolExecutor(1) as all_:
        assert one.submit(tasks.blas_threads).result(30) == 1
        assert all_.submit(tasks.blas_threads).result(30) > 1


@pytest.mark.hazard(20)
def test_workers_start_when_there_is_something_to_do():
    with ProcessPoolExecutor(64) as pool:
        assert len(pool._processes) == 0
        futures = [pool.submit(tasks.nap, 0.3) for _ in range(3)]
        assert len(pool._processes) <= 3
        assert [future.result(30) for future in futures] == [0.3] * 3
        assert 1 <= len(pool._processes) <= 3


@linux
@pytest.mark.hazard(24)
def test_no_limit_is_set_on_address_space():
    with ProcessPoolExecutor(1, memory="10MiB") as pool:
        assert pool.submit(tasks.resource_limits).result(30) == tasks.resource_limits()


@linux
@pytest.mark.hazard(24)
def test_memory_that_is_refused_is_an_error_of_the_task_alone():
    with ProcessPoolExecutor(1, initializer=tasks.limit_data, initargs=(64,)) as pool:
        before = pool.submit(tasks.who).result(30)
        assert isinstance(pool.submit(tasks.take, 300).exception(30), MemoryError)
        assert pool.submit(tasks.take, 1).result(30) == 1
        assert pool.submit(tasks.who).result(30) == before


@linux
@pytest.mark.hazard(25)
def test_a_worker_killed_while_it_writes_a_result_blocks_nobody(tmp_path):
    go = tmp_path / "go"
    blocked, gate = threading.Event(), threading.Event()
    with ProcessPoolExecutor(2) as pool:
        large = pool.submit(tasks.answer_when_there, str(go), 8)
        # Whoever reads results is kept from it: so the pipe is full, and the worker is
        # in the middle of its result for as long as it takes to kill it.
        pool.submit(tasks.nap, 0.1).add_done_callback(
            lambda _: (blocked.set(), gate.wait(120))
        )
        others = [pool.submit(tasks.echo, number) for number in range(20)]
        try:
            assert blocked.wait(30)
            go.touch()
            os.kill(_writer(tmp_path / "go.pid"), signal.SIGKILL)
        finally:
            gate.set()
        with pytest.raises(TaskKilledError, match="SIGKILL"):
            large.result(30)
        assert [future.result(30) for future in others] == list(range(20))
        assert pool.submit(tasks.echo, "after").result(30) == "after"


def _writer(note):
    """The process that left a note, as soon as it waits: for room in its pipe."""
    end, still = time.monotonic() + 100, 0
    while still < 10:
        assert time.monotonic() < end
        time.sleep(0.02)
        pid = note.read_text() if note.exists() else ""
        state = processes.read(pid, "stat").rpartition(")")[2].split() if pid else []
        still = still + 1 if state[:1] == ["S"] else 0
    return int(pid)
