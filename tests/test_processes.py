"""Other processes: what is read of them, what they have used, how they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coresize import processes
from coresize.host import MARK
from coresize.processes import exits, inheritance, signals
from coresize.processes.commands import Command


linux = pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")


@linux
def test_what_is_longer_than_a_page_is_read_to_its_end():
    """The kernel gives a page at a time, of a list of many children, too."""
    last = Path("/proc/self/maps").read_text().splitlines()[-1]
    text = processes.read("self", "maps")
    assert len(text) > 4096
    assert text.splitlines()[-1] == last


#: It computes in a child, which ends, and says so.
DELEGATE = f"""
import subprocess, time
spin = "import time\\nwhile time.process_time() < 0.3: pass"
subprocess.run([{sys.executable!r}, "-S", "-c", spin])
print(flush=True)
time.sleep(60)
"""


def test_what_a_child_has_used_stays_in_the_tree_when_it_has_ended():
    with subprocess.Popen(
        [sys.executable, "-S", "-c", DELEGATE], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        used = processes.cpu_of_tree(process.pid)
        process.kill()
    own, of_children = used.pop(process.pid)
    assert own < 0.2 <= of_children  # in ticks, rounded down
    assert used == {}


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), (2, "SIGINT"), (0, "signal 0"), (99, "signal 99")],
)
def test_signals_have_names_or_numbers(number, name):
    assert exits.signal_name(number) == name


@pytest.mark.parametrize(
    ("code", "killed"),
    [(None, False), (0, False), (9, False), (-9, True), (-15, False)],
)
@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signal")
def test_who_was_killed(code, killed):
    assert exits.was_killed(code) is killed


#: As on Windows.
WITHOUT = """
import signal
del signal.SIGKILL
from coresize.processes import exits
from coresize.cli import main
from coresize.executor.pool import exits as verdicts
assert [exits.was_killed(code) for code in (None, 0, -9)] == [False] * 3
assert verdicts.overdue(1.0, peak=0, attempts=1).exit_code is None
assert "SIGTERM" in str(verdicts.verdict(-15, peak=0, attempts=1, out_of_memory="yes"))
raise SystemExit(main(["profile", "--", "sh", "-c", "exit 3"]))
"""


def test_where_no_signal_kills_the_end_is_told_all_the_same():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert "it ended with exit status 3" in done.stdout


# --- Commands ---------------------------------------------------------------------


def test_signals_wait_until_a_command_was_started():
    steps = []

    def start():
        with signals.held_back():
            signal.raise_signal(signal.SIGINT)
            steps.append("started")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert steps == ["started"]


#: What it leaves in its session, and outside: their numbers are the lines of a file.
LEAVES = "sleep 1000 & echo $! > {0}; setsid sleep 1000 & echo $! >> {0}; "


@contextlib.contextmanager
def leaving(path, then, **options):
    """A command that leaves processes behind; it, and those processes."""
    command = Command(["sh", "-c", LEAVES.format(path) + then], **options)
    found = []
    try:
        command.start()
        end = time.monotonic() + 60
        while len(found) < 2 and time.monotonic() < end:
            found = path.read_text().split() if path.exists() else []
            time.sleep(0.01)
        yield command, [int(one) for one in found]
    finally:
        command.close(everywhere=True)


def left(pids):
    return [processes.is_running(pid) for pid in pids]


def soon(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@linux
def test_all_that_a_command_has_started_ends_with_it(tmp_path):
    with leaving(tmp_path / "pids", "sleep 1000") as (command, found):
        assert (command.is_running, command.poll()) == (True, None)
        command.close()
        assert (command.is_running, command.poll()) == (False, -9)
        soon(lambda: left(found) == [False, False])


@linux
@pytest.mark.parametrize(
    ("own_session", "everywhere", "expected"),
    [(True, True, [0, 0]), (True, False, [0, 1]), (False, False, [1, 1])],
)
def test_what_a_command_leaves_behind(tmp_path, own_session, everywhere, expected):
    with leaving(tmp_path / "pids", "exit 3", own_session=own_session) as (
        command,
        found,
    ):
        soon(lambda: command.poll() == 3)
        command.close(everywhere=everywhere)
        soon(lambda: left(found) == expected)
        command.close(everywhere=True)
        soon(lambda: left(found) == [False, False])


@linux
def test_a_command_without_a_session_ends_when_it_is_closed(tmp_path):
    with leaving(tmp_path / "pids", "sleep 1000", own_session=False) as (
        command,
        found,
    ):
        command.close()
        soon(lambda: left(found) == [False, False])


def test_a_command_that_was_never_started_is_closed_all_the_same():
    command = Command(["no such program"])
    command.close(everywhere=True)
    command.send(signal.SIGTERM)
    assert (command.is_running, command.poll(), command.kill()) == (False, None, None)
    with pytest.raises(OSError):  # noqa: PT011 - of any kind
        command.start()
    command.close()


def names_of(pid):
    variables = processes.read(pid, "environ").split("\0")
    return {one.partition("=")[0] for one in variables if one}


@linux
def test_a_command_has_a_mark_and_is_sent_signals():
    command = Command(["sleep", "1000"], environment={"PATH": os.environ["PATH"]})
    try:
        pid = command.start().pid
        soon(lambda: names_of(pid) == {"PATH", MARK})
        command.send(signal.SIGTERM)
        soon(lambda: command.poll() == -signal.SIGTERM)
    finally:
        command.close()


FOLDERS = {
    "plain": "folder",
    "not of UTF-8": b"caf\xe9",
    "of many bytes": "/".join(["é" * 100] * 15),
    "longer than a path may be": "/".join(["x" * 200] * 25),
    "removed": None,
}


@pytest.mark.parametrize("name", FOLDERS.values(), ids=FOLDERS)
def test_the_working_folder_is_read_as_python_does(name, tmp_path):
    with contextlib.chdir(tmp_path):
        for part in os.fsdecode(name or "removed").split("/"):
            Path(part).mkdir()
            os.chdir(part)
        if name is None:
            tmp_path.joinpath("removed").rmdir()
        found = inheritance.folder_reader()()
        assert found == inheritance.folder()
    assert (found is None) == (name is None)
