"""The interface of a pool's bounds, and the part of a worker that a bound sees.

A bound keeps tasks waiting, or ends running tasks, so that the tasks together do not
exceed a limit, such as that of memory or time. The dispatcher has a tuple of bounds. It
asks each bound before it starts a task, tells each that a worker is ready or a task has
ended, and lets each look at the workers at regular times. It knows nothing else of
them.
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
        running: the jobs that the worker was given, in order; it works on the first.
        ready: the worker has started.
        kill_reason: why the pool has killed the worker; None if it has not.
        began: when the first job of ``running`` began (time.monotonic).
        base: bytes that the worker held before its first task.
        started: the processes that descend from the worker, with the start of each.
        ran: the time in which the worker's task could run.
        idle: the time in which the worker used no CPU.
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
        """The memory of the worker's process now, without that of its descendants."""

    def kill(self, why: str) -> None:
        """Kill the worker, with all processes that descend from it."""


class Bound(Protocol):
    """A rule that decides which task may start, and which running task has to end.

    Attributes:
        chooses: the bound may keep a task waiting whatever its arguments are.
    """

    chooses: bool

    def choose(
        self, waiting: Iterable[Job], workers: Sequence[Worker], *, must_start: bool
    ) -> Job | None:
        """The waiting task that may start now, or None.

        Args:
            waiting: the tasks that wait, in the order in which they came.
            workers: all workers of the pool.
            must_start: a worker would have to be started for the task.
        """

    def on_ready(self, worker: Worker) -> None:
        """Note that a worker is ready for its first task."""

    def on_end(self, worker: Worker, job: Job, peak: int) -> None:
        """Note that a task has ended, and the peak of its worker's memory in bytes."""

    def look(self, workers: Sequence[Worker]) -> str | None:
        """Kill the workers that exceed the bound.

        Returns:
            Why the pool is to be given up, or None.
        """

    def patience(self) -> float:
        """Seconds until the next look is due, while tasks run."""


def choose(
    bounds: Iterable[Bound],
    waiting: Iterable[Job],
    workers: Sequence[Worker],
    *,
    must_start: bool,
) -> Job | None:
    """The job that the first bound chooses, unless another bound makes it wait.

    Args:
        bounds: the bounds, of which there is at least one.
        waiting: see `Bound.choose`.
        workers: see there.
        must_start: see there.
    """
    job = None
    for bound in bounds:
        job = bound.choose(waiting, workers, must_start=must_start)
        if job is None:
            return None
        waiting = (job,)
    return job
