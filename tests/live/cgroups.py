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


def _own() -> Path | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/memory{path}")
    return None


def missing() -> str | None:
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


def run(
    mebibytes: int, program: str | Path, *words: object, timeout: float = 120
) -> Done:
    """A Python program in a cgroup with such a limit; ``tasks`` is at hand.

    It is a text, or the path of a script: workers load the main module of the latter.
    After the timeout all that is in the cgroup is killed.
    """
    own = _own()
    assert own is not None
    folder = own / f"coresize-test-{os.getpid()}-{next(_numbers)}"
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
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _kill(folder)
                out, err = process.communicate()
        lines = (folder / "memory.oom_control").read_text().splitlines()
        counts = dict(line.split() for line in lines)
        return Done(out, err, process.returncode, int(counts["oom_kill"]))
    finally:
        _remove(folder)


def _command(program: str | Path) -> list[str]:
    if isinstance(program, Path):
        return [str(program)]
    return ["-c", f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{program}"]


def _remove(folder: Path) -> None:
    """What is left in it is ended: nothing should be."""
    for _attempt in range(100):
        _kill(folder)
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.02)


def _kill(folder: Path) -> None:
    for pid in (folder / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            os.kill(int(pid), 9)
