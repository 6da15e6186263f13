"""A cgroup made for one task, below the own one: what it is charged is what it used.

It also counts what no process maps: tables of pages, buffers of sockets, files in
/dev/shm. It can be made by root where the hierarchy is mounted writable, which it is
not in most containers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from coresize import processes
from coresize.detection import cgroup, parse, sources
from coresize.errors import ParseError
from coresize.host import Live


TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO

_numbers = itertools.count(1)

#: By version: the mark of the most that was charged, and the lines of memory.stat for
#: pages of files (kernel Documentation/admin-guide: cgroup-v1/memory.rst, cgroup-v2).
_MARKS = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}
_FILES = {
    1: ("total_inactive_file ", "total_active_file "),
    2: ("inactive_file ", "active_file "),
}


class CgroupMeter:
    """A cgroup of its own for a process and all that it starts."""

    method = "cgroup"

    def __init__(self, folder: Path, version: int) -> None:
        self.peak = 0
        self._folder = folder
        self._version = version
        self.mark = folder / _MARKS[version]
        # Kept open: a mark of v2 is reset for the open file alone (Linux 6.12).
        self._mark: FileIO = self.mark.open("r+b", buffering=0)
        self._file = 0
        self._last = -1

    def join(self, pid: int = 0) -> None:
        """Move a process in, this one by default.

        What it was charged before stays where it was.

        Raises:
            OSError: that is not permitted.
        """
        (self._folder / "cgroup.procs").write_text(str(pid))

    def sample(self) -> None:
        """Read the mark, less the pages of files, and reset it."""
        file = self._files()
        mark = parse.whole(os.pread(self._mark.fileno(), 64, 0).decode())
        if mark != self._last:  # else it is an old one, and could not be reset
            self.peak = max(self.peak, mark - max(file, self._file))
        self._file = file
        self._last = -1 if self._reset() else mark

    def close(self) -> None:
        """Remove the cgroup; what still runs in it, a daemon, goes to the own one."""
        self._mark.close()
        with contextlib.suppress(OSError):
            for pid in (self._folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):  # it has just ended
                    (self._folder.parent / "cgroup.procs").write_text(pid)
            self._folder.rmdir()

    def _files(self) -> int:
        text = (self._folder / "memory.stat").read_text()
        return sum(
            parse.memory_stat(parse.line(text, name)) for name in _FILES[self._version]
        )

    def _reset(self) -> bool:
        try:
            os.pwrite(self._mark.fileno(), b"0", 0)
        except OSError:
            return False
        return True


def make_meter() -> CgroupMeter | None:
    """A cgroup below the own one, or None where none may be made."""
    membership = sources.read_membership(Live())
    chains, _ = cgroup.locate(membership, "memory", "memory")
    for version, directories in chains:
        _sweep(Path(directories[0]))
        folder = Path(directories[0], f"coresize-{os.getpid()}-{next(_numbers)}")
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            meter = CgroupMeter(folder, version)
            meter.sample()
        except (OSError, ParseError):  # v2: the controller is not given to children
            folder.rmdir()
            continue
        return meter
    return None


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed have left; one in use cannot be removed."""
    for left in folder.glob("coresize-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not processes.exists(int(pid), "stat"):
            with contextlib.suppress(OSError):
                left.rmdir()
