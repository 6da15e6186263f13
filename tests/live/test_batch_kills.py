"""Runs with a journal that are killed, or whose disk is full, and go on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from operator import attrgetter
from pathlib import Path

import pytest
import tasks

from coresize import run_batch
from coresize.batch.journal import overview, reader


TESTS = str(Path(tasks.__file__).parent)
ITEMS = 150

#: Says what was reported as soon as it was.
PROGRAM = """\
import sys; sys.path.insert(0, sys.argv[1]); import tasks
from coresize import run_batch
run = run_batch(tasks.square, range(int(sys.argv[4])), executor=sys.argv[3],
                max_workers=2, journal=sys.argv[2], progress=False)
for outcome in run:
    print(outcome.key, outcome.value, flush=True)
"""


def _kill_after(path, executor, lines, seconds):
    """Run it until so much is reported, and a little longer; what was reported."""
    words = ["-c", PROGRAM, TESTS, str(path), executor, str(ITEMS)]
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True
    ) as process:
        seen = [process.stdout.readline() for _ in range(lines)]
        time.sleep(seconds)
        process.kill()
        seen += process.stdout.readlines()
    return {line.split()[0] for line in seen if line.endswith("\n")}


def _rows(path):
    return [(row["key"], row["status"]) for row in reader.read(str(path))]


def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_end(tmp_path):
    dice = random.Random(20)
    interrupted = 0
    expected = [number**2 for number in range(ITEMS)]
    for number in range(50):
        path = tmp_path / f"{number}.sqlite"
        executor = dice.choice(["process", "thread", "thread", "serial"])
        lines, seconds = dice.randrange(ITEMS - 20), dice.uniform(0, 0.02)
        reported = _kill_after(path, executor, lines, seconds)
        if path.exists():  # else it was killed before it began
            ended = {key for key, status in _rows(path) if status == "ok"}
            assert reported <= ended
            interrupted += len(ended) < ITEMS
            found = overview.look(str(path))
            assert found.state in ("killed", "done", "unknown")
            assert found.done == len(ended)  # as the journal has it
        words = {"executor": "serial", "progress": False, "journal": path}
        outcomes = list(run_batch(tasks.square, range(ITEMS), **words))
        skipped = {outcome.key for outcome in outcomes if outcome.status == "skipped"}
        assert reported <= skipped
        outcomes.sort(key=attrgetter("index"))
        assert [outcome.value for outcome in outcomes] == expected
        assert _rows(path) == [(str(item), "ok") for item in range(ITEMS)]
    assert interrupted


# --- A full disk --------------------------------------------------------------

#: Fills a small disk, makes room, and goes on.
FULL = """\
import json, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
import tasks
from coresize import JournalError, run_batch
folder, executor = sys.argv[2:]
def start():
    seen = []
    try:
        run = run_batch(tasks.padded, range(400), executor=executor, max_workers=2,
                        journal=folder + "/out.sqlite", progress=False)
        seen.extend((outcome.key, outcome.status) for outcome in iter(run))
        error = None
    except JournalError as problem:
        error = str(problem)
    return seen, error
with open(folder + "/ballast", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
none = start()
os.remove(folder + "/ballast")
first, again = start(), start()
subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
print(json.dumps([none, first, again, start()]))
"""


def _may_mount():
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None:
        return False
    with contextlib.suppress(OSError):
        done = subprocess.run(words, capture_output=True, check=False)
        return done.returncode == 0
    return False


@pytest.mark.skipif(not _may_mount(), reason="no disk may be mounted here")
@pytest.mark.parametrize("executor", ["serial", "process"])
def test_a_full_disk_is_told_and_with_more_room_it_goes_on(tmp_path, executor):
    script = 'mount -t tmpfs -o size=256k none "$3" && exec "$0" -c "$1" "$2" "$3" "$4"'
    words = ["sh", "-c", script, sys.executable, FULL, TESTS, str(tmp_path), executor]
    done = subprocess.run(
        ["unshare", "-m", *words],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    none, first, again, last = json.loads(done.stdout)
    for seen, error in (none, first, again):
        assert "/out.sqlite: the disk is full; make room and start again" in error
        assert {status for _, status in seen} <= {"ok", "skipped"}
    assert none[0] == []
    assert 0 < len(first[0]) < 400
    assert last[1] is None
    statuses = dict(last[0])
    assert len(last[0]) == len(statuses) == 400
    reported = {key for key, _ in first[0] + again[0]}
    assert {key for key, status in statuses.items() if status == "skipped"} >= reported
    assert set(statuses.values()) == {"ok", "skipped"}
