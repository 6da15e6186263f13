"""Programs in a fresh cgroup v1 with a memory limit, below the own one."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


TESTS = Path(__file__).parents[1]
_numbers = itertools.count()


def _own():
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/memory{path}")
    return None


def missing():
    """Why none can be made here; None where they can."""
    own = _own()
    if own is None or not os.access(own / "cgroup.procs", os.W_OK):
        return "no cgroup v1 memory hierarchy that may be written"
    return None


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    out: str
    err: str
    code: int
    kills: int


def run(mebibytes, program, *words, timeout=120):
    """A Python program in a cgroup with such a limit; ``tasks`` is at hand.

    It is a text, or the path of a script: workers load the main module of the latter.
    """
    folder = _own() / f"coresize-test-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(mebibytes << 20))
        with subprocess.Popen(
            [sys.executable, *_command(program), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: (folder / "cgroup.procs").write_text("0"),  # noqa: PLW1509
        ) as process:
            out, err = process.communicate(timeout=timeout)
        lines = (folder / "memory.oom_control").read_text().splitlines()
        counts = dict(line.split() for line in lines)
        return Done(out, err, process.returncode, int(counts["oom_kill"]))
    finally:
        _remove(folder)


def _command(program):
    if isinstance(program, Path):
        return [program]
    return ["-c", f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{program}"]


def _remove(folder):
    """What is left in it is ended: nothing should be."""
    for _attempt in range(100):
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), 9)
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.02)
