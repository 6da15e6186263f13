"""Other processes: what is read of them, what they have used, how they ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coresize import processes


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
