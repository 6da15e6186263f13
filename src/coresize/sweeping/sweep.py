"""Try several numbers of workers, and recommend one."""

from __future__ import annotations

import operator
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from coresize import available, planning
from coresize.errors import ConfigError
from coresize.sweeping.result import Row, SweepResult, conclude
from coresize.sweeping.trials import Calls, Commands


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from coresize.sweeping.trials import Trial

AUTO = "auto"
_SERIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

#: Beyond the cores it is looked a little, to see the fall.
_BEYOND = 1.5

#: How often throughput must fall before greater counts are left out.
_FALLS = 2


class Subject(Protocol):
    """What can be tried with any number of workers."""

    unit: str

    def serial(self) -> Trial:
        """The baseline."""

    def run(self, workers: int) -> Trial:
        """One trial."""


def sweep(
    fn: Callable[[Any], object],
    sample: Iterable[Any],
    workers: Iterable[int] | str = AUTO,
    executor: str = "process",
    *,
    repeat: int = 3,
    progress: Callable[[str], object] | None = None,
) -> SweepResult:
    """Which number of workers is best for a function here, by trying.

    First the sample is run serially. Then each count runs it, several times, in turns
    that go up and down, so that a drift of the machine favours none; workers are
    started before the clock is. A count where some tasks fail, or are killed for
    memory, is a row that says so. The recommendation is the smallest count within 5 %
    of the best, never more than fit into memory.

    Args:
        fn: what is called with each item.
        sample: items like those of the real work; it is run several times.
        workers: the counts; "auto" goes up to one and a half times the cores, at least
            four, until throughput falls twice.
        executor: "process" or "thread".
        repeat: rounds.
        progress: called with a line now and then.

    Raises:
        ConfigError: an argument is not valid.
        TransferError: the function cannot be sent to another process.

    What the function itself raises when it is run serially is raised.

    Sources: the law that is fitted is the Universal Scalability Law (Gunther 2008,
    arXiv:0808.1431), by least squares.

    >>> import time
    >>> from coresize import sweep
    >>> result = sweep(time.sleep, [0.01] * 8, [1, 4], executor="thread", repeat=1)
    >>> result.recommended, result.rows[1].speedup > 2
    (4, True)
    """
    subject = Calls(fn, list(sample), executor)
    return run(subject, _counts(workers), repeat=repeat, progress=progress)


def sweep_command(
    words: Sequence[str],
    workers: Iterable[int] | str = AUTO,
    *,
    repeat: int = 3,
    progress: Callable[[str], object] | None = None,
) -> SweepResult:
    """Which number of workers is best for a command, with {workers} in it.

    Raises:
        ConfigError: an argument is not valid.
        OSError: it cannot be started.
    """
    return run(Commands(words), _counts(workers), repeat=repeat, progress=progress)


def _counts(workers: Iterable[int] | str) -> list[int]:
    if workers == AUTO:
        most = max(4, int(available.available_cores() * _BEYOND))
        return [count for count in _SERIES if count <= most]
    if isinstance(workers, str):
        raise ConfigError("workers", workers, '"auto", or whole numbers above 0')
    try:
        counts = sorted({operator.index(count) for count in workers})
    except TypeError:
        counts = []
    if not counts or counts[0] < 1:
        raise ConfigError("workers", workers, '"auto", or whole numbers above 0')
    return counts


def run(
    subject: Subject,
    counts: Sequence[int],
    *,
    repeat: int,
    progress: Callable[[str], object] | None,
) -> SweepResult:
    """All trials, in rounds.

    Args:
        subject: what is tried.
        counts: how many workers, in order.
        repeat: rounds.
        progress: called with a line now and then.
    """
    if repeat < 1:
        raise ConfigError("repeat", repeat, "a whole number above 0")
    tell = progress or (lambda _line: None)
    serials: list[Trial] = []
    trials: dict[int, list[Trial]] = {}
    left = list(counts)
    for turn in range(repeat):
        tell(f"serial, round {turn + 1} of {repeat}")
        serials.append(subject.serial())
        for count in left if turn % 2 == 0 else list(reversed(left)):
            if turn == 0 and _falls(trials):
                break
            workers = "1 worker" if count == 1 else f"{count} workers"
            tell(f"{workers}, round {turn + 1} of {repeat}")
            trials.setdefault(count, []).append(subject.run(count))
        left = sorted(trials)
    serial = _row(1, serials, None)
    rows = [_row(count, trials[count], serial) for count in left]
    # What a command takes is of all its workers together: each that ended well fits.
    bound = _bound([serial, *rows]) if subject.unit == "tasks" else None
    return conclude(rows, serial, subject.unit, bound)


def _falls(trials: dict[int, list[Trial]]) -> bool:
    """Whether throughput has fallen for two counts running; or was none at all."""
    series = [trials[count][0].throughput for count in sorted(trials)]
    if len(series) <= _FALLS:
        return False
    last = series[-_FALLS - 1 :]
    return all(later < earlier or not later for earlier, later in pairwise(last))


def _row(count: int, trials: list[Trial], serial: Row | None) -> Row:
    good = [one for one in trials if not one.error]
    used = good or trials
    rates = [one.throughput for one in used]
    middle = statistics.median(rates)
    base = serial.throughput if serial else middle
    return Row(
        workers=count,
        throughput=middle,
        low=min(rates),
        high=max(rates),
        speedup=middle / base if base else 0.0,
        startup=statistics.median(one.startup for one in used),
        cores=statistics.median(one.cores for one in used),
        peak_memory=max((one.peak_memory or 0 for one in used), default=0) or None,
        throttled=max(one.throttled for one in used),
        swapped=max(one.swapped for one in used),
        error=next((one.error for one in trials if one.error), ""),
    )


def _bound(rows: list[Row]) -> int | None:
    """How many workers fit into memory, each as large as the largest that was seen."""
    peaks = [row.peak_memory for row in rows if row.peak_memory]
    if not peaks:
        return None
    plan = planning.plan_workers(memory=max(peaks))
    return plan.bounds.get("memory")
