"""Finding out whether the kernel has killed processes because memory ran out."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque

from coresize import processes
from coresize.detection import cgroup, parse, sources
from coresize.detection.counters import KILLS
from coresize.errors import ParseError
from coresize.host import Live
from coresize.processes import nesting
from coresize.processes.exits import may_be_killed


if sys.platform != "win32":
    import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.model import OutOfMemory

_VMSTAT = "/proc/vmstat"

#: The most seconds between the counting of a kill and the end of the process, which
#: first gives back its memory.
EXPLAINS = 5.0


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
        while self._recent and now - self._recent[0] > EXPLAINS:
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

    def take_recent(self, since: float = 0.0) -> OutOfMemory:
        """Whether there was a recent kill; each kill is reported once.

        Args:
            since: the earliest time at which the kill was noted, by time.monotonic().
        """
        self.note()
        noted = next((moment for moment in self._recent if moment >= since), None)
        if noted is None:
            return "no"
        self._recent.remove(noted)
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


# -----------------------------------------------------------------------------
# Kills of what a task has started, where the task's own process has to find out: in
# threads, in the caller, and in the workers of other libraries. The pool of coresize
# finds out by itself, for its workers, and more exactly
# (`coresize.executor.pool.exits`).
#
# The kernel's count has risen since the task began, and this process has reaped a child
# meanwhile. Another program of the cgroup may have been killed, or a child of another
# task; so the verdict is "probably", unless the error of the task shows a SIGKILL. An
# error that shows another end of a child is believed, unless no other task ran: then a
# child may have failed because its own child was killed.

#: The most seconds for which a count is taken for the present one, at a task's start.
_FRESH = 0.02

#: The exit codes of a process that SIGKILL has ended; the second one is a shell's.
_OF_KILLS = (-9, 128 + 9)


class _Here:
    """The counter of this process, which its tasks share."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.counter = OomCounter(self.pid)
        self.noted = 0.0

    def note(self) -> None:
        if time.monotonic() - self.noted > _FRESH:
            with self.lock:
                self.counter.note()
            self.noted = time.monotonic()


_here: _Here | None = None


class TaskKills:
    """Whether the kernel kills a process of a task in this process for memory.

    Make it before the task begins.
    """

    __slots__ = ("_began", "_faults", "_here")

    def __init__(self) -> None:
        global _here  # noqa: PLW0603 - each process has one
        if _here is None or _here.pid != os.getpid():
            _here = _Here()
        _here.note()
        self._here = _here
        self._faults = _faults_of_children()
        self._began = time.monotonic()

    def take(self, error: BaseException | None) -> OutOfMemory:
        """The verdict at the end of the task; each kill explains one task.

        Args:
            error: the error that the task has raised; None if it has succeeded.
        """
        here, code = self._here, _exit_code(error)
        alone = threading.current_thread() is threading.main_thread()
        if not (
            code is None or code in _OF_KILLS or (alone and not nesting.is_worker())
        ):
            return "no"
        if self._faults == _faults_of_children():
            return "no"
        with here.lock:
            verdict = here.counter.take_recent(self._began)
        return verdict if code in _OF_KILLS or verdict == "no" else "probably"


def _faults_of_children() -> int:
    """As `processes.faults_of_children` of this process, in a tenth of the time."""
    if sys.platform == "win32":  # which counts no kills
        return 0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_minflt + used.ru_majflt


def shows_kill(error: BaseException) -> bool:
    """Whether an error, or its cause, tells of a child that SIGKILL has ended.

    >>> import subprocess
    >>> shows_kill(subprocess.CalledProcessError(137, "sh"))
    True
    """
    return _exit_code(error) in _OF_KILLS


def _exit_code(error: BaseException | None) -> int | None:
    """The exit code of a child that an error, or its cause, tells of, if any."""
    for _ in range(_MOST_CAUSES):
        code = getattr(error, "returncode", None)
        if error is None or type(code) is int:
            return code
        error = error.__cause__ or error.__context__
    return None


_MOST_CAUSES = 10
