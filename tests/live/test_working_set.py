"""What coresize says is left is what a program gets before the kernel kills it.

Decision 13 has all states that were measured. Those that need cgroup v2 are in
test_guest.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from live import cgroups


PROGRAM = Path(__file__).parent / "guest_payload" / "taken.py"

MIB = 1024**2

#: What the program that takes memory takes besides, for its page tables, its stack and
#: its copies of the interpreter's pages: 2 to 5 MiB were measured.
BESIDES = 8 * MIB
LEAST = 0.85


def check(answer):
    """Assert that no more is told than can be taken, and not much less."""
    assert answer["end"] == "killed", answer
    assert answer["told"] <= answer["taken"] + BESIDES, answer
    assert answer["told"] >= LEAST * answer["taken"], answer


@pytest.mark.skipif(cgroups.missing() is not None, reason=str(cgroups.missing()))
@pytest.mark.parametrize(
    "state",
    [
        "empty",
        "inactive",
        "active",
        "dirty",
        "mapped",
        "locked",
        "shared",
        "sockets",
        "opened",
        "neighbour",
        "neighbour_anonymous",
    ],
)
def test_v1(state, tmp_path):
    done = cgroups.run(256, PROGRAM, state, tmp_path / state, timeout=600)
    assert done.code == 0, done.err
    check(json.loads(done.out))
