"""Whatever owns threads, processes or files may be collected anywhere: nothing hangs.

Each row drops one kind of object in a reference cycle, as a traceback or a notebook
makes one, and collects it where the garbage collector may happen to run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coresize.batch.journal import locks


#: Longer than any machine that is slow needs, and no row waits for it.
PATIENCE = 120

SCRIPT = '''
import concurrent.futures, gc, sys, threading, warnings
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import tasks
from coresize import (
    ProcessPoolExecutor, SerialExecutor, ThreadPoolExecutor, limit_memory, run_batch,
)
from coresize.processes import exit_hooks

what, where, journal = sys.argv[2:]
warnings.simplefilter("ignore")  # of what is never read, which is meant here
noted = []


def note(item):
    noted.append(item)


def slow(item):
    tasks.nap(0.01)
    return item


class Holder:
    """In a cycle with itself, as a frame is with its traceback."""

    def __init__(self, *held):
        self.held = held
        self.me = self


def batch(executor, read=1):
    run = run_batch(tasks.square, range(30), executor=executor,
                    max_workers=2 if isinstance(executor, str) else None,
                    journal=journal, progress=False)
    outcomes = iter(run) if read else None
    for _ in range(read):
        next(outcomes)
    return Holder(run, outcomes)


def unread_map(pool):
    return Holder(pool, pool.map(note, range(4200)))


def begun_map(pool):
    values = pool.map(slow, range(50))
    next(values)
    return Holder(pool, values)


def gate():
    pool = limit_memory(ThreadPoolExecutor(1, queue_size=1), memory="1MiB")
    futures = [pool.submit(slow, n) for n in range(5)]
    return Holder(pool, futures)


MAKE = {
    "process batch": lambda pool: batch("process"),
    "thread batch": lambda pool: batch("thread"),
    "serial batch": lambda pool: batch("serial"),
    "joblib batch": lambda pool: batch("joblib"),
    "batch of the pool": lambda pool: batch(pool),
    "unread batch": lambda pool: batch("process", read=0),
    "thread map": lambda pool: unread_map(ThreadPoolExecutor(1, queue_size=1)),
    "map of the pool": lambda pool: begun_map(pool),
    "begun map": lambda pool: begun_map(ProcessPoolExecutor(1)),
    "serial map": lambda pool: unread_map(SerialExecutor()),
    "pool": lambda pool: Holder(ProcessPoolExecutor(1)),
    "gate": lambda pool: gate(),
}


def in_dispatcher(pool):
    done = threading.Event()
    future = pool.submit(tasks.nap, 0.05)
    future.add_done_callback(lambda _: (gc.collect(), done.set()))
    assert done.wait(60), "hangs in the dispatcher's thread"


def in_worker_thread(pool):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        threads.submit(gc.collect).result(60)


def in_locked_thread(pool):
    """As a thread starts: its lock is held, so no other thread can be started."""
    with threading._active_limbo_lock:
        gc.collect()


def check(what, pool):
    if "batch" in what:  # its journal is free, and goes on
        again = run_batch(tasks.square, range(30), executor="thread", journal=journal,
                          progress=False).wait()
        assert again.counts["ok"] + again.counts["skipped"] == 30, again
        for path in Path(journal).parent.glob("out.sqlite*"):
            path.unlink()
    if what in ("thread map", "serial map"):  # as of the standard library, all are made
        while len(noted) < 4200:
            tasks.nap(0.01)
        noted.clear()
    pool.submit(tasks.nap, 0).result(60)  # it still works


if __name__ == "__main__":
    gc.disable()
    pool = ProcessPoolExecutor(2)
    pool.submit(tasks.nap, 0).result(60)
    if where == "exit":
        held = MAKE[what](pool)
    else:
        for collect in (in_dispatcher, in_worker_thread, in_locked_thread):
            held = MAKE[what](pool)
            del held
            collect(pool)
            exit_hooks.wait()
            check(what, pool)
    print("over", flush=True)
'''

KINDS = [
    *("process batch", "thread batch", "serial batch", "joblib batch"),
    *("batch of the pool", "unread batch", "thread map", "map of the pool"),
    *("begun map", "serial map", "pool", "gate"),
]


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("where", ["meanwhile", "exit"])
@pytest.mark.parametrize("what", KINDS)
def test_what_is_dropped_in_a_cycle_ends_and_hangs_nobody(script, what, where):
    journal = script.parent / "out.sqlite"
    done = subprocess.run(
        [sys.executable, script, Path(__file__).parent, what, where, journal],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if "batch" in what:
        assert not locks.is_locked(str(journal))
