"""Which processes end with a worker: those that its last task has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import ProcessPoolExecutor, TaskKilledError, processes
from coresize.host import MARK
from coresize.processes import orphans, task_limits


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="found in /proc")

METHODS = ["forkserver", "spawn"]


def start(kind):
    """Start a process that stays; returns its id."""
    if kind.startswith("fork"):
        pid = os.fork()
        if not pid:
            time.sleep(1000)
            os._exit(0)
        return pid
    words, more = ["/bin/sleep", "1000"], dict(KINDS[kind])
    if more.pop("orphan", False):
        script = "/bin/sleep 1000 >/dev/null & echo $!"
        done = subprocess.run(
            ["/bin/sh", "-c", script], check=True, stdout=subprocess.PIPE, **more
        )
        return int(done.stdout)
    if more.pop("without", False):
        more["env"] = {k: v for k, v in os.environ.items() if k != MARK}
        more["env"]["OTHER"] = "1"
    return subprocess.Popen(words, **more).pid


#: How a task starts a process that ends with its worker.
KINDS = {
    "plain": {},
    "session": {"start_new_session": True},
    "no environment": {"env": {}},
    "no environment, session": {"env": {}, "start_new_session": True},
    "another environment": {"env": {"PATH": "/bin"}},
    "another environment, group": {"env": {"PATH": "/bin"}, "process_group": 0},
    "orphan": {"orphan": True},
    "orphan, no environment": {"orphan": True, "env": {}},
    "fork": {},
}


def note(path, *kinds):
    """Start processes, and note them, all or nothing."""
    text = " ".join(str(start(kind)) for kind in kinds)
    Path(f"{path}.new").write_text(text)
    Path(f"{path}.new").rename(path)


def note_and_die(path, *kinds):
    note(path, *kinds)
    os.kill(os.getpid(), signal.SIGKILL)


def noted(path):
    """The processes of a note; the caller ends those that are left."""
    return [int(word) for word in path.read_text().split()]


@pytest.fixture
def folder(tmp_path):
    """A folder for notes: what they name does not outlive the test."""
    yield tmp_path
    for path in tmp_path.iterdir():
        for pid in noted(path):
            if processes.read(pid, "cmdline"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def ended(pids):
    return [processes.has_exited(pid) for pid in pids]


@pytest.mark.parametrize("method", METHODS)
def test_all_that_a_task_has_just_started_ends_with_its_worker(folder, method):
    with ProcessPoolExecutor(1, get_context(method)) as pool:
        future = pool.submit(note_and_die, folder / "note", *KINDS)
        assert isinstance(future.exception(60), TaskKilledError)
    assert ended(noted(folder / "note")) == [True] * len(KINDS)


@pytest.mark.parametrize("method", METHODS)
def test_what_earlier_tasks_have_started_goes_on_however_late(folder, method):
    """The second task is sent before the first ends: no clock tells them apart."""
    with ProcessPoolExecutor(1, get_context(method)) as pool:
        first = pool.submit(note, folder / "first", *KINDS)
        second = pool.submit(note_and_die, folder / "second", *KINDS)
        first.result(60)
        assert isinstance(second.exception(60), TaskKilledError)
    assert ended(noted(folder / "second")) == [True] * len(KINDS)
    assert ended(noted(folder / "first")) == [False] * len(KINDS)


def test_what_was_seen_during_an_earlier_task_goes_on(folder):
    with ProcessPoolExecutor(1) as pool:
        first = pool.submit(note_until, folder / "first", folder / "go")
        (handle,) = pool._dispatcher.handles or (None,)
        end = time.monotonic() + 60
        while not (folder / "first").exists() or not (
            handle and set(noted(folder / "first")) <= set(handle.started)
        ):
            assert time.monotonic() < end
            time.sleep(0.02)
            handle = next(iter(pool._dispatcher.handles), None)
        (folder / "go").touch()
        first.result(60)
        second = pool.submit(note_and_die, folder / "second", "plain")
        assert isinstance(second.exception(60), TaskKilledError)
    assert ended(noted(folder / "first")) == [False, False]
    assert ended(noted(folder / "second")) == [True]


def note_until(path, go):
    note(path, "plain", "no environment")
    while not go.exists():
        time.sleep(0.02)


def test_each_call_of_a_chunk_is_a_task(folder):
    paths = [folder / "first", folder / "second"]
    with ProcessPoolExecutor(1) as pool, pytest.raises(TaskKilledError):
        list(pool.map(note_one, paths, [False, True], chunksize=2))
    assert ended(noted(paths[0])) == [False]
    assert ended(noted(paths[1])) == [True]


def note_one(path, dies):
    (note_and_die if dies else note)(path, "no environment")


def test_what_other_workers_have_started_goes_on(folder):
    with ProcessPoolExecutor(2) as pool:
        other = pool.submit(note_until, folder / "other", folder / "go")
        end = time.monotonic() + 60
        while not (folder / "other").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        dead = pool.submit(note_and_die, folder / "dead", *KINDS)
        assert isinstance(dead.exception(60), TaskKilledError)
        assert ended(noted(folder / "dead")) == [True] * len(KINDS)
        assert ended(noted(folder / "other")) == [False, False]
        (folder / "go").touch()
        other.result(60)


def test_a_session_without_the_variable_goes_on(folder):
    """So a process is left on purpose."""
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(leave_and_die, folder / "note")
        assert isinstance(future.exception(60), TaskKilledError)
    assert ended(noted(folder / "note")) == [False]


def leave_and_die(path):
    KINDS["left"] = {"without": True, "start_new_session": True}
    note_and_die(path, "left")


def set_limit():
    import resource

    resource.setrlimit(15, (10**6, resource.RLIM_INFINITY))


def own_limit():
    import resource

    return resource.getrlimit(15)[0]


def test_a_limit_of_the_user_stays():
    with ProcessPoolExecutor(1, initializer=set_limit) as pool:
        assert pool.submit(own_limit).result(60) == 10**6


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 30))
def test_later_tasks_are_since_an_earlier_one(first, more):
    assert task_limits.is_since((first + more) % (1 << 32), first)
    assert not task_limits.is_since(first % (1 << 32), first + more + 1)


def test_a_process_shows_no_task_of_another_worker():
    assert task_limits.task_of(os.getpid(), orphans.new()) is None
    assert task_limits.task_of(0, orphans.new()) is None
