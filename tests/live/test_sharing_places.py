"""Large data in odd places: right values, shared or in band, or an error that tells.

The cases of cgroup v2 and of vm.overcommit_memory are in test_guest.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from live import cgroups, containers
from live.containers import Container


PROGRAM = Path(__file__).parent / "guest_payload" / "shared.py"
MIB = 1024**2

#: The ways of the program.
WAYS = ("arguments", "map", "copies", "results", "share", "reference", "batch")

V1 = pytest.mark.skipif(cgroups.missing() is not None, reason=str(cgroups.missing()))
root = pytest.mark.skipif(
    containers.missing() is not None, reason=str(containers.missing())
)


def check(answers, expected, errors=None):
    """Assert that each way has gone as expected, or has told one of its errors."""
    assert tuple(answers) == WAYS
    for way, (kind, text) in answers.items():
        name, part = (errors or {}).get(way, ("", ""))
        told = kind == name and part in text
        assert told or [kind, text] == ["right", expected], answers


# --- Containers ---------------------------------------------------------------------


def _without_shm(config):
    """A root that is read only, and no folder to write to but /dev."""
    keep = [one for one in config["mounts"] if one["destination"] != "/dev/shm"]
    config["mounts"] = keep


def _without_memfd(config):
    rule = {"names": ["memfd_create"], "action": "SCMP_ACT_ERRNO"}
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [rule],
    }


def _as_it_is(_config):
    """A root that is read only, and 64 MB of /dev/shm, as in Docker."""


@root
@pytest.mark.parametrize(
    ("change", "size", "expected"),
    [
        (_as_it_is, 70, "shared"),
        (_without_shm, 30, "shared"),
        (_without_memfd, 10, "in band"),
    ],
)
def test_containers(change, size, expected, tmp_path):
    container = Container(memory=600 * MIB, change=change)
    answers = containers.run(container, [str(PROGRAM), str(size)], tmp_path)
    check(json.loads(answers), expected)


# --- Limits of a process, and namespaces ----------------------------------------------

FILE = ("OSError", "ulimit -f")
SPACE = {
    "results": ("MemoryError", "ulimit -v"),
    "share": ("OSError", "ulimit -v"),
    "reference": ("MemoryError", ""),  # of the program itself
}

#: The kernel refuses memory that could be executed.
NO_EXECUTION = (
    'echo 2 > /proc/sys/vm/memfd_noexec && exec "$@"'
    if Path("/proc/sys/vm/memfd_noexec").exists()
    else 'exec "$@"'
)


@root
@pytest.mark.parametrize(
    ("before", "words", "expected", "errors"),
    [
        ([], (10, "RLIMIT_FSIZE", 9), "in band", {"share": FILE, "reference": FILE}),
        ([], (100, "RLIMIT_AS", 300), "shared", SPACE),
        (
            ["unshare", "--user", "--map-user=1000"],
            (30, "RLIMIT_MEMLOCK", 0),
            "shared",
            {},
        ),
        (
            ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", NO_EXECUTION],
            (100, "RLIMIT_DATA", 250),
            "shared",
            {},
        ),
    ],
    ids=["fsize", "as", "user-memlock", "noexec-data"],
)
def test_limits_and_namespaces(before, words, expected, errors):
    named = [*before, "sh"] if "-c" in before else before
    done = subprocess.run(
        [*named, sys.executable, PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(json.loads(done.stdout), expected, errors)


# --- A limit of the cgroup ------------------------------------------------------------


@V1
def test_a_cgroup():
    """There is no room for one copy of the data for each task."""
    done = cgroups.run(600, PROGRAM, 100)
    assert (done.code, done.kills) == (0, 0), done.err[-3000:]
    check(json.loads(done.out), "shared")
