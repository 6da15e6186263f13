"""Trials of several numbers of workers, in rounds that alternately go up and down."""

from __future__ import annotations

import statistics
from itertools import dropwhile, pairwise
from typing import TYPE_CHECKING, Protocol

from coresize.arguments import check_callable, check_count
from coresize.planning import plan as planning
from coresize.sweeping.advice import NEAR
from coresize.sweeping.measurements import Row
from coresize.sweeping.result import conclude
from coresize.units import format_count, measured


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coresize.sweeping.measurements import Trial
    from coresize.sweeping.result import SweepResult

#: After throughput falls this many times in a row, greater counts are not tried.
_FALLS = 2


class Subject(Protocol):
    """A workload that can be tried with any number of workers."""

    unit: str
    #: Whether workers are threads of one process.
    threads: bool

    def serial(self) -> Trial:
        """Run the baseline."""

    def run(self, workers: int) -> Trial:
        """Run one trial with this number of workers."""


class Rounds:
    """All trials of a sweep; after an interrupt, those so far still have a result.

    Args:
        subject: the workload.
        counts: the numbers of workers, in order.
        repeat: the number of rounds.
        progress: called with a line of text before each trial.

    Raises:
        ConfigError: ``repeat`` is not a whole number above 0.
        TypeError: ``progress`` is not callable.
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
        check_callable("progress", progress)
        self._tell = progress or (lambda _line: None)
        self._serials: list[Trial] = []
        self._trials: dict[int, list[Trial]] = {}
        self._untried: list[int] = []

    def run(self) -> SweepResult:
        """Run all trials.

        Raises:
            CoresizeError: no count is without errors.
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
        """Whether every trial has failed, and more workers would not help either.

        After a trial that ran out of time, greater counts may still be in time.
        """
        first = [self._serials[0], *(trials[0] for trials in self._trials.values())]
        if any(trial.throughput or not trial.error for trial in first):
            return False
        more = len(self._trials) + len(self._untried) < len(self._counts)
        return not (more and any(trial.late for trial in first))

    def result(self, *, interrupted: bool = False) -> SweepResult:
        """The result of the trials so far.

        Args:
            interrupted: whether the sweep was interrupted.

        Raises:
            CoresizeError: no count is without errors.
        """
        unit = self._subject.unit
        serial = _row(1, self._serials, None) if self._serials else None
        rows = [_row(n, self._trials[n], serial) for n in sorted(self._trials)]
        measured = [serial, *rows] if serial else rows
        # A command's peak is that of all its workers: every successful count fits.
        bound = _bound(measured) if unit == "tasks" else None
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
    """Whether throughput has fallen, by more than `NEAR`, or was 0 twice in a row.

    Trials that ran out of time before any count was in time are left out: greater
    counts may be in time. After a count that was in time, they count as slower.
    """
    first = [trials[count][0] for count in sorted(trials)]
    series = [trial.throughput for trial in dropwhile(lambda trial: trial.late, first)]
    if len(series) <= _FALLS:
        return False
    last = series[-_FALLS - 1 :]
    return all(
        later < earlier * (1 - NEAR) or not later for earlier, later in pairwise(last)
    )


def _row(count: int, trials: list[Trial], serial: Row | None) -> Row:
    good = [trial for trial in trials if not trial.error]
    used = good or trials
    rates = [trial.throughput for trial in used]
    middle = statistics.median(rates)
    base = serial.throughput if serial else middle
    return Row(
        workers=count,
        throughput=middle,
        low=min(rates),
        high=max(rates),
        rates=tuple(rates),
        speedup=middle / base if base else 0.0,
        startup=statistics.median(trial.startup for trial in used),
        cores=statistics.median(trial.cores for trial in used),
        peak_memory=max((trial.peak_memory or 0 for trial in used), default=0) or None,
        throttled=max(trial.throttled for trial in used),
        swapped=max(trial.swapped for trial in used),
        failed=max(trial.failed for trial in used),
        error=next((trial.error for trial in trials if trial.error), ""),
    )


def _bound(rows: list[Row]) -> int | None:
    """The number of workers that fit into memory, each as large as the largest peak."""
    peaks = [row.peak_memory for row in rows if row.peak_memory]
    if not peaks:
        return None
    plan = planning.plan_workers(memory=measured(max(peaks)))
    return plan.bounds.get("memory")
