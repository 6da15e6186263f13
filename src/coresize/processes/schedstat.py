"""How long threads were ready to run but had no CPU: others used it, or throttling.

Source: kernel Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat"; the
time in which a cgroup is throttled counts as well (measured on 6.1 and 6.18).
"""

from __future__ import annotations

import time

from coresize import processes
from coresize.detection import cgroup, sources
from coresize.host import Live
from coresize.processes import memory


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Mark:
    """A point in time from which the waiting of this thread is measured."""

    def __init__(self) -> None:
        self._waited = _waited()
        self._ran = time.thread_time()

    def waited(self, wall: float) -> float:
        """Seconds that the thread has waited for a CPU since the mark; 0 if unknown.

        Reading the kernel's count takes longer than reading a clock, so the count may
        cover a longer time than ``wall``. The answer is at most the part of ``wall`` in
        which the thread did not run.

        Args:
            wall: seconds of the measured time, by the clock.
        """
        ran = time.thread_time() - self._ran
        return max(0.0, min(_waited() - self._waited, wall - ran))


def _waited() -> float:
    return memory.run_delay(processes.read("thread-self", "schedstat")) or 0.0


def waited_of(pids: Iterable[int]) -> dict[int, float]:
    """Seconds that each thread of some processes has waited, by thread id."""
    waited = {}
    for pid in pids:
        for thread in processes.threads(pid):
            seconds = memory.run_delay(processes.read(pid, f"task/{thread}/schedstat"))
            if seconds is not None:
                waited[thread] = seconds
    return waited


class RunDelay:
    """The seconds that all threads of a process and its descendants waited for a CPU.

    The kernel forgets the count of a thread when the thread ends, so what a thread
    waits between the last look and its end is missing.

    Args:
        pid: the process.

    Attributes:
        seconds: the sum so far, over all threads.
    """

    def __init__(self, pid: int) -> None:
        self.seconds = 0.0
        self._pid = pid
        self._last: dict[int, float] = {}

    def look(self) -> None:
        """Add what the threads have waited since the last look."""
        now = waited_of(processes.descendants(self._pid))
        for thread, seconds in now.items():
            before = self._last.get(thread, 0.0)
            # A smaller count belongs to a new thread with the same id.
            self.seconds += seconds - before if seconds >= before else seconds
        self._last = now


# -----------------------------------------------------------------------------
# How long a process could run, and for how long it was idle.
#
# A time limit means time in which a task could run. Between two looks, the observer may
# have been stopped itself, with all other processes (Ctrl-Z, ``docker pause``). So a
# late look adds only the time after which it was due, whatever the clock says. And a
# look adds nothing if the process alone is stopped, or its cgroup is frozen.


#: The file that says whether a cgroup or one above is frozen, and the text that says so
#: (kernel: cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst).
_FREEZERS = {1: ("freezer.state", "FR"), 2: ("cgroup.events", "frozen 1")}

#: A look that comes later than this many times its step was held up.
_LATE = 2


class RunTime:
    """The seconds in which a process could run, counted by looks at it.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._freezer: tuple[str, str] | None = None
        self._located = False
        self._since = self._last = -1.0
        self._seconds = 0.0

    def look(self, since: float, now: float, step: float) -> float:
        """Seconds in which the process could run since its task began.

        Args:
            since: the beginning of the task, by the monotonic clock; a new value
                restarts the count.
            now: the present time, by the same clock.
            step: seconds after which each look is due.
        """
        if since != self._since:
            self._since = self._last = since
            self._seconds = 0.0
        gap, self._last = now - self._last, now
        if not self._is_held():
            self._seconds += gap if gap <= _LATE * step else step
        return self._seconds

    def _is_held(self) -> bool:
        if is_stopped(self._pid):
            return True
        if not self._located:
            self._located, self._freezer = True, _find_freezer(self._pid)
        if self._freezer is None:
            return False
        path, word = self._freezer
        try:
            return word in _HERE.read(path)
        except OSError:  # the cgroup is gone
            return False


class IdleTime:
    """The seconds in which neither a process nor its descendants used CPU time.

    Args:
        pid: the process.
        born: the start of the process, by the monotonic clock.
    """

    def __init__(self, pid: int, born: float) -> None:
        self.born = born
        self._pid = pid
        self._ticks = 0
        self._last = born
        self._seconds = 0.0

    def look(self, now: float, step: float) -> float:
        """Seconds since the last sign of work; for the arguments see `RunTime.look`."""
        gap, self._last = now - self._last, now
        states, ticks = _activity(self._pid)
        if ticks != self._ticks or states & {"R", "D"}:
            self._ticks, self._seconds = ticks, 0.0
        else:
            self._seconds += min(gap, step)
        return self._seconds


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped a process."""
    if _HERE.platform == "linux":
        return memory.activity(processes.read(pid, "stat"))[0] in ("T", "t")
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def _activity(pid: int) -> tuple[set[str], int]:
    """The states of a process and its descendants, and the sum of their ticks."""
    if _HERE.platform != "linux":
        used = processes.cpu_of_tree(pid).values()
        return set(), int(100 * sum(map(sum, used)))
    every = [
        memory.activity(processes.read(descendant, "stat"))
        for descendant in processes.descendants(pid)
    ]
    return {state for state, _ in every}, sum(ticks for _, ticks in every)


def _find_freezer(pid: int) -> tuple[str, str] | None:
    """The file that says whether a process is frozen, and the text that says so."""
    own = sources.read_membership(_HERE)
    membership = own.of(processes.read(pid, "cgroup"))
    chains, _ = cgroup.locate(membership, "freezer", "cpu")
    for version, directories in chains:
        name, word = _FREEZERS[version]
        return f"{directories[0]}/{name}", word
    return None


_HERE = Live()
