"""The time limit of tasks, and of workers that never get ready.

The start of a worker may take longer than a task: it imports modules, loads a model,
waits for a lock. So a starting worker, in a pool with a timeout, is killed only after
some seconds without CPU time, and the allowed seconds double after each such kill: a
slow worker gets ready in the end, and a worker that hangs is replaced.
"""

from __future__ import annotations

import time


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coresize.executor.admission.bounds import Worker
    from coresize.executor.jobs import Job

#: Seconds between two looks, and the number of looks within a short limit.
_STEP, _PARTS = 0.25, 4

#: Seconds that a starting worker may use no CPU time, at first; and how often they are
#: doubled before the pool is given up, as long as no worker gets ready.
_START, _ROUNDS = 3.0, 4


class TimeLimit:
    """The time limit of a pool's tasks: a `Bound`.

    Args:
        timeout: seconds that one task may take; None never kills a worker.
    """

    chooses = False

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._step = min(_STEP, (timeout or _STEP) / _PARTS)
        self._start = max(timeout or 0.0, _START)
        self._rounds = 0
        self._allowed: dict[Worker, float] = {}
        self._due = 0.0

    def choose(
        self, waiting: Iterable[Job], workers: Sequence[Worker], *, must_start: bool
    ) -> Job | None:
        """See `Bound.choose`: any task may start."""
        del workers, must_start
        return next(iter(waiting), None)

    def patience(self) -> float:
        """See `Bound.patience`."""
        if self._timeout is None:
            return float("inf")
        return max(0.0, self._due - time.monotonic())

    def on_ready(self, worker: Worker) -> None:
        """See `Bound.on_ready`: workers can get ready, so count from 0 again."""
        del worker
        self._rounds = 0

    def on_end(self, worker: Worker, job: Job, peak: int) -> None:
        """See `Bound.on_end`: a time limit learns nothing."""

    def look(self, workers: Sequence[Worker]) -> str | None:
        """See `Bound.look`: kill the workers whose task or start takes too long."""
        now = time.monotonic()
        if self._timeout is None or now < self._due:
            return None
        lefts = [self._step]
        for worker in workers:
            if worker.ready and worker.running and not worker.kill_reason:
                left = self._timeout - worker.ran.look(worker.began, now, self._step)
                if left < 0:
                    worker.kill("timeout")
                lefts.append(max(left, 0.01))
        self._due = now + min(lefts)
        return self._look_at_starts(workers, now)

    def _look_at_starts(self, workers: Sequence[Worker], now: float) -> str | None:
        starting = [
            worker for worker in workers if not worker.ready and not worker.kill_reason
        ]
        # Each worker keeps the limit of its own beginning. Otherwise workers that
        # began together would be killed one after the other.
        allowed = {
            worker: self._allowed.get(worker, self._start) for worker in starting
        }
        self._allowed = allowed
        stuck = [
            worker for worker in starting if self._idle(worker, now) > allowed[worker]
        ]
        if not stuck:
            return None
        for worker in stuck:
            worker.kill("stuck")
        longest = max(allowed[worker] for worker in stuck)
        if longest >= self._start:
            self._start = 2 * longest
            self._rounds += 1
        alive = [worker for worker in workers if not worker.kill_reason]
        if self._rounds < _ROUNDS or any(self._is_at_work(one, now) for one in alive):
            return None
        return (
            f"workers do not get ready: {self._rounds} times in a row one was ended "
            f"that did nothing, the last time for {longest:g} s; does the initializer "
            "or an import wait for something?"
        )

    def _idle(self, worker: Worker, now: float) -> float:
        return worker.idle.look(now, self._step)

    def _is_at_work(self, worker: Worker, now: float) -> bool:
        """Whether the worker is ready, or starting for longer than it may be idle."""
        return worker.ready or now - worker.idle.born > self._allowed[worker]
