"""How long threads were ready to run and had no CPU: it was others', or throttled.

Source: kernel Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat"; what a
throttled cgroup waits counts as well (measured on 6.1 and 6.18).
"""

from __future__ import annotations

from coresize import processes, procfs


def waited() -> float:
    """Seconds of this thread since it began; 0 where the kernel does not tell."""
    return procfs.run_delay(processes.read("thread-self", "schedstat")) or 0.0


def waited_since(begun: float, wall: float) -> float:
    """Seconds of this thread since it had waited so many, in that time of the clock."""
    return min(max(0.0, waited() - begun), wall)


def waited_of_tree(pid: int) -> dict[int, float]:
    """Seconds of each thread of a process and of all that descend from it."""
    found = {}
    for one in processes.descendants(pid):
        for thread in processes.threads(one):
            seconds = procfs.run_delay(processes.read(one, f"task/{thread}/schedstat"))
            if seconds is not None:
                found[thread] = seconds
    return found
