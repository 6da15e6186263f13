"""Objects that a fork has copied: the child gets an error, and the parent goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from coresize.errors import InheritedError
from coresize.processes.ownership import Owner


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


#: Each object has a task that runs until the parent lets it end, after the child has.
PROGRAM = """
import concurrent.futures, multiprocessing, os, sys, time
from pathlib import Path
import coresize
from coresize import ProcessPoolExecutor, SerialExecutor, ThreadPoolExecutor

def hold(number):
    while number and not Path("go").exists():
        time.sleep(0.01)
    return number

class Pool:
    def __init__(self, pool):
        self.pool = pool
        self.done = pool.submit(hold, 0)
        self.done.result()
        self.future = pool.submit(hold, 1)
        self.map = pool.map(hold, [2, 3])
        self.uses = [
            lambda: pool.submit(hold, 0),
            lambda: list(pool.map(hold, [0])),
            lambda: next(self.map),
            self.future.result,
            self.future.exception,
            self.future.done,
            self.future.cancel,
            lambda: self.future.add_done_callback(print),
            lambda: concurrent.futures.wait([self.done, self.future]),
            lambda: list(concurrent.futures.as_completed([self.future])),
        ]
        self.ends = [
            lambda: self.done.result() or None,
            lambda: pool.shutdown(cancel_futures=True),
            lambda: pool.__exit__(None, None, None) or None,
            lambda: getattr(pool, "kill_workers", lambda: None)(),
        ]

    def end(self):
        with self.pool as pool:
            return [self.future.result(), *self.map, pool.submit(hold, 4).result()]

class Serial:
    def __init__(self):
        self.pool = SerialExecutor()
        self.map = self.pool.map(hold, [0, 2, 3])
        next(self.map)
        self.uses = [lambda: next(self.map)]
        self.ends = [self.pool.shutdown]

    def end(self):
        return [1, *self.map, 4]

class Batch:
    def __init__(self, executor):
        run = self.run = coresize.run_batch(
            hold, [0, 1, 2, 3, 4], executor=executor, max_workers=5, journal="journal"
        )
        self.outcomes = iter(run)
        next(self.outcomes)
        self.uses = [lambda: next(self.outcomes), lambda: list(run), run.wait]
        self.ends = [lambda: run.report and None, run.close]

    def end(self):
        values = [one.value for one in self.outcomes]
        again = coresize.run_batch(hold, range(5), executor="serial", journal="journal")
        assert {one.status for one in again} == {"skipped"}
        return sorted(values)

def joblib_executor():
    from coresize.adapters.joblib import JoblibExecutor
    return JoblibExecutor(2)

MAKE = {
    "processes": lambda: Pool(ProcessPoolExecutor(2)),
    "threads": lambda: Pool(ThreadPoolExecutor(2, queue_size=3)),
    "gate": lambda: Pool(coresize.limit_memory(ThreadPoolExecutor(2), memory="1kB")),
    "joblib": lambda: Pool(joblib_executor()),
    "serial": Serial,
    "batch": lambda: Batch("process"),
    "thread batch": lambda: Batch("thread"),
}

def outcome(use):
    try:
        return str(use())
    except BaseException as error:
        known = f"belongs to process {os.getppid()}," in str(error)
        return f"{type(error).__name__} {known}"

def child(made):
    print(*map(outcome, made.uses), sep="|")
    print(*map(outcome, made.ends), sep="|")
    sys.stdout.flush()

def fork(made, leave):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        child(made)
        made = None
        leave(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def multiprocess(made):
    process = multiprocessing.get_context("fork").Process(target=child, args=(made,))
    process.start()
    process.join()
    return process.exitcode

if __name__ == "__main__":
    made = MAKE[sys.argv[1]]()
    print(fork(made, os._exit))
    if sys.argv[1] != "joblib":  # at its end, a child of loky's waits for the workers
        print(fork(made, sys.exit), multiprocess(made))
    Path("go").touch()
    print(made.end())
"""


@pytest.mark.parametrize(
    ("name", "uses", "ends"),
    [
        *((name, 10, 4) for name in ("processes", "threads", "gate")),
        ("joblib", 10, 4),
        ("serial", 1, 1),
        *((name, 3, 2) for name in ("batch", "thread batch")),
    ],
)
def test_an_inherited_object_is_refused_and_stays_the_parents(
    name, uses, ends, tmp_path
):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        # Python 3.12 warns of a fork beside threads, which is what is tried here.
        [sys.executable, "-W", "ignore", "program.py", name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    told = ["|".join(uses * ["InheritedError True"]), "|".join(ends * ["None"])]
    lines = [*told, "3"]
    if name != "joblib":
        lines += [*told, *told, "3 0"]
    assert done.stdout.splitlines() == [*lines, "[1, 2, 3, 4]"]


def test_an_owner_names_the_object_and_says_what_to_do():
    owner = Owner()
    assert (owner.is_here, owner.take("pool", used=True)) == (True, False)
    owner.check("pool")
    owner.forks -= 1  # as in a child
    with pytest.raises(InheritedError, match="make another pool in the child") as told:
        owner.check("pool")
    assert (told.value.what, told.value.pid) == ("pool", os.getpid())
    with pytest.raises(RuntimeError, match="wait before"):
        owner.check("future", "wait before the fork")
    with pytest.raises(InheritedError):
        owner.take("pool", used=True)
    assert owner.take("pool", used=False)
    assert owner.is_here
