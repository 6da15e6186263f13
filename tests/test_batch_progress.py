"""How far a batch is: in lines, in a bar, in a callback, in a file."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import termios
import threading
import time

import pytest
import tasks

from coresize import JournalError, Outcome, run_batch
from coresize.batch.journal import overview, status
from coresize.batch.progress import Display, Progress, Tally
from coresize.planning.settings import STATUS
from coresize.testing import container, use_host


GIB = 1024**3


def progress(**fields):
    standard = {
        "done": 50,
        "total": 369,
        "counts": {},
        "failed": 0,
        "skipped": 0,
        "elapsed": 0.08,
        "rate": 621.1,
        "eta": 0.51,
        "workers": 10,
        "memory": int(1.2 * GIB),
    }
    return Progress(**{**standard, **fields})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "50/369 | 621.1/s | ETA 1 s | 0 failed | 10 workers | 1.2 GiB"),
        (
            {"eta": 600.0, "failed": 3, "memory": None},
            "50/369 | 621.1/s | ETA 10.0 min | 3 failed | 10 workers",
        ),
        (
            {"workers": 1, "memory": None},
            "50/369 | 621.1/s | ETA 1 s | 0 failed | 1 worker",
        ),
        (
            {"total": None, "eta": None, "skipped": 20},
            "50 | 621.1/s | 0 failed | 20 skipped | 10 workers | 1.2 GiB",
        ),
    ],
)
def test_a_line_says_how_far_it_is(fields, line):
    assert str(progress(**fields)) == line


def outcome(status="ok", **fields):
    standard = {
        "key": "1",
        "index": 0,
        "status": status,
        "value": None,
        "error": None,
        "traceback": "",
        "attempts": 1,
        "peak_memory": None,
        "shared_memory": None,
        "wall": 0.0,
        "cpu": 0.0,
        "waited": 0.0,
        "worker": "",
    }
    return Outcome(**{**standard, **fields})


def tally(seconds, total=None, **counts):
    """The counts of a run that took so long; earlier_STATUS is of an earlier start."""
    made = Tally(total)
    for name, count in counts.items():
        for _ in range(count):
            state = name.removeprefix("earlier_")
            made.add(outcome(state), earlier=name != state)
    made._clock, made._ended = 100.0, 100.0 + seconds
    return made


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (tally(0.5, ok=369), "369 done in 0.5 s (0.00 s each) | 0 failed"),
        (
            tally(10, ok=3, oom=1, timeout=1),
            "5 done in 10.0 s (2.00 s each) | 2 failed",
        ),
        (
            tally(1, ok=1, earlier_skipped=7),
            "1 done in 1.0 s (1.00 s each) | 0 failed | 7 skipped",
        ),
        (
            tally(1, failed=1, earlier_skipped=7, earlier_failed=2),
            "1 done in 1.0 s (1.00 s each) | 3 failed, 2 before | 7 skipped",
        ),
        (
            tally(1, ok=1, cancelled=4),
            "5 done in 1.0 s (0.20 s each) | 0 failed | 4 cancelled",
        ),
        (tally(1), "0 done in 1.0 s (0.00 s each) | 0 failed"),
    ],
)
def test_the_last_line_says_what_it_came_to(made, line):
    assert made.closing() == line


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (
            tally(2.9, total=369, ok=109, failed=3),
            "stopped: 112 of 369 done in 2.9 s | 3 failed",
        ),
        (
            tally(1, total=9, ok=1, earlier_skipped=2, cancelled=1),
            "stopped: 3 of 9 done in 1.0 s | 0 failed | 2 skipped | 1 cancelled",
        ),
        (tally(1, ok=1), "stopped: 1 done in 1.0 s | 0 failed"),
    ],
)
def test_the_last_line_of_what_was_stopped_says_so(made, line):
    assert made.closing(stopped=True) == line


def test_a_display_that_is_closed_early_says_so(capsys):
    made = tally(1, total=9, ok=1)
    Display(True, made, lambda: 2).close(stopped=True)  # noqa: FBT003 - as above
    assert capsys.readouterr().err == "stopped: 1 of 9 done in 1.0 s | 0 failed\n"


def test_the_rate_is_of_what_was_run_and_the_rest_is_estimated_by_it():
    found = tally(10, total=100, ok=20, earlier_skipped=30).progress(4, None)
    assert (found.done, found.skipped, found.rate) == (50, 30, 2.0)
    assert found.eta == 25.0
    assert tally(1, total=100).progress(4, None).eta is None
    assert tally(1, ok=3).progress(4, None).eta is None
    assert tally(1, total=2, ok=3).progress(4, None).eta == 0.0


def test_the_start_up_ends_when_the_first_task_begins():
    made = Tally(None)
    now = time.time()
    made.begun(now + 2)
    made.begun(now + 1)
    assert 1.9 < made.startup < 2.1


# --- Who is told --------------------------------------------------------------


def test_a_callback_is_told_the_end():
    told = []
    run_batch(
        tasks.square_unless_odd, range(10), executor="serial", progress=told.append
    ).wait()
    assert (told[-1].done, told[-1].total, told[-1].failed) == (10, 10, 5)
    assert told[-1].counts["ok"] == 5


def test_a_callback_is_called_on_the_way_and_not_too_often():
    told = []
    run_batch(tasks.nap, [0.02] * 30, executor="serial", progress=told.append).wait()
    assert 2 <= len(told) <= 10
    assert [one.done for one in told] == sorted(one.done for one in told)


def test_what_is_skipped_is_counted(tmp_path):
    words = {"executor": "serial", "journal": tmp_path / "out.sqlite"}
    run_batch(tasks.square, range(5), progress=False, **words).wait()
    told = []
    run_batch(tasks.square, range(7), progress=told.append, **words).wait()
    assert (told[-1].done, told[-1].skipped, told[-1].counts["ok"]) == (7, 5, 2)


def test_true_without_a_terminal_prints_lines_to_standard_error(capsys):
    run_batch(tasks.square, range(5), executor="serial", progress=True).wait()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("5 done in ")
    assert captured.err.endswith("| 0 failed\n")


def test_nothing_said_is_lines_in_the_log(caplog, capsys):
    with caplog.at_level(logging.INFO, logger="coresize"):
        run_batch(tasks.square, range(5), executor="serial").wait()
    assert caplog.records[-1].getMessage().startswith("5 done in ")
    assert capsys.readouterr().err == ""


def test_false_is_silence(caplog, capsys):
    with caplog.at_level(logging.INFO, logger="coresize"):
        run_batch(tasks.square, range(5), executor="serial", progress=False).wait()
    assert caplog.records == []
    assert capsys.readouterr().err == ""


def test_lines_come_less_and_less_often(capsys):
    display = Display(True, Tally(10), lambda: 2)  # noqa: FBT003 - as the user says it
    intervals = []
    for _ in range(5):
        display._throttle._next = 0.0
        display.tick()
        intervals.append(display._throttle.interval)
    assert intervals == sorted(intervals)
    assert intervals[-1] > intervals[0]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("0/10 | 0.0/s | 0 failed | 2 workers")


PROGRAM = (
    "import sys; from coresize import run_batch; import time\n"
    "run_batch(time.sleep, [0.02] * 20, executor='thread', progress=True).wait()\n"
)


def shown_at(rows, columns):
    """What the program shows at a terminal of a size."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # EIO: the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_at_a_terminal_a_bar_is_shown_and_a_line_after_it():
    bar, line, rest = shown_at(24, 100).split("\r\n")
    assert "20/20" in bar
    assert "task/s" in bar
    assert "0 failed" in bar
    assert line.startswith("20 done in ")
    assert rest == ""


@pytest.mark.parametrize("size", [(0, 0), (0, 80), (24, 0)])
def test_at_a_terminal_without_room_lines_are_shown(size):
    text = shown_at(*size)
    assert "task/s" not in text
    assert text.splitlines()[-1].startswith("20 done in ")


# --- The file -----------------------------------------------------------------


@pytest.fixture
def beside(tmp_path):
    return tmp_path / f"out.sqlite{status.SUFFIX}"


def test_a_status_file_is_whole_at_any_time(beside):
    written = status.StatusFile(str(beside), "1/4")
    written.write(progress(), "running")
    over = threading.Event()
    seen = []

    def look():
        while not over.is_set():
            seen.append(status.read(str(beside)))

    reader = threading.Thread(target=look)
    reader.start()
    for done in range(200):
        written.write(progress(done=done), "running")
    over.set()
    reader.join()
    assert seen
    assert None not in seen
    assert {one["shard"] for one in seen} == {"1/4"}
    assert [path.name for path in beside.parent.iterdir()] == [beside.name]


def test_a_status_file_that_cannot_be_written_costs_nothing(tmp_path):
    written = status.StatusFile(str(tmp_path / "nowhere" / "x"), "0/1")
    written.write(progress(), "running")
    assert status.read(str(tmp_path / "nowhere" / "x")) is None


def test_a_variable_asks_for_a_second_status_file(tmp_path):
    path = tmp_path / "second.json"
    with use_host(container(env={STATUS: str(path)})):
        run_batch(tasks.square, range(3), executor="serial", progress=False).wait()
    assert json.loads(path.read_text())["state"] == "done"


def test_a_run_that_writes_is_running_and_one_whose_process_is_gone_is_killed(beside):
    path = str(beside).removesuffix(status.SUFFIX)
    status.StatusFile(path + status.SUFFIX, "1/4").write(progress(), "running")
    running = overview.look(path)
    assert (running.state, running.shard, running.pid) == (
        "running",
        "1/4",
        os.getpid(),
    )
    assert (running.done, running.total, running.rate) == (50, 369, 621.1)
    assert overview.look(str(beside)).as_dict() == {
        **running.as_dict(),
        "path": str(beside),
    }

    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    for fields, state in [
        ({"pid": gone.pid}, "killed"),
        ({"pid": gone.pid, "host": "elsewhere"}, "running"),
        ({"pid": gone.pid, "state": "done"}, "done"),
        ({"updated": time.time() - 3600}, "silent"),
        ({"pid": None, "host": "elsewhere", "updated": None}, "silent"),
    ]:
        content = {**json.loads(beside.read_text()), **fields}
        other = beside.with_name(f"other{status.SUFFIX}")
        other.write_text(json.dumps(content))
        assert overview.look(str(other)).state == state


def test_without_a_status_file_the_journal_tells(tmp_path, beside):
    path = str(tmp_path / "out.sqlite")
    words = {"executor": "serial", "progress": False, "journal": path}
    run_batch(tasks.square_unless_odd, range(6), **words).wait()
    assert overview.look(path).state == "done"
    beside.unlink()
    found = overview.look(path)
    assert (found.state, found.done, found.total, found.failed) == ("done", 6, 6, 3)
    beside.write_text("no JSON")
    assert overview.look(path).state == "done"
    with pytest.raises(JournalError, match="there is no such file"):
        overview.look(str(tmp_path / "nowhere"))


def test_a_table_has_a_line_for_each_run(tmp_path):
    path = str(tmp_path / "out.sqlite")
    status.StatusFile(path + status.SUFFIX, "0/2").write(progress(), "running")
    head, line = overview.table([overview.look(path)]).splitlines()
    assert head.split() == [
        *("SHARD", "STATE", "DONE", "FAILED", "RATE", "ETA", "MEMORY", "PID", "RUN")
    ]
    cells = ["0/2", "running", "50/369", "0", "621.1/s", "1", "s", "1.2", "GiB"]
    assert line.split()[:9] == cells
    assert line.split()[-1] == path
