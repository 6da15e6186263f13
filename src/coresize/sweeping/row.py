"""What one number of workers came to. Pure."""

from __future__ import annotations

from coresize.model import Value


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

    __slots__ = (  # noqa: RUF023
        "workers",
        "throughput",
        "low",
        "high",
        "rates",
        "speedup",
        "startup",
        "cores",
        "peak_memory",
        "throttled",
        "swapped",
        "error",
    )

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
