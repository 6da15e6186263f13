"""Tables at a terminal: they fit it, and each one overwrites the last one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import commands
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import processes
from coresize.batch.journal import overview, status
from coresize.batch.journal.overview import columns
from coresize.diagnosis.watch import Sample
from coresize.host import current
from coresize.sweeping.measurements import Row
from coresize.sweeping.result import conclude, from_points, row_of_point
from coresize.texts import cut, cut_start, width


CELLS = st.lists(st.text(max_size=30), min_size=4, max_size=4)


@given(st.lists(CELLS, min_size=1, max_size=6), st.integers(10, 100))
def test_no_line_is_wider_than_the_terminal(rows, most):
    assert all(width(line) <= most for line in columns(rows, most).split("\n"))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.integers(0, 40))
def test_a_text_that_fits_is_not_cut(text, most):
    for cutting in (cut, cut_start):
        found = cutting(text, most)
        assert width(found) <= most
        assert (found == text) == (width(text) <= most)


def test_the_columns_stand_under_each_other_with_wide_characters():
    rows = [("A", "B"), ("日本", "x"), ("e\u0301", "y"), ("\U0001f600", "z")]
    lines = columns(rows).split("\n")
    starts = {width(re.split(r"[Bxyz]", line)[0]) for line in lines}
    assert starts == {6}


def test_where_nothing_is_a_terminal_nothing_is_cut():
    assert columns([("A", "x" * 300)]).endswith("x" * 300)


# --- Tables of other commands ---------------------------------------------------------


def test_a_sweep_has_80_columns():
    row = row_of_point(64, 1234.5)
    fields = {**row.as_dict(), "peak_memory": 900 << 20, "throttled": 1.0}
    rates = {"speedup": 123.45, "low": 1000.25, "high": 2000.5, "cores": 128.0}
    row = Row(**{**fields, **rates})
    lines = str(conclude([row], row, "tasks", None)).split("\n")[:3]
    assert all(len(line) <= 80 for line in lines)
    assert len({line.rindex("-") for line in lines if "<-" not in line}) == 1


def test_large_rates_keep_their_columns():
    lines = str(from_points({"1": 12.5, "64": 1e9}, "here")).split("\n")
    assert [line.split() for line in lines[1:3]] == [
        ["1", "12.50"],
        ["64", "1.0e+09", "<-"],
    ]


def test_a_sample_of_a_watch_has_80_columns():
    sample = Sample(
        seconds=1234.0,
        cores=15.25,
        waited=1.5,
        limit=16.0,
        throttled=1.0,
        memory=900 << 20,
        memory_limit=2 << 30,
        processes=12,
        computing=3,
    )
    assert len(str(sample)) <= 80
    assert "16 cores busy" in str(sample)
    assert str(sample).endswith(" 900.0 MiB/2.0 GiB")
    unlimited = Sample(**{**sample.as_dict(), "memory_limit": None})
    assert str(unlimited).endswith(" 900.0 MiB")


# --- At a real terminal ---------------------------------------------------------------

pty = pytest.importorskip("pty")


def at_terminal(folder, words, wide, high, **env):
    """The output of a command at a terminal of such a size, as it was written."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", high, wide, 0, 0))
    variables = {**commands.environment(folder, env), "TERM": env.get("TERM", "xterm")}
    for name in ("COLUMNS", "LINES"):
        variables.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-m", "coresize", *words],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            output += part
        process.wait(timeout=60)
    os.close(ours)
    return output.decode()


def screen(output, wide):
    """What the terminal shows at the end, without what has scrolled away."""
    rows, row = [""], 0
    for part in re.split(r"(\x1b\[\d*[FJK]|\r\n)", output):
        if part == "\r\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif part.endswith("F") and part.startswith("\x1b"):
            row = max(0, row - int(part[2:-1]))
        elif part == "\x1b[J":
            del rows[row:]
            rows.append("")
        else:
            for first in range(0, len(part), wide):
                if first:
                    row += 1
                    rows += [""] * (row + 1 - len(rows))
                rows[row] = part[first : first + wide]
    return rows


SIZES = [(80, 24), (60, 20), (33, 6)]


@pytest.mark.parametrize(("wide", "high"), SIZES)
def test_the_table_of_shards_is_drawn_over_itself(tmp_path, wide, high):
    words = ("shards", "4", "--at-once", "2", "--logs", "of/a/long/folder", "--")
    output = at_terminal(tmp_path, (*words, "sleep", "0.3"), wide, high)
    assert "\x1b[" in output
    rows = screen(output, wide)
    assert sum(row.startswith("SHARD") for row in rows) == 1
    assert sum("done" in row for row in rows) == 4
    assert all(len(row) <= wide for row in re.split(r"\r\n|\x1b\[\d*[FJK]", output))


def test_a_table_with_more_lines_than_the_terminal_is_cut_until_the_end(tmp_path):
    words = ("shards", "12", "--at-once", "6", "--", "sleep", "0.3")
    output = at_terminal(tmp_path, words, 80, 8)
    assert "... and 7 more" in output
    rows = screen(output, 80)
    assert sum(row.startswith("SHARD") for row in rows) == 1
    assert sum("done" in row for row in rows) == 12


def test_a_terminal_without_a_cursor_gets_plain_lines(tmp_path):
    words = ("shards", "1", "--", "true")
    assert "\x1b[" not in at_terminal(tmp_path, words, 80, 24, TERM="dumb")


# --- Progress as it is ----------------------------------------------------------------

KILLED = """\
import os, signal, sys
from coresize import run_batch

def end_at(item):
    if item == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return item

run = run_batch(end_at, range(8), journal="out.sqlite", executor="serial",
                progress=False)
run.wait()
"""


def test_the_table_and_the_status_of_a_killed_shard_agree(tmp_path):
    (tmp_path / "script.py").write_text(KILLED)
    words = ("shards", "1", "--", sys.executable, "script.py")
    done = commands.run(tmp_path, *words)
    last = done.stdout.splitlines()[-1].split()
    told = commands.call(tmp_path, "status", str(tmp_path / "out.sqlite"), "--json")
    (found,) = json.loads(told.stdout)
    assert found["state"] == "killed"
    assert f"{found['done']}/8" in last, done.stdout
    assert found["done"] > 0


def test_a_status_from_elsewhere_that_was_killed_is_as_of_its_file(tmp_path):
    found = {
        "state": "running",
        "shard": "0/1",
        "done": 3,
        "total": 9,
        "failed": 0,
        "rate": 1.0,
        "eta": None,
        "workers": 1,
        "memory": None,
        "updated": 1.0,
        "pid": 2**30,
        "host": current().hostname(),
    }
    path = tmp_path / f"x{status.SUFFIX}"
    path.write_text(json.dumps(found))
    assert not processes.is_alive(found["pid"])
    assert overview.look(str(path)).state == "killed"
    assert overview.look(str(path)).done == 3
