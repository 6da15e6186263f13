"""The peak memory of a process and all that it starts, without missing a spike.

Rule 1: a meter is asked again and again, and between two times the kernel keeps the
mark: VmHWM of each process, or the high water mark of a cgroup. It is reset each time,
so it belongs to one interval. Rule 2: pages of files are not counted, since the kernel
drops them when memory is short. The mark counts them, so they are taken off: the more
of before and after, as a file is mapped for longer than one interval. Rule 3: memory
that several processes share is counted once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

from coresize import processes, units
from coresize.detection import cgroup, parse, sources
from coresize.errors import ParseError
from coresize.host import Live
from coresize.processes.memory import read_memory, read_proportional


TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO
    from typing import Protocol

    from psutil import Process

    from coresize.processes.memory import Memory

    class Meter(Protocol):
        """What measures."""

        #: How: "proc", "cgroup" or "psutil".
        method: str
        #: The most so far, in bytes.
        peak: int

        def sample(self) -> None:
            """Look again."""

        def close(self) -> None:
            """Leave nothing behind."""


#: From so many CPUs on the kernel's counters of resident pages are too coarse: since
#: Linux 6.2 each CPU keeps back a share that grows with their number (f1a7941243c1).
_MANY_CPUS = 64

#: A child that shares its parent's whole address space is between vfork and exec, and
#: must not be counted. One that stays so for this many seconds has forked.
_NEWBORN = 0.05
_WHOLE = 0.98


class TreeMeter:
    """A process tree by /proc: proportional sizes, and VmHWM for what is between."""

    method = "proc"

    def __init__(self, pid: int, *, cpus: int = 1) -> None:
        self.peak = 0
        self._pid = pid
        self._exact = cpus >= _MANY_CPUS
        own = read_proportional()
        self._tells_parts = own is not None  # Linux 5.4
        self._files: dict[int, int] = {}
        self._most_file = 0
        self._marks: dict[int, int] = {}
        self._born: dict[int, float] = {}

    @staticmethod
    def works() -> bool:
        """Whether the kernel tells what is needed (Linux 4.5, CONFIG_PROC_CHILDREN)."""
        known = read_memory() is not None
        return known and processes.exists("thread-self", "children")

    def sample(self) -> None:
        """Look at every process of the tree, and reset its mark."""
        tree = processes.descendants(self._pid)
        seen: dict[int, Memory] = {}
        total = 0
        for pid, parent in tree.items():
            memory = read_memory(pid)
            if memory is None:
                continue
            now = memory.private
            if len(tree) > 1 or self._exact:
                part = read_proportional(pid)
                if part is None and self._tells_parts:
                    continue  # it has just ended
                now = now if part is None else part
            if self._borrowed(pid, memory, now, seen.get(parent)):
                continue
            seen[pid] = memory
            total += now + self._above(pid, memory)
        self.peak = max(self.peak, total)

    def close(self) -> None:
        """Nothing is left behind."""

    def believe(self, resident: int) -> None:
        """Take into account what the kernel said was resident at most, at the end."""
        self.peak = max(self.peak, resident - self._most_file)

    def _borrowed(
        self, pid: int, memory: Memory, now: int, parent: Memory | None
    ) -> bool:
        """Whether a newborn shows the address space of the process that made it.

        Between vfork and exec it does. Of one that has forked the part is less than the
        whole, unless it has written all that it inherited.
        """
        born = self._born.setdefault(pid, time.monotonic())
        return (
            parent is not None
            and memory.size == parent.size
            and now >= _WHOLE * memory.private
            and time.monotonic() - born < _NEWBORN
        )

    def _above(self, pid: int, memory: Memory) -> int:
        """What one process held since the last time, above what it holds now."""
        file = max(memory.file, self._files.get(pid, 0))
        above = memory.high - file - memory.private
        if self._marks.get(pid) == memory.high:
            above = 0  # the mark is an old one, and could not be reset
        self._files[pid] = memory.file
        self._most_file = max(self._most_file, memory.file)
        self._marks[pid] = -1 if processes.reset_peak(pid) else memory.high
        return max(0, above)


class PsutilMeter:
    """A process tree by psutil, where there is no /proc: unique set sizes, sampled."""

    method = "psutil"

    def __init__(self, pid: int) -> None:
        import psutil

        self.peak = 0
        self._gone = psutil.Error
        self._process = psutil.Process(pid)

    def sample(self) -> None:
        """Add up the tree."""
        total = 0
        try:
            tree = [self._process, *self._process.children(recursive=True)]
        except self._gone:
            return
        for process in tree:
            with contextlib.suppress(self._gone):
                total += self._held(process)
        self.peak = max(self.peak, total)

    def close(self) -> None:
        """Nothing is left behind."""

    @staticmethod
    def _held(process: Process) -> int:
        """What one process holds alone; on Windows at its peak."""
        memory = process.memory_full_info()
        above = getattr(memory, "peak_wset", memory.rss) - memory.rss
        return int(memory.uss + above)


# -----------------------------------------------------------------------------
# A cgroup made for one task, below the own one: what it is charged is what it used.
#
# It also counts what no process maps: tables of pages, buffers of sockets, files in
# /dev/shm. It can be made by root where the hierarchy is mounted writable, which it is
# not in most containers.


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
        mark = units.whole(os.pread(self._mark.fileno(), 64, 0).decode())
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
