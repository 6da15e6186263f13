"""Whether the kernel has killed for memory where a process runs."""

from __future__ import annotations

import time
from collections import deque

from coresize import processes
from coresize.detection import cgroup, parse, sources
from coresize.detection.counters import KILLS
from coresize.errors import ParseError
from coresize.host import Live
from coresize.processes.exits import was_killed


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.model import OutOfMemory

_VMSTAT = "/proc/vmstat"

#: Seconds from the count of a kill to the end of the process, which first gives back
#: its memory.
_EXPLAINS = 5.0


class OomCounter:
    """The kernel's count of kills for memory, where a process runs.

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
        now = time.monotonic()
        self._recent.extend([now] * self.take())
        while self._recent and now - self._recent[0] > _EXPLAINS:
            self._recent.popleft()

    @property
    def is_of_all(self) -> bool:
        """Whether the whole machine is counted, other programs too."""
        return self._path == _VMSTAT

    def take(self) -> int:
        """How many there were since the last time this was asked."""
        count, before = self.count(), self._last
        self._last = count
        return 0 if count is None or before is None else max(0, count - before)

    def take_recent(self) -> OutOfMemory:
        """Whether there was one not long ago; that one is then spent."""
        self.note()
        if not self._recent:
            return "no"
        self._recent.popleft()
        return "probably" if self.is_of_all else "yes"

    def explains(self, code: int | None, *, of_tree: bool = False) -> bool:
        """Whether memory is why a process ended as it did; that kill is then spent.

        Args:
            code: what it ended with; minus the signal where one ended it.
            of_tree: it may also have failed because something that it started was
                killed, as a shell does.
        """
        failed = code != 0 if of_tree else was_killed(code)
        return failed and self.take_recent() != "no"

    def _find(self, pid: int) -> str:
        own = sources.read_membership(self._host)
        membership = own.of(processes.read(pid, "cgroup"))
        chains, _ = cgroup.locate(membership, "memory", "memory")
        for version, directories in chains:
            path = f"{directories[0]}/{KILLS[version]}"
            try:
                self._host.read(path)
            except OSError:
                continue
            return path
        return _VMSTAT
