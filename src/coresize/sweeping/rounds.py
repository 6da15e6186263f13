"""Trials of several numbers of workers, in rounds that go up and down."""

from __future__ import annotations

import statistics
from itertools import dropwhile, pairwise
from typing import TYPE_CHECKING, Protocol

from coresize.arguments import check_count
from coresize.planning import plan as planning
from coresize.sweeping.advice import NEAR
from coresize.sweeping.measurements import Row
from coresize.sweeping.result import conclude
from coresize.units import format_count


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coresize.sweeping.measurements import Trial
    from coresize.sweeping.result import SweepResult

#: How often throughput must fall, for counts running, before greater ones are left out.
_FALLS = 2


class Subject(Protocol):
    """What can be tried with any number of workers."""

    unit: str
    #: Whether workers are threads of one process.
    threads: bool

    def serial(self) -> Trial:
        """The baseline."""

    def run(self, workers: int) -> Trial:
        """One trial."""


class Rounds:
    """All trials; where they are interrupted, there is a result of those so far.

    Args:
        subject: what is tried.
        counts: how many workers, in order.
        repeat: rounds.
        progress: called with a line now and then.

    Raises:
        ConfigError: repeat is no whole number above 0.
    """

    def __init__(
        self,
        subject: Subject,
        counts: Sequence[int],
        *,
        repeat: int,
        progress: Callable[[str], object] | None = None,
    ) -> None:
        self._subject = subject
        self._counts = list(counts)
        self._repeat = check_count("repeat", repeat, 1)
        self._tell = progress or (lambda _line: None)
        self._serials: list[Trial] = []
        self._trials: dict[int, list[Trial]] = {}
        self._untried: list[int] = []

    def run(self) -> SweepResult:
        """Run them all.

        Raises:
            CoresizeError: nothing of it ended well.
        """
        left = self._counts
        for turn in range(self._repeat):
            of = f"round {turn + 1} of {self._repeat}"
            self._tell(f"serial, {of}")
            self._serials.append(self._subject.serial())
            for count in left if turn % 2 == 0 else reversed(left):
                if turn == 0 and _falls(self._trials):
                    self._untried = [n for n in left if n not in self._trials]
                    break
                self._tell(f"{format_count(count, 'worker')}, {of}")
                trial = self._subject.run(count)
                self._trials.setdefault(count, []).append(trial)
                if self._is_hopeless():
                    return self.result()
            left = sorted(self._trials)
        return self.result()

    def _is_hopeless(self) -> bool:
        """Whether nothing ended well, and more workers do not help either.

        Who ran out of time may be in time with more; until all have had their turn.
        """
        first = [self._serials[0], *(trials[0] for trials in self._trials.values())]
        if any(one.throughput or not one.error for one in first):
            return False
        more = len(self._trials) + len(self._untried) < len(self._counts)
        return not (more and any(one.late for one in first))

    def result(self, *, interrupted: bool = False) -> SweepResult:
        """What follows from what was run so far.

        Args:
            interrupted: there would have been more.

        Raises:
            CoresizeError: nothing of it ended well.
        """
        unit = self._subject.unit
        serial = _row(1, self._serials, None) if self._serials else None
        rows = [_row(n, self._trials[n], serial) for n in sorted(self._trials)]
        seen = [serial, *rows] if serial else rows
        # What a command takes is of all its workers together: each that ended well fits
        bound = _bound(seen) if unit == "tasks" else None
        return conclude(
            rows,
            serial,
            unit,
            bound,
            threads=self._subject.threads,
            untried=self._untried,
            interrupted=interrupted,
        )


def _falls(trials: dict[int, list[Trial]]) -> bool:
    """Whether throughput has fallen for two counts running; or was none at all.

    By more than what counts as alike. What ran out of time before any count was in time
    says nothing: with more workers it may be. After one that was, it is slower.
    """
    first = [trials[count][0] for count in sorted(trials)]
    series = [one.throughput for one in dropwhile(lambda one: one.late, first)]
    if len(series) <= _FALLS:
        return False
    last = series[-_FALLS - 1 :]
    return all(
        later < earlier * (1 - NEAR) or not later for earlier, later in pairwise(last)
    )


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
        rates=tuple(rates),
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
