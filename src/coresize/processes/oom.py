"""Finding out whether the kernel has killed processes because memory ran out."""

from __future__ import annotations

import time
from collections import deque

from coresize import processes
from coresize.detection import cgroup, parse, sources
from coresize.detection.counters import KILLS
from coresize.errors import ParseError
from coresize.host import Live
from coresize.processes.exits import may_be_killed


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.model import OutOfMemory

_VMSTAT = "/proc/vmstat"

#: The most seconds between the counting of a kill and the end of the process, which
#: first gives back its memory.
_EXPLAINS = 5.0


class OomCounter:
    """The kernel's count of out-of-memory kills in the cgroup of a process.

    The kernel counts a kill in the cgroup of the victim; v2 also in those above.
    """

    def __init__(self, pid: int) -> None:
        self._host = Live()
        self._path = self._find(pid)
        self._last = self.count()
        self._recent: deque[float] = deque()

    def count(self) -> int | None:
        """The number of kills so far; None if unknown."""
        for path in (self._path, _VMSTAT):
            try:
                line = parse.line(self._host.read(path), "oom_kill ")
                return parse.memory_stat(line)
            except (OSError, ParseError):
                continue
        return None

    def note(self) -> None:
        """Note new kills, and forget old ones that no end of a worker has claimed."""
        now = time.monotonic()
        self._recent.extend([now] * self.take())
        while self._recent and now - self._recent[0] > _EXPLAINS:
            self._recent.popleft()

    @property
    def is_of_all(self) -> bool:
        """Whether the count is that of the whole machine, with other programs."""
        return self._path == _VMSTAT

    def take(self) -> int:
        """The number of kills since the last call."""
        count, before = self.count(), self._last
        self._last = count
        return 0 if count is None or before is None else max(0, count - before)

    def take_recent(self) -> OutOfMemory:
        """Whether there was a recent kill; each kill is reported once."""
        self.note()
        if not self._recent:
            return "no"
        self._recent.popleft()
        return "probably" if self.is_of_all else "yes"

    def explains(self, code: int | None, *, of_tree: bool = False) -> bool:
        """Whether a recent kill explains the end of a process; each kill counts once.

        Args:
            code: the exit code; minus the signal number if a signal ended the process.
            of_tree: whether the process may also have failed because one of its
                children was killed, as a shell does.
        """
        failed = code != 0 if of_tree else may_be_killed(code)
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
