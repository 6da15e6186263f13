"""Measuring the peak memory of a process and its descendants, including short spikes.

Rule 1: a meter takes samples, and between two samples the kernel keeps a mark: VmHWM of
each process, or the high water mark of a cgroup. Each sample resets the mark, so the
mark belongs to one interval. Rule 2: pages of files and other caches do not count,
because the kernel drops them when memory is short. The mark includes them, so they are
subtracted: the larger number of the two samples, because a file stays mapped for longer
than one interval. Rule 3: memory that several processes share counts once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

from coresize import processes, units
from coresize.detection import cgroup, sources, working_set
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
        """Measures peak memory."""

        #: The method: "proc", "cgroup" or "psutil".
        method: str
        #: The peak so far, in bytes.
        peak: int

        def sample(self) -> None:
            """Take a sample."""

        def close(self) -> None:
            """Clean up."""


#: From this many CPUs on, the kernel's counters of resident pages are too coarse: since
#: Linux 6.2 each CPU keeps back a share that grows with the number of CPUs
#: (f1a7941243c1).
_MANY_CPUS = 64

#: A child that shares the whole address space of its parent is between vfork and exec,
#: and must not count. A child that does so for this many seconds was forked.
_NEWBORN = 0.05
_WHOLE = 0.98


class TreeMeter:
    """Measures a process tree by /proc: proportional sizes, and VmHWM in between."""

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
        """Whether the kernel has the files (Linux 4.5, CONFIG_PROC_CHILDREN)."""
        known = read_memory() is not None
        return known and processes.exists("thread-self", "children")

    def sample(self) -> None:
        """Read the memory of every process in the tree, and reset its mark."""
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
                    continue  # the process has just ended
                now = now if part is None else part
            if self._borrowed(pid, memory, now, seen.get(parent)):
                continue
            seen[pid] = memory
            total += now + self._above(pid, memory)
        self.peak = max(self.peak, total)

    def close(self) -> None:
        """Do nothing: there is nothing to clean up."""

    def believe(self, resident: int) -> None:
        """Take the kernel's peak of resident memory into account, after the end."""
        self.peak = max(self.peak, resident - self._most_file)

    def _borrowed(
        self, pid: int, memory: Memory, now: int, parent: Memory | None
    ) -> bool:
        """Whether a new child still uses the address space of its parent.

        It does between vfork and exec. A forked child has a smaller proportional size,
        unless it has written to all memory that it inherited.
        """
        born = self._born.setdefault(pid, time.monotonic())
        return (
            parent is not None
            and memory.size == parent.size
            and now >= _WHOLE * memory.private
            and time.monotonic() - born < _NEWBORN
        )

    def _above(self, pid: int, memory: Memory) -> int:
        """The peak of a process since the last sample, minus its memory now."""
        file = max(memory.file, self._files.get(pid, 0))
        above = memory.high - file - memory.private
        if self._marks.get(pid) == memory.high:
            above = 0  # an old mark, which could not be reset
        self._files[pid] = memory.file
        self._most_file = max(self._most_file, memory.file)
        self._marks[pid] = -1 if processes.reset_peak(pid) else memory.high
        return max(0, above)


class PsutilMeter:
    """Measures a process tree by psutil, without /proc: samples of unique set sizes."""

    method = "psutil"

    def __init__(self, pid: int) -> None:
        import psutil

        self.peak = 0
        self._gone = psutil.Error
        self._process = psutil.Process(pid)

    def sample(self) -> None:
        """Add up the memory of the process tree."""
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
        """Do nothing: there is nothing to clean up."""

    @staticmethod
    def _held(process: Process) -> int:
        """The memory that a process holds alone; on Windows its peak."""
        memory = process.memory_full_info()
        above = getattr(memory, "peak_wset", memory.rss) - memory.rss
        return int(memory.uss + above)


# -----------------------------------------------------------------------------
# A cgroup for one task, below our own: the memory charged to the cgroup is the memory
# that the task used.
#
# This includes memory that no process maps: page tables, socket buffers, files in
# /dev/shm. Only root can make a cgroup, and only if the hierarchy is mounted writable,
# which is not the case in most containers.


_numbers = itertools.count(1)

#: By cgroup version: the file with the peak of charged memory (kernel
#: Documentation/admin-guide: cgroup-v1/memory.rst, cgroup-v2).
_MARKS = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}


class CgroupMeter:
    """Measures a process and its descendants in a cgroup of their own."""

    method = "cgroup"

    def __init__(self, folder: Path, version: int) -> None:
        self.peak = 0
        self._folder = folder
        self._version = version
        self.mark = folder / _MARKS[version]
        # Kept open: with v2, a reset applies only to the open file (Linux 6.12).
        self._mark: FileIO = self.mark.open("r+b", buffering=0)
        self._cache = 0
        self._last = -1

    def join(self, pid: int = 0) -> None:
        """Move a process into the cgroup; this process by default.

        Memory that was charged before stays charged to the old cgroup.

        Raises:
            OSError: the move is not permitted.
        """
        (self._folder / "cgroup.procs").write_text(str(pid))

    def sample(self) -> None:
        """Read the mark, subtract the cache, and reset the mark."""
        text = (self._folder / "memory.stat").read_text()
        cache = working_set.parse_cache(text, self._version).size
        mark = units.whole(os.pread(self._mark.fileno(), 64, 0).decode())
        if mark != self._last:  # otherwise an old mark, which could not be reset
            self.peak = max(self.peak, mark - max(cache, self._cache))
        self._cache = cache
        self._last = -1 if self._reset() else mark

    def close(self) -> None:
        """Remove the cgroup; processes still in it, such as daemons, move to ours."""
        self._mark.close()
        with contextlib.suppress(OSError):
            for pid in (self._folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):  # the process has just ended
                    (self._folder.parent / "cgroup.procs").write_text(pid)
            self._folder.rmdir()

    def _reset(self) -> bool:
        try:
            os.pwrite(self._mark.fileno(), b"0", 0)
        except OSError:
            return False
        return True


def make_meter() -> CgroupMeter | None:
    """Make a cgroup below our own; None if that is not permitted."""
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
        except (OSError, ParseError):  # v2: the controller is off for children
            folder.rmdir()
            continue
        return meter
    return None


def _sweep(folder: Path) -> None:
    """Remove cgroups that killed runs have left; those in use cannot be removed."""
    for left in folder.glob("coresize-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not processes.exists(int(pid), "stat"):
            with contextlib.suppress(OSError):
                left.rmdir()
