"""What a bound of a pool is, and what it sees of a worker.

A bound keeps tasks waiting, or ends running tasks, so that what workers share is not
exceeded: memory, time, and whatever else. The dispatcher has a tuple of bounds, asks
each before it starts a task, and tells each what has become of the task. It knows no
more of them than this.
"""

from __future__ import annotations

from typing import Protocol


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Sequence

    from coresize.executor.jobs import Job
    from coresize.processes.memory import Memory
    from coresize.processes.schedstat import IdleTime, RunTime


class Worker(Protocol):
    """A worker, as a bound sees it.

    Attributes:
        running: what the worker was given, in order; it works on the first.
        ready: the worker has started.
        kill_reason: why the worker was killed by the pool; None where it was not.
        began: when the first of running was given to the worker (time.monotonic).
        base: bytes that the worker held before its first task.
        started: the processes that descend from the worker, with the start of each.
        ran: the time in which its task could run.
        idle: the time in which it used no CPU.
    """

    running: deque[Job]
    ready: bool
    kill_reason: str | None
    began: float
    base: int
    started: dict[int, int]
    ran: RunTime
    idle: IdleTime

    def memory(self) -> Memory | None:
        """What the process of the worker holds now, without what it has started."""

    def kill(self, why: str) -> None:
        """End the worker at once, with all that its task has started."""


class Bound(Protocol):
    """What decides which task may start, and which running one has to end.

    Attributes:
        chooses: the bound may keep a task waiting.
    """

    chooses: bool

    def choose(
        self, waiting: Iterable[Job], workers: Sequence[Worker], *, must_start: bool
    ) -> Job | None:
        """The task that may start now, or None.

        Args:
            waiting: the tasks that wait, in the order in which they came.
            workers: all workers of the pool.
            must_start: a worker would have to be started for the task.
        """

    def on_ready(self, worker: Worker) -> None:
        """Take note that a worker is ready for its first task."""

    def on_end(self, worker: Worker, job: Job, peak: int) -> None:
        """Take note that a task has ended, and of the bytes at its peak."""

    def look(self, workers: Sequence[Worker]) -> str | None:
        """End what must end; why the pool is to be given up, or None."""

    def patience(self) -> float:
        """Seconds until the next look is due, while tasks run."""
