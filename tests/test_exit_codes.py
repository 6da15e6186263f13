"""The exit status of commands that run batches, as schedulers read it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import commands
import pytest

from coresize import TaskOutOfMemoryError, run_batch
from coresize.batch.exit_codes import ExitCode, worst


JOBS = """\
import os, time
from coresize import TaskOutOfMemoryError, TaskTimeoutError
def fine(item):
    return item
def wrong(item):
    raise ValueError(item)
def large(item):
    raise TaskOutOfMemoryError("large", exit_code=-9, peak_memory=1)
def late(item):
    raise TaskTimeoutError("late", exit_code=-9, peak_memory=1)
def mixed(item):
    return [fine, wrong, large, late][item](item)
def waits(item):
    open("begun", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.02)
    return item
"""


@pytest.fixture(autouse=True)
def folder(tmp_path):
    """With a module and items."""
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "items.jsonl").write_text("0\n1\n2\n3\n")
    return tmp_path


def words(function, *more):
    items = ("--items", "items.jsonl", "--executor", "serial")
    return ("batch", f"jobs:{function}", *items, *more)


@pytest.mark.parametrize(
    ("function", "more", "code"),
    [
        ("fine", (), 0),
        ("wrong", (), 1),
        ("late", (), 1),
        ("large", (), 12),
        ("mixed", (), 12),
        ("fine", ("--journal", "jobs.py"), 2),
        ("missing", (), 2),
    ],
)
def test_a_batch_tells_how_it_ended(call, function, more, code):
    assert call(*words(function, *more)).returncode == code


def test_a_journal_remembers_how_the_batch_ended(call):
    for _start in range(2):
        assert call(*words("mixed", "--journal", "o.db")).returncode == 12


@pytest.mark.parametrize(
    ("number", "more", "code"),
    [
        (signal.SIGTERM, ("--journal", "o.db"), 75),
        (signal.SIGTERM, (), 143),
        (signal.SIGINT, ("--journal", "o.db"), 130),
    ],
)
def test_a_batch_that_was_stopped_tells_whether_it_goes_on(
    call, folder, number, more, code
):
    process = begin(folder, words("waits", *more))
    wait_for(folder / "begun", process)
    process.send_signal(number)
    assert process.wait(60) == code
    (folder / "go").touch()
    assert call(*words("waits", *more)).returncode == 0


def begin(folder, words):
    return subprocess.Popen(
        [sys.executable, "-m", "coresize", *words],
        cwd=folder,
        env=commands.environment(folder, None),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(path, process):
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


SHARDS = "case {index} in 0) exit %s;; 1) exit %s;; esac"


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(75, 1, 75), (0, 12, 1)],
)
def test_shards_tell_what_is_to_be_done_first(run, first, second, code):
    done = run("shards", "2", "--", "sh", "-c", SHARDS % (first, second))
    assert done.returncode == code
    assert ("stopped" in done.stdout) == (code == 75)


def test_shards_whose_tasks_are_out_of_memory_tell_so(run):
    batch = (sys.executable, "-m", "coresize", *words("mixed"))
    done = run("shards", "1", "--", *batch, "--journal", "o-{index}.db")
    assert done.returncode == 12


def test_a_signal_for_shards_is_one_for_their_batches(folder):
    batch = (sys.executable, "-m", "coresize", *words("waits"))
    line = ("shards", "1", "--", *batch, "--journal", "o-{index}.db")
    process = begin(folder, line)
    wait_for(folder / "begun", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75


def ends_with(*errors):
    def function(item):
        if errors[item] is not None:
            raise errors[item]

    return run_batch(function, range(len(errors)), executor="serial", progress=False)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((None, None), 0),
        ((None, ValueError()), 1),
        ((TaskOutOfMemoryError("", exit_code=-9, peak_memory=1), ValueError()), 12),
        ((), 0),
    ],
)
def test_a_report_has_the_exit_code_for_programs(errors, code):
    assert ends_with(*errors).wait().exit_code == code


def test_the_report_of_a_batch_that_was_left_says_go_on():
    with ends_with(None, None, None) as run:
        next(iter(run))
    assert run.report.exit_code == 75


@pytest.mark.parametrize(
    ("codes", "code"),
    [({0}, 0), ({0, 1}, 1), ({0, -9}, 1), ({12, 1}, 12), ({75, 12, 1}, 75)],
)
def test_what_is_to_be_done_first_decides(codes, code):
    assert worst(codes) == code


def test_every_exit_code_is_documented():
    page = Path(__file__).parents[1] / "docs" / "reference" / "exit-status.md"
    rows = re.findall(r"^\| (\d+) \|", page.read_text(), re.MULTILINE)
    assert {*map(int, ExitCode)} <= {*map(int, rows)}
