"""One trial: what so many workers got done, and what the kernel counted meanwhile."""

from __future__ import annotations

import time

from coresize.detection import counters
from coresize.model import Value


TYPE_CHECKING = False


# -----------------------------------------------------------------------------
# What one number of workers came to. Pure.


class Row(Value):
    """What one count came to, over all rounds.

    Attributes:
        workers: the count.
        throughput: tasks or runs a second, the median.
        low: the lowest.
        high: the highest.
        rates: that of each round, in tasks or runs a second.
        speedup: beside the serial baseline.
        startup: seconds until all workers were there.
        cores: cores that were busy.
        peak_memory: bytes of one worker, or of the command; None if unknown.
        throttled: the part of the quota's periods that were throttled.
        swapped: pages that the machine swapped out.
        error: why this is no measure; empty where it is one.
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
    error: str


def given(workers: int, rate: float) -> Row:
    """A count that was measured elsewhere, of which no more is known.

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
        error="",
    )


class Trial(Value):
    """What so many workers got done, once.

    Attributes:
        workers: how many.
        throughput: tasks a second, or runs of a command; 0 where none ended.
        startup: seconds until all workers were there; 0 where that is not told apart.
        cores: cores that were busy, on average.
        peak_memory: bytes of one worker, or of a command with all that it starts; None
            where it was not measured.
        throttled: the part of the quota's periods that were throttled, 0 without one.
        swapped: pages that the machine swapped out meanwhile.
        error: why this is no measure; empty where it is one.
        late: a command took longer than it may: with more workers it may be in time.
    """

    workers: int
    throughput: float
    startup: float
    cores: float
    peak_memory: int | None
    throttled: float
    swapped: int
    error: str
    late: bool


class Watch:
    """What the kernel counts while a trial runs."""

    def __init__(self) -> None:
        self._throttling = counters.throttling()
        self._swapped = counters.swapped_out() or 0
        self._start = time.perf_counter()
        self.seconds = 0.0

    def stop(self, seconds: float | None = None) -> None:
        """The trial has ended.

        Args:
            seconds: that count of it; None counts all since it began.
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
        error: str = "",
        late: bool = False,
    ) -> Trial:
        """What came of it.

        Args:
            workers: how many there were.
            done: tasks that have ended well.
            cpu: seconds of CPU time that they took.
            startup: seconds.
            peak_memory: bytes.
            error: why this is no measure.
            late: a command took longer than it may.
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
            error=error,
            late=late,
        )
