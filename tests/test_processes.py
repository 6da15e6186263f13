"""Other processes: what is read of them, what they have used, how they ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coresize import processes
from coresize.processes import exits


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
