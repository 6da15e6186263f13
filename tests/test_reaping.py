"""File systems without locks, exit statuses that are lost, and what process 1 reaps."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import subprocess
import sys

import pytest

from coresize.executor.pool import exits


linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has it")


def _run(words, folder, **options):
    return subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


# --- File systems without locks -----------------------------------------------

#: Lets the kernel answer an error to every lock: a filter for fcntl(2) with the
#: commands of locks (seccomp(2); filters are BPF instructions: code, jt, jf, k).
REFUSE = """
import ctypes, errno, fcntl, platform, struct, sys
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER = {"x86_64": 72, "aarch64": 25}[platform.machine()]
_LOCKS = (5, 6, 7, 36, 37, 38)

def refuse_locks(number):
    rules = [(_LOAD, 0, 0, 0), (_EQUAL, 0, len(_LOCKS) + 1, _NUMBER), (_LOAD, 0, 0, 24)]
    rules += [(_EQUAL, len(_LOCKS) - i, 0, lock) for i, lock in enumerate(_LOCKS)]
    rules += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | number)]
    program = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *rule) for rule in rules)
    )
    filters = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.c_char_p(filters), 0, 0) == 0
"""

LOCKS = (
    REFUSE
    + """
from coresize import errors, run_batch
from coresize.batch.journal import locks, reader, schema
from coresize.planning.history import store

def write():
    list(run_batch(abs, [1], executor="serial", journal="new"))

def read():
    with schema.explained("old"):
        schema.open_to_read("old")

list(run_batch(abs, [1], executor="serial", journal="old"))
refuse_locks(getattr(errno, sys.argv[1]))
for action in (write, read, store.names):
    try:
        action()
    except errors.CoresizeError as error:
        print(error)
print(locks.is_locked("old"))
"""
)


@linux
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="the filter needs a number"
)
@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_told_at_once(name, tmp_path):
    state = tmp_path / "state"
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    done = _run([sys.executable, "-c", LOCKS, name], tmp_path, env=environment)
    assert done.stderr == ""
    *told, locked = done.stdout.splitlines()
    why = f"does not support locks ({os.strerror(getattr(errno, name))})"
    assert [why in line for line in told] == [True] * 3
    assert "put the journal on another one" in told[0]
    assert f"the file system of {tmp_path} " in told[1]
    assert "set XDG_STATE_HOME" in told[2]
    assert "another p" not in done.stdout  # process or program: there is none
    assert locked == "False"
    assert sorted(path.name for path in state.rglob("*.*")) == ["history.sqlite"]


# --- Exit statuses that are lost ----------------------------------------------

LOST = """
import multiprocessing, os, signal, sys
import coresize
from coresize import ProcessPoolExecutor, errors

def double(number):
    return 2 * number

def die(number):
    os.kill(os.getpid(), signal.SIGKILL)

def reap(*_):
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return

def told(action):
    try:
        action()
    except errors.TaskKilledError as error:
        return type(error).__name__, "SIGCHLD" in str(error) or "SIGKILL" in str(error)

if __name__ == "__main__":
    handlers = {"ignored": signal.SIG_IGN, "reaped": reap}
    signal.signal(signal.SIGCHLD, handlers[sys.argv[1]])
    for method in ("forkserver", "spawn", "fork"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            print(list(pool.map(double, [1, 2])))
        with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            print(*told(pool.submit(die, 1).result), pool.submit(double, 3).result())
    print(coresize.run_batch(double, [1, 2], max_workers=1).results())
    print(coresize.profile_task(double, 1).peak_memory >= 0)
    print(*told(lambda: coresize.profile_task(die, 1)))
"""


@linux
@pytest.mark.parametrize("how", ["ignored", "reaped"])
def test_all_works_where_exit_statuses_are_lost(how, tmp_path):
    (tmp_path / "program.py").write_text(LOST)
    done = _run([sys.executable, "program.py", how], tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    of_pool = ["[2, 4]", "TaskKilledError True 6"]
    rest = ["[2, 4]", "True", "TaskKilledError True"]
    assert done.stdout.splitlines() == 3 * of_pool + rest


@pytest.mark.parametrize(
    ("code", "out_of_memory", "cls", "text"),
    [
        (None, "no", "TaskKilledError", "how is not known"),
        (None, "yes", "TaskOutOfMemoryError", "killed for memory"),
        (None, "probably", "TaskOutOfMemoryError", "probably killed for memory"),
        (3, "yes", "TaskCrashedError", "exit status 3"),
    ],
)
def test_what_an_unknown_end_tells(code, out_of_memory, cls, text):
    error = exits.verdict(code, peak=0, attempts=1, out_of_memory=out_of_memory)
    assert (type(error).__name__, error.exit_code) == (cls, code)
    assert text in str(error)


@linux
@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("shards 2 -- sh -c 'exit 3'", 1, "failed (3)"),
        ("profile -- sh -c 'exit 3'", 3, "exit status 3"),
        ("run -- sh -c 'exit 4'", 4, ""),
    ],
)
def test_a_command_learns_exit_statuses_if_its_parent_ignores_them(
    words, status, told, tmp_path
):
    line = f"trap '' CHLD; exec {sys.executable} -m coresize {words}"
    done = _run(["sh", "-c", line], tmp_path)
    assert done.returncode == status
    assert told in done.stdout


# --- Process 1 ----------------------------------------------------------------

#: Leaves a process behind, and waits until it is gone, zombies included.
LEAVE = """
import os, subprocess, sys, time
def leave(_):
    left = int(subprocess.check_output(["sh", "-c", "sleep 0 >&2 & echo $!"]))
    while os.path.exists(f"/proc/{left}"):
        time.sleep(0.01)
"""


def _can_unshare():
    words = ["unshare", "-pf", "--mount-proc", "true"]
    return (
        shutil.which("unshare")
        and not subprocess.run(words, capture_output=True, check=False).returncode
    )


@linux
@pytest.mark.skipif(not _can_unshare(), reason="no new namespace is permitted")
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["batch", "left:leave", "--items", "items.txt", "--workers", "1"], 0),
        (["run", "--", sys.executable, "-c", "import left; left.leave(0)"], 0),
        (["run", "--", "sh", "-c", "exit 7"], 7),
        (["run", "--", "sh", "-c", "kill -9 $$"], 137),
        # The first process of this namespace gets a signal from within.
        (["run", "--", "sh", "-c", "kill -TERM 1; sleep 60"], 143),
        (["shards", "1", "--", "sh", "-c", "exit 3"], 1),
    ],
)
def test_process_1_reaps_and_keeps_the_exit_status(words, status, tmp_path):
    (tmp_path / "left.py").write_text(LEAVE)
    (tmp_path / "items.txt").write_text("a\nb\n")
    first = ["unshare", "-pf", "--mount-proc", sys.executable, "-m", "coresize"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = _run([*first, *words], tmp_path, env=environment)
    assert done.returncode == status, done.stderr
