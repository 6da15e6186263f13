"""How long threads were ready to run and had no CPU: it was others', or throttled.

Source: kernel Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat"; what a
throttled cgroup waits counts as well (measured on 6.1 and 6.18).
"""

from __future__ import annotations

import time

from coresize import processes
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
