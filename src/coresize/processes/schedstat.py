"""How long threads were ready to run and had no CPU: it was others', or throttled.

Source: kernel Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat"; what a
throttled cgroup waits counts as well (measured on 6.1 and 6.18).
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
    """From where on this thread is looked at."""

    def __init__(self) -> None:
        self._waited = _waited()
        self._ran = time.thread_time()

    def waited(self, wall: float) -> float:
        """Seconds that it has waited since, of so many by the clock.

        0 where the kernel does not tell. To read that takes longer than to read a
        clock; so of what was waited around the time meant, none counts in which the
        thread ran.
        """
        ran = time.thread_time() - self._ran
        return max(0.0, min(_waited() - self._waited, wall - ran))


def _waited() -> float:
    return memory.run_delay(processes.read("thread-self", "schedstat")) or 0.0


def waited_of(pids: Iterable[int]) -> dict[int, float]:
    """Seconds of each thread of some processes, by its number."""
    found = {}
    for pid in pids:
        for thread in processes.threads(pid):
            seconds = memory.run_delay(processes.read(pid, f"task/{thread}/schedstat"))
            if seconds is not None:
                found[thread] = seconds
    return found


# -----------------------------------------------------------------------------
# How long a process could run, and for how long it did nothing.
#
# A limit of time means time in which a task could run. Between two looks whoever looks
# may have been stopped itself, with all others (Ctrl-Z, ``docker pause``): so a look
# adds no more than the time after which it was due, whatever the clock says. And it
# adds none where the process alone is stopped, or its cgroup is frozen.


#: The file of a cgroup that says whether it is frozen, itself or with one above, and
#: how it says so (kernel: cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst).
_FREEZERS = {1: ("freezer.state", "FR"), 2: ("cgroup.events", "frozen 1")}

#: A look that comes later than so many times its step was held up.
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
        """Seconds since its task began; of another beginning it counts anew.

        Args:
            since: when the task began, by the monotonic clock.
            now: by the same clock.
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
    """The seconds in which a process used no CPU time, nor what it has started.

    Args:
        pid: the process.
        born: when it was started, by the monotonic clock.
    """

    def __init__(self, pid: int, born: float) -> None:
        self.born = born
        self._pid = pid
        self._ticks = 0
        self._last = born
        self._seconds = 0.0

    def look(self, now: float, step: float) -> float:
        """Seconds since it was last seen at work; arguments as of `RunTime.look`."""
        gap, self._last = now - self._last, now
        states, ticks = _activity(self._pid)
        if ticks != self._ticks or states & {"R", "D"}:
            self._ticks, self._seconds = ticks, 0.0
        else:
            self._seconds += min(gap, step)
        return self._seconds


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, or by a debugger."""
    if _HERE.platform == "linux":
        return memory.activity(processes.read(pid, "stat"))[0] in ("T", "t")
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def _activity(pid: int) -> tuple[set[str], int]:
    """The states of a process and all that descend from it, and their ticks."""
    if _HERE.platform != "linux":
        used = processes.cpu_of_tree(pid).values()
        return set(), int(100 * sum(map(sum, used)))
    every = [
        memory.activity(processes.read(one, "stat"))
        for one in processes.descendants(pid)
    ]
    return {state for state, _ in every}, sum(ticks for _, ticks in every)


def _find_freezer(pid: int) -> tuple[str, str] | None:
    """The file that says whether a process is frozen, and the word for it."""
    own = sources.read_membership(_HERE)
    membership = own.of(processes.read(pid, "cgroup"))
    chains, _ = cgroup.locate(membership, "freezer", "cpu")
    for version, directories in chains:
        name, word = _FREEZERS[version]
        return f"{directories[0]}/{name}", word
    return None


_HERE = Live()
