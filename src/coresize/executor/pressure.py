"""How much memory is left now, and whether the kernel has killed for it."""

from __future__ import annotations

import time
from collections import deque

from coresize import counters, detection, processes
from coresize.available import memory_limits
from coresize.detection import cgroup, parse
from coresize.errors import ParseError
from coresize.host import Live
from coresize.policy import memory_left


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.verdicts import OutOfMemory

#: By version: the file with the count of kills in the own cgroup (kernel
#: Documentation/admin-guide: cgroup-v1/memory.rst, cgroup-v2.rst "memory.events").
_KILLS = {1: "memory.oom_control", 2: "memory.events"}
_VMSTAT = "/proc/vmstat"

#: What is kept free, as parts of the limit: below the second the youngest task is
#: ended; so much above it, below the first, none starts. Bytes that a process takes
#: between two looks bound it from below. Where one kill takes the whole container
#: (memory.oom.group; Kubernetes from 1.28) all is wider.
SOFT, HARD, GROUP = 0.02, 0.02, 3.0
FLOOR = 24 * 1024**2


#: Seconds from the count of a kill to the end of the process, which first gives back
#: its memory.
_EXPLAINS = 5.0


class Pressure:
    """The memory of this process's cgroups, asked anew each time."""

    def __init__(self) -> None:
        self._host = Live()
        memory = memory_limits(self._host)
        self.limit = memory.limit or memory.total or 0
        self.group = bool(counters.oom_groups(self._host))
        wider = GROUP if self.group else 1.0
        self.hard = int(max(HARD * self.limit, min(FLOOR, 0.08 * self.limit)) * wider)
        self.soft = int(self.hard + SOFT * self.limit * wider)

    def left(self) -> int:
        """Bytes that can be taken before a limit is met, hard or soft."""
        left = memory_left(memory_limits(self._host))
        return self.limit if left is None else left


class Kills:
    """The kernel's count of kills for memory, where a worker runs.

    Counted in the cgroup of the victim: v1 counts there alone, v2 there and above.
    """

    def __init__(self, pid: int) -> None:
        self._host = Live()
        self._path = self._find(pid)
        self._last = self.count()
        self._recent: deque[float] = deque()

    def count(self) -> int | None:
        """How many so far; None where nobody tells."""
        for path in (self._path, _VMSTAT):
            try:
                line = parse.line(self._host.read(path), "oom_kill ")
                return parse.memory_stat(line)
            except (OSError, ParseError):
                continue
        return None

    def note(self) -> None:
        """See which kills are new, and forget those that no worker's end explains."""
        count, now = self.count(), time.monotonic()
        if count is not None and self._last is not None:
            self._recent.extend([now] * (count - self._last))
        self._last = count
        while self._recent and now - self._recent[0] > _EXPLAINS:
            self._recent.popleft()

    def moved(self) -> OutOfMemory:
        """Whether there was one not long ago; that one is then spent."""
        self.note()
        if not self._recent:
            return "no"
        self._recent.popleft()
        return "probably" if self._path == _VMSTAT else "yes"

    def _find(self, pid: int) -> str:
        own = detection.read_membership(self._host)
        membership = cgroup.Membership(
            cgroup=processes.read(pid, "cgroup"), mountinfo=own.mountinfo, problems=()
        )
        chains, _ = cgroup.locate(membership, "memory", "memory")
        for version, directories in chains:
            path = f"{directories[0]}/{_KILLS[version]}"
            try:
                self._host.read(path)
            except OSError:
                continue
            return path
        return _VMSTAT
