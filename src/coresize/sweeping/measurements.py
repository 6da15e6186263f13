"""Measurements of trials: the throughput, and what the kernel counted meanwhile."""

from __future__ import annotations

import time

from coresize.detection import counters
from coresize.model import Value


TYPE_CHECKING = False


# -----------------------------------------------------------------------------
# The results of one number of workers. Pure.


class Row(Value):
    """The results of one count of workers, over all rounds.

    Attributes:
        workers: the count.
        throughput: the median throughput of the rounds, in tasks or runs a second.
        low: the lowest throughput.
        high: the highest throughput.
        rates: the throughput of each round.
        speedup: the throughput relative to the serial baseline.
        startup: seconds until all workers had started.
        cores: cores that were busy.
        peak_memory: bytes of one worker, or of the command; None if unknown.
        throttled: the part of the quota's periods that were throttled.
        swapped: pages that the machine swapped out.
        failed: the part of the tasks that raised an error, as they do serially; such
            tasks count as done.
        error: why the row is not a valid measurement; empty if it is valid.
    """

    workers: int
    throughput: float
    low: float
    high: float
    rates: tuple[float, ...]
    speedup: float
    startup: float
    cores: float
    peak_memory: int | None
    throttled: float
    swapped: int
    failed: float
    error: str


def row_of_point(workers: int, rate: float) -> Row:
    """A row for a count that was measured elsewhere; only its rate is known.

    Args:
        workers: the count.
        rate: runs a second.
    """
    return Row(
        workers=workers,
        throughput=rate,
        low=rate,
        high=rate,
        rates=(rate,),
        speedup=0.0,
        startup=0.0,
        cores=0.0,
        peak_memory=None,
        throttled=0.0,
        swapped=0,
        failed=0.0,
        error="",
    )


class Trial(Value):
    """The results of one trial.

    Attributes:
        workers: the number of workers.
        throughput: tasks a second, or runs of a command; 0 if none was done.
        startup: seconds until all workers had started; 0 if not measured separately.
        cores: cores that were busy, on average.
        peak_memory: bytes of one worker, or of a command with its children; None if
            not measured.
        throttled: the part of the quota's periods that were throttled; 0 without quota.
        swapped: pages that the machine swapped out during the trial.
        failed: the part of the tasks that raised an error.
        error: why the trial is not a valid measurement; empty if it is valid.
        late: whether a command exceeded its time limit: more workers may be in time.
    """

    workers: int
    throughput: float
    startup: float
    cores: float
    peak_memory: int | None
    throttled: float
    swapped: int
    failed: float
    error: str
    late: bool


class Watch:
    """Reads the kernel's counters at the start and the end of a trial."""

    def __init__(self) -> None:
        self._throttling = counters.throttling()
        self._swapped = counters.swapped_out() or 0
        self._start = time.perf_counter()
        self.seconds = 0.0

    def stop(self, seconds: float | None = None) -> None:
        """End the trial.

        Args:
            seconds: the duration to use; None for the time since the start.
        """
        passed = time.perf_counter() - self._start
        self.seconds = passed if seconds is None else seconds

    def trial(
        self,
        workers: int,
        done: int,
        *,
        cpu: float,
        startup: float = 0.0,
        peak_memory: int | None = None,
        failed: float = 0.0,
        error: str = "",
        late: bool = False,
    ) -> Trial:
        """The results of the trial.

        Args:
            workers: the number of workers.
            done: the number of tasks that were done.
            cpu: seconds of CPU time of these tasks.
            startup: seconds until all workers had started.
            peak_memory: bytes of one worker, or of a command with its children.
            failed: the part of the tasks that raised an error.
            error: why the trial is not a valid measurement.
            late: whether a command exceeded its time limit.
        """
        tightest = counters.tightest(counters.throttling(), self._throttling)
        return Trial(
            workers=workers,
            throughput=done / self.seconds,
            startup=startup,
            cores=cpu / self.seconds,
            peak_memory=peak_memory,
            throttled=tightest.share if tightest else 0.0,
            swapped=(counters.swapped_out() or 0) - self._swapped,
            failed=failed,
            error=error,
            late=late,
        )
