"""Pools in cgroups that refuse processes, that freeze them, or that kill them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import failures
import pytest
from live import cgroups

from coresize import ProcessPoolExecutor


CGROUPS = Path("/sys/fs/cgroup")
TESTS = Path(__file__).parents[1]
LONG = 120

_numbers = itertools.count()


def needs(controller):
    writable = os.access(CGROUPS / controller / "cgroup.procs", os.W_OK)
    reason = f"no writable cgroup v1 {controller} hierarchy"
    return pytest.mark.skipif(not writable, reason=reason)


@contextlib.contextmanager
def cgroup(controller):
    """A cgroup of one controller, which ends with all that is in it."""
    name = f"coresize-failures-{os.getpid()}-{next(_numbers)}"
    folder = CGROUPS / controller / name
    folder.mkdir()
    try:
        yield folder
    finally:
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            for pid in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), 9)
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.02)


HEAD = """\
import json, logging, sys, threading, time
import failures
from concurrent.futures.process import BrokenProcessPool
from coresize import ProcessPoolExecutor, ThreadPoolExecutor, limit_memory

class OnWarning(logging.Handler):
    "Does something at the first warning: a start was refused."
    def __init__(self, call):
        super().__init__()
        self.call, self.texts = call, []
        logging.getLogger("coresize").addHandler(self)
    def emit(self, record):
        self.texts.append(record.getMessage())
        if len(self.texts) == 1:
            self.call()

most, go = sys.argv[1], sys.argv[2]
def allow(number):
    with open(most, "w") as file:
        file.write(str(number))
def count():
    with open(most.replace("max", "current")) as file:
        return int(file.read())
"""


def run_in(folder, program, *words):
    """What a program prints in a cgroup of processes, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program, folder / "pids.max", *words],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        preexec_fn=lambda: (folder / "cgroup.procs").write_text("0"),
        stdout=subprocess.PIPE,
        text=True,
        timeout=LONG,
        check=True,
    )
    return json.loads(done.stdout)


@needs("pids")
@pytest.mark.parametrize("memory", [None, "1MB"])
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("ready", [0, 1])
def test_processes_that_are_refused_for_a_moment(tmp_path, ready, method, memory):
    """A fork server that may not fork ends itself: that is one way to be refused."""
    program = f"""
import multiprocessing
context = multiprocessing.get_context({method!r})
with ProcessPoolExecutor(3, context, memory={memory!r}) as pool:
    for _ in range({ready}):
        pool.submit(abs, -1).result()
    refused = threading.Event()
    seen = OnWarning(refused.set)
    pool._dispatcher._start()  # its thread is there
    allow(count())
    first = pool.submit(failures.wait_for, go)
    futures = [pool.submit(failures.echo, number) for number in range(20)]
    refused.wait(100)
    allow("max")
    open(go, "w").close()
    print(json.dumps([[future.result() for future in futures], seen.texts]))
"""
    with cgroup("pids") as folder:
        values, texts = run_in(folder, program, tmp_path / "go")
    assert values == list(range(20))
    assert "pids.max is " in texts[0]


@needs("pids")
def test_processes_that_are_always_refused(tmp_path):
    program = """
with ProcessPoolExecutor(3) as pool:
    pool._dispatcher._start()
    allow(count())
    error = pool.submit(failures.echo, 1).exception()
    print(json.dumps([type(error).__name__, str(error)]))
"""
    with cgroup("pids") as folder:
        name, text = run_in(folder, program, tmp_path)
    assert name == "BrokenProcessPool"
    assert "pids.max is " in text


@needs("pids")
def test_forks_that_are_refused(tmp_path):
    program = """
import multiprocessing
with ProcessPoolExecutor(8, multiprocessing.get_context("fork")) as pool:
    allow(count() + 4)  # one of them is the thread of the pool
    values = list(pool.map(abs, range(-20, 0)))
    print(json.dumps([values, pool.observe().workers]))
    allow("max")
"""
    with cgroup("pids") as folder:
        values, workers = run_in(folder, program, tmp_path)
    assert values == list(range(20, 0, -1))
    assert 1 <= workers < 8


@needs("pids")
@pytest.mark.parametrize(
    "make",
    [
        "ProcessPoolExecutor(2)",
        "ProcessPoolExecutor(2, multiprocessing.get_context('fork'))",
        "ThreadPoolExecutor(2)",
    ],
)
def test_threads_that_are_refused(tmp_path, make):
    program = f"""
import multiprocessing
with {make} as pool:
    allow(count())
    try:
        pool.submit(abs, -1)
    except (RuntimeError, OSError) as error:
        text = str(error)
    allow("max")
    print(json.dumps([text, list(pool.map(abs, range(-20, 0)))]))
"""
    with cgroup("pids") as folder:
        text, values = run_in(folder, program, tmp_path)
    assert "new thread" in text or "unavailable" in text
    assert values == list(range(20, 0, -1))


def test_starts_that_always_hang_end_the_pool():
    """Where a limit of time is given; the standard library's pool waits for ever."""
    with ProcessPoolExecutor(
        2, initializer=time.sleep, initargs=(failures.HOUR,), timeout=1
    ) as pool:
        futures = [pool.submit(failures.echo, number) for number in range(3)]
        for future in futures:
            error = future.exception(10 * LONG)
            assert type(error) is BrokenProcessPool
            assert "workers do not get ready: 4 times" in str(error)


@needs("freezer")
def test_a_worker_that_is_frozen_does_not_take_longer(tmp_path):
    with (
        cgroup("freezer") as folder,
        ProcessPoolExecutor(1, timeout=1.5) as pool,
    ):
        pid = pool.submit(os.getpid).result(LONG)
        (folder / "cgroup.procs").write_text(str(pid))
        words = tmp_path / "begun", tmp_path / "go"
        future = pool.submit(failures.tell_and_wait_for, *words)
        while not words[0].exists():
            time.sleep(0.01)
        try:
            (folder / "freezer.state").write_text("FROZEN")
            with pytest.raises(TimeoutError):
                future.result(4)
            words[1].touch()
        finally:
            (folder / "freezer.state").write_text("THAWED")
        assert future.result(LONG) == words[1]


@pytest.mark.skipif(cgroups.missing() is not None, reason=str(cgroups.missing()))
@pytest.mark.parametrize("way", ["pool", "profile"])
def test_a_kill_for_memory_is_told_whatever_the_variables_say(way):
    done = cgroups.run(
        300,
        "import json, os, sys, tasks\n"
        "from coresize import ProcessPoolExecutor, profile_task\n"
        "def become_wrong():\n"
        "    os.environ['CORESIZE_MAX_MEMORY'] = 'rubbish'\n"
        "try:\n"
        "    if sys.argv[1] == 'profile':\n"
        "        become_wrong()\n"
        "        profile_task(tasks.take_for_ever)\n"
        "    with ProcessPoolExecutor(2) as pool:\n"
        "        pool.submit(abs, -1).result()\n"
        "        become_wrong()\n"
        "        other = pool.submit(tasks.nap, 1)\n"
        "        pool.submit(tasks.take_for_ever).result()\n"
        "except Exception as error:\n"
        "    print(json.dumps([type(error).__name__, str(error)]))\n",
        way,
    )
    name, text = json.loads(done.out)
    assert name == "TaskOutOfMemoryError", text
    assert "the memory limit is 300.0 MiB" in text
