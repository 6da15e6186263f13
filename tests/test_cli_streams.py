"""What becomes of commands whose streams are closed, full or unread, and of Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import commands
import pytest

from coresize.batch.journal import locks, reader


PATIENCE = 120
COMMAND = [sys.executable, "-m", "coresize"]

JOBS = """\
import logging, os, pathlib, sys, time, warnings
def double(item):
    return item * 2
def slow(item):
    pathlib.Path(f"begun-{item}").touch()
    time.sleep(0.02)
    return item
def endless(item):
    pathlib.Path(f"begun-{item}").touch()
    time.sleep(300)
def loud(item):
    warnings.warn("of a task")
    logging.getLogger().warning("of a task")
    return item
"""


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "jobs.py").write_text(JOBS)
    items = "".join(f"{json.dumps(item)}\n" for item in range(400))
    (tmp_path / "items.jsonl").write_text(items)
    return tmp_path


def shell(folder, text, **env):
    """What a line of bash gives; $C is the command."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", text],
        cwd=folder,
        env={**commands.environment(folder, env), "C": " ".join(COMMAND)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


ITEMS = "--items items.jsonl"

# --- Standard error that cannot be written ------------------------------------

SILENCED = ["2>/dev/full", "2>&-", "2> >(true)"]


@pytest.mark.parametrize("executor", ["process", "thread", "serial"])
@pytest.mark.parametrize("redirection", SILENCED)
def test_a_batch_does_not_need_standard_error(folder, redirection, executor):
    words = f"{ITEMS} --executor {executor} --journal out.sqlite"
    done = shell(folder, f"sleep 0.1; $C batch jobs:loud {words} {redirection}")
    assert done.returncode == 0
    assert reader.count(str(folder / "out.sqlite")) == {"ok": 400}


@pytest.mark.parametrize("redirection", SILENCED)
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("batch jobs:none --items items.jsonl", 2),
        ("batch jobs:double --items nowhere.jsonl", 2),
        ("report --no-such-option", 2),
        ("cores --host nowhere", 2),
        ("merge nowhere.sqlite -o all.csv", 2),
        ("run -- no-such-program", 127),
        ("workers --memory 100TiB", 0),
        ("workers --memory 100TiB --strict", 1),
        ("shards 2 -- sh -c 'exit 3'", 1),
        ("shards 2 -- true", 0),
        ("sweep --workers 1 --repeat 1 -- sleep 0.{workers}", 0),
        ("profile -- sh -c 'exit 7'", 7),
    ],
)
def test_the_status_is_right_without_standard_error(folder, words, status, redirection):
    done = shell(folder, f"$C {words} {redirection}")
    assert done.returncode == status, done.stdout


def test_a_program_of_ones_own_does_not_need_it_either(folder):
    program = (
        "import sys; sys.path.insert(0, '.'); import jobs\n"
        "from coresize import run_batch\n"
        "run = run_batch(jobs.double, range(400), executor='thread', progress=True)\n"
        "print(len(run.results()))\n"
    )
    done = shell(folder, f'{sys.executable} -c "{program}" 2>/dev/full')
    assert (done.stdout, done.returncode) == ("400\n", 0)


# --- Standard output ------------------------------------------------------------


def test_a_batch_that_nobody_reads_stops(folder):
    line = f"$C batch jobs:slow {ITEMS} | head -1; echo ${{PIPESTATUS[0]}}"
    done = shell(folder, line)
    first, status = done.stdout.splitlines()
    assert json.loads(first)["status"] == "ok"
    assert int(status) == 128 + signal.SIGPIPE
    assert "nobody reads standard output any more; --journal FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(folder.glob("begun-*"))) < 400


def test_with_a_journal_nothing_is_to_be_read(folder):
    done = shell(folder, f"$C batch jobs:double {ITEMS} --journal out.sqlite | true")
    assert done.returncode == 0, done.stderr
    assert reader.count(str(folder / "out.sqlite")) == {"ok": 400}


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words", ["report", "--help", "--version", "cores", "env", "batch --help"]
)
def test_a_reader_may_leave_any_command(folder, words, unbuffered):
    line = f"{{ sleep 0.1; $C {words}; echo $? >&2; }} | true"
    done = shell(folder, line, PYTHONUNBUFFERED=unbuffered)
    assert done.stderr == "0\n"


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [("report", ""), ("report", "1"), ("env", ""), ("--help", ""), ("--version", "")],
)
def test_a_full_disk_is_said_in_a_line(folder, words, unbuffered):
    done = shell(folder, f"$C {words} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "standard output cannot be written: No space left" in done.stderr


@pytest.mark.parametrize("words", [f"batch jobs:double {ITEMS}", "report"])
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "<&- >/dev/full"])
def test_output_that_is_lost_is_an_error(folder, words, redirection):
    done = shell(folder, f"$C {words} {redirection}")
    assert done.returncode == 2
    assert "coresize: error: standard output" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("redirection", [">/dev/full", "| true", ">&-"])
def test_shards_go_on_whoever_looks_at_them(folder, redirection):
    part = "sleep 0.5; touch done-{index}"
    done = shell(folder, f"$C shards 2 -- sh -c '{part}' {redirection}")
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("done-*"))) == 2
    assert done.stderr.count("\n") <= 1


# --- Signals --------------------------------------------------------------------


@contextlib.contextmanager
def begun(folder, *words, prefix=(), **more):
    process = subprocess.Popen(
        [*prefix, *COMMAND, *map(str, words)],
        cwd=folder,
        env=commands.environment(folder, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_nohup_has_ignored_stays_ignored(folder):
    part = "touch begun-{index}; while ! test -e over; do sleep 0.05; done"
    words = ("shards", "2", "--", "sh", "-c", part)
    with begun(folder, *words, prefix=["nohup"], stdin=subprocess.DEVNULL) as process:
        wait_for(lambda: len(list(folder.glob("begun-*"))) == 2)
        os.kill(process.pid, signal.SIGHUP)
        (folder / "over").touch()
        assert process.wait(PATIENCE) == 0


#: Commands that run until they are ended, and what is there when they have begun.
LONG = {
    "batch": (f"batch jobs:endless {ITEMS} --journal out.sqlite", "begun-*"),
    "batch, threads": (f"batch jobs:slow {ITEMS} --executor thread", "begun-*"),
    "batch, serial": (f"batch jobs:endless {ITEMS} --executor serial", "begun-*"),
    "shards": ("shards 2 -- sh -c 'touch begun; sleep 300'", "begun"),
    "sweep": ("sweep --workers 1 -- sh -c 'touch begun; sleep 300' {workers}", "begun"),
    "profile": ("profile -- sh -c 'touch begun; sleep 300'", "begun"),
}


@pytest.mark.parametrize("times", [1, 3, 30])
@pytest.mark.parametrize("what", LONG)
def test_any_number_of_ctrl_c_ends_it_quietly(folder, what, times):
    words, sign = LONG[what]
    code, text = in_terminal(folder, words, sign, times)
    assert code == 130, text
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    if what == "batch":
        assert not locks.is_locked(str(folder / "out.sqlite"))
        assert set(reader.count(str(folder / "out.sqlite"))) <= {"ok", None}


def in_terminal(folder, words, sign, times):
    """Run it at a terminal, and type Ctrl-C so often; its status and its output."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        env = {**commands.environment(folder, {}), "C": " ".join(COMMAND)}
        os.execvpe("bash", ["bash", "-c", f"exec $C {words}"], env)
    pieces = []

    def read(seconds):
        with contextlib.suppress(OSError):  # it has ended
            if select.select([terminal], [], [], seconds)[0]:
                pieces.append(os.read(terminal, 65536))

    def is_over():
        read(0.01)
        return list(folder.glob(sign))

    try:
        wait_for(is_over)
        for _ in range(times):
            os.write(terminal, b"\x03")
            read(0.003)
        ended = []

        def has_ended():
            read(0.01)
            ended[:] = os.waitpid(pid, os.WNOHANG)
            return ended[0]

        wait_for(has_ended)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        read(0.0)
        os.close(terminal)
    return os.waitstatus_to_exitcode(ended[1]), b"".join(pieces).decode()
