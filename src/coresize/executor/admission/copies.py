"""Admission by the copies of large arguments: a call waits until its copy fits.

Most calls are copied at their submission. The others are copied when a worker takes
them (`coresize.executor.sharing.Later`). Then the copy may not fit, because running
tasks hold memory, or the copies of other calls do. Rule 1: such a call waits, and later
calls that fit start before it, though not for ever. Rule 2: it is tried, and fails with
an error that tells both numbers, only where the pool has nothing to give back: no task
runs, and no other call that waits is copied. Rule 3: a worker gives back the memory of
a task only after its answer, so the pool waits for that as well.

What a call needs is known from its submission, or from an earlier try. It may be wrong:
the caller may have changed an array, or other programs may have taken memory. Then the
call, which a worker was given, goes back to the head of the queue.
"""

from __future__ import annotations

import time
from itertools import islice

from coresize.executor.admission.rules import WINDOW, first_to_fit, in_turn
from coresize.executor.sharing import memory_left


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Sequence

    from coresize.executor.admission.bounds import Worker
    from coresize.executor.jobs import Job

#: Seconds within which a worker has given back the memory of a task that has ended, and
#: seconds between two looks at the memory that is left, while a call waits for it.
_MOMENT, _INTERVAL = 2.0, 0.02


class CopyBound:
    """The `Bound` of large arguments that are not copied yet.

    Args:
        most: the number of workers that the pool may have.
    """

    #: It keeps only those tasks waiting that are not copied yet.
    chooses = False

    def __init__(self, most: int) -> None:
        self._most = most
        self._ended = float("-inf")
        self._holds_back = False

    def choose(
        self, waiting: Iterable[Job], workers: Sequence[Worker], *, must_start: bool
    ) -> Job | None:
        """See `Bound.choose`."""
        del must_start
        candidates = list(islice(waiting, WINDOW))
        first = next(iter(candidates), None)
        left = memory_left(first.uncopied) if first else None
        self._holds_back = False
        if first is None or left is None:
            return first
        left -= sum(job.uncopied for worker in workers for job in worker.running)
        is_busy = any(worker.running for worker in workers)
        chosen = first_to_fit(
            in_turn(candidates, self._most) if is_busy else candidates, left
        )
        if chosen is None and not self.may_wait(workers, ()):
            return first
        first.passed += chosen is not first and chosen is not None
        self._holds_back = chosen is None
        return chosen

    def may_wait(self, workers: Sequence[Worker], waiting: Iterable[Job]) -> bool:
        """Whether the pool may give memory back without the call that does not fit."""
        recent = time.monotonic() - self._ended < _MOMENT
        busy = any(worker.running for worker in workers)
        return recent or busy or any(job.mapped for job in waiting)

    def requeue(
        self, jobs: Iterable[Job], waiting: deque[Job], workers: Sequence[Worker]
    ) -> None:
        """Queue jobs again whose copy has not fitted; give up those that cannot fit.

        Args:
            jobs: the jobs, which a worker was given.
            waiting: the queue.
            workers: all workers of the pool.
        """
        for job in jobs:
            if self.may_wait(workers, waiting):
                waiting.appendleft(job)
            else:
                job.give_up()

    def patience(self) -> float:
        """See `Bound.patience`."""
        return _INTERVAL if self._holds_back else float("inf")

    def on_ready(self, worker: Worker) -> None:
        """See `Bound.on_ready`: nothing changes."""

    def on_end(self, worker: Worker, job: Job, peak: int) -> None:
        """See `Bound.on_end`: memory is given back now."""
        del worker, job, peak
        self._ended = time.monotonic()

    def look(self, workers: Sequence[Worker]) -> str | None:
        """See `Bound.look`: no task has to end."""
