"""The result of a sweep, as values, a table, JSON. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coresize import units
from coresize.errors import ConfigError, CoresizeError, ParseError
from coresize.model import Value
from coresize.planning.profiles import TaskProfile
from coresize.sweeping import advice, hints
from coresize.sweeping.measurements import row_of_point


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from coresize.sweeping.measurements import Row
    from coresize.sweeping.usl import Model


class SweepResult(Value):
    """The recommended number of workers, and the measurements.

    Attributes:
        recommended: the smallest count within 5 % of the best count that fits into
            memory; if no measured count fits, the number of workers that do, at least
            1.
        best: the count with the highest throughput.
        model: the fitted Universal Scalability Law; None for too few points.
        reason: why the count is recommended.
        rows: the results of each count.
        serial: the baseline; None if the points were measured elsewhere.
        unit: the unit of throughput: "tasks" or "runs".
        memory_bound: workers that fit into memory; None if unknown.
    """

    recommended: int
    best: int
    model: Model | None
    reason: str
    rows: tuple[Row, ...]
    serial: Row | None
    unit: str
    memory_bound: int | None

    @property
    def points(self) -> dict[int, float]:
        """Throughput by count, for the counts without errors."""
        return {row.workers: row.throughput for row in self.rows if not row.error}

    @property
    def profile(self) -> TaskProfile:
        """The profile for `coresize.plan_workers`: a bound, and one worker's needs."""
        from coresize.sweeping.result import profile_of  # imports pydantic

        return profile_of(self)

    def save(self, name: str) -> str:
        """Save the profile, and return the path of the file.

        Args:
            name: a name or path, as for `coresize.save_profile`.

        Raises:
            ConfigError: the name is not valid, or the file cannot be written.

        >>> import os, tempfile
        >>> from coresize import plan_workers
        >>> from coresize.sweeping.result import from_points
        >>> path = os.path.join(tempfile.mkdtemp(), "align.toml")
        >>> saved = from_points({1: 10.0, 2: 19.0, 3: 12.0}, "here").save(path)
        >>> plan_workers(profile=saved).bounds["profile"]
        2
        """
        from coresize.planning.profile_files import save_profile

        return save_profile(self.profile, name)

    def as_dict(self) -> dict[str, object]:
        """The content of the JSON output."""
        model = self.model
        law = (
            None if model is None else {"a": model.a, "b": model.b, "peak": model.peak}
        )
        return {
            "recommended": self.recommended,
            "best": self.best,
            "model": law,
            "reason": self.reason,
            "points": {str(count): rate for count, rate in self.points.items()},
            "rows": [row.as_dict() for row in self.rows],
            "serial": self.serial.as_dict() if self.serial else None,
            "unit": self.unit,
            "memory_bound": self.memory_bound,
        }

    def as_json(self) -> str:
        """The result as JSON, for programs."""
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        head = _ROW.format(*_HEAD[:1], f"{self.unit.upper()}/S", *_HEAD[1:])
        lines = [_line(str(row.workers), row, self.recommended) for row in self.rows]
        if self.serial is None:  # of points measured elsewhere, only rates are known
            lines = [line[:_SHORT] + line[_MARK:] for line in lines]
            head = head[:_SHORT]
        else:
            lines.insert(0, _line("serial", self.serial, 0))
        return "\n".join([head, *lines, "", self.reason])


#: A row of the table, which has 80 columns together with the mark at its end.
_ROW = "{:>7}  {:>10} {:>7} - {:>7} {:>7} {:>5} {:>5} {:>9} {:>9}"
_HEAD = (
    *("WORKERS", "LOWEST", "HIGHEST", "SPEEDUP", "START", "CORES", "MEMORY"),
    "THROTTLED",
)
#: The column where a short line ends, and the column where the mark begins.
_SHORT, _MARK = 19, 77


def _line(name: str, row: Row, recommended: int) -> str:
    memory = units.format_bytes(row.peak_memory) if row.peak_memory else "-"
    mark = " <-" if row.workers == recommended else ""
    swapped = f"  swapped {row.swapped} pages" if row.swapped > 0 else ""
    error = f"  {row.error}" if row.error else ""
    cells = (
        *(name, *map(_rate, (row.throughput, row.low, row.high))),
        *(f"{row.speedup:.2f}", f"{row.startup:.2f}", f"{row.cores:.1f}"),
        *(memory, f"{row.throttled:.0%}"),
    )
    return f"{_ROW.format(*cells)}{mark}{swapped}{error}"


def _rate(rate: float) -> str:
    """A throughput, in at most seven characters."""
    if rate < _LONG_RATE:
        return f"{rate:.2f}"
    return f"{rate:.0f}" if rate < _MOST_DIGITS else f"{rate:.1e}"


#: Above these rates, fractions and then the last digits say nothing.
_LONG_RATE, _MOST_DIGITS = 1e4, 1e7


def conclude(
    rows: Sequence[Row],
    serial: Row | None,
    unit: str,
    memory_bound: int | None,
    *,
    threads: bool = False,
    untried: Sequence[int] = (),
    interrupted: bool = False,
) -> SweepResult:
    """Draw the conclusions from measurements.

    Args:
        rows: the results of each count.
        serial: the baseline; None if the points were measured elsewhere.
        unit: the unit of throughput: "tasks" or "runs".
        memory_bound: workers that fit into memory; None if unknown.
        threads: whether the workers were threads of one process.
        untried: the counts that were not tried because throughput fell.
        interrupted: whether the sweep was interrupted.

    Raises:
        CoresizeError: no count is without errors.
    """
    good = [row for row in rows if not row.error]
    if not any(row.throughput for row in good):
        raise CoresizeError(_nothing(rows, serial, unit))
    points = {row.workers: row.throughput for row in good}
    rounds = {row.workers: row.rates for row in good}
    advised = advice.advise(points, memory_bound, rounds)
    case = hints.Case(
        good=good,
        failed=[row for row in rows if row.error],
        serial=serial,
        unit=unit,
        threads=threads,
        memory_bound=memory_bound,
        untried=untried,
        advice=advised,
    )
    begin = _INTERRUPTED if interrupted else ""
    remarks = (hints.failures(case), hints.left_out(case), hints.hint(case))
    return SweepResult(
        recommended=advised.recommended,
        best=advised.best,
        model=advised.model,
        reason=" ".join(filter(None, (begin, advised.reason, *remarks))),
        rows=tuple(rows),
        serial=serial,
        unit=unit,
        memory_bound=memory_bound,
    )


_INTERRUPTED = "It was interrupted: this is based on what was measured until then."


def _nothing(rows: Sequence[Row], serial: Row | None, unit: str) -> str:
    """The message for a sweep in which every count failed."""
    if not rows:
        return "no number of workers was measured"
    tried = [("serially", serial.error)] if serial else []
    tried += [(f"with {row.workers}", row.error) for row in rows]
    errors = "; ".join(f"{name}: {error}" for name, error in tried if error)
    if unit == "runs":
        return (
            f"no run of the command succeeded ({errors}): run it by itself, with a "
            "number in place of {workers}, to see why; if memory or time ran out, "
            "give it more"
        )
    smaller = "smaller numbers, or " if min(row.workers for row in rows) > 1 else ""
    return (
        f"no number of workers completed all tasks ({errors}): try {smaller}a sample "
        "whose items all succeed; if memory or time ran out, give it more"
    )


#: The highest rate that is accepted: sums of squares of higher ones would overflow.
_MOST_RATE = 1e15


def from_points(points: Mapping[Any, Any], where: str) -> SweepResult:
    """Draw the conclusions from throughput by count that was measured elsewhere.

    Raises:
        ConfigError: the points are not valid.
    """
    allowed = (
        f'counts with runs a second up to {_MOST_RATE:g}, such as {{"2": 82.98, '
        '"5": 153.94}'
    )
    known: dict[int, float] = {}
    for name, rate in points.items():
        try:
            count, number = units.positive(str(name)), float(rate)
        except (ParseError, TypeError, ValueError, OverflowError):
            raise ConfigError(where, {name: rate}, allowed) from None
        lawful = not isinstance(rate, (bool, str)) and 0 <= number <= _MOST_RATE
        if not lawful or count in known:
            raise ConfigError(where, {name: rate}, allowed)
        known[count] = number
    if not any(known.values()):
        raise ConfigError(where, dict(points), allowed)
    rows = [row_of_point(count, known[count]) for count in sorted(known)]
    return conclude(rows, None, "runs", None)


# -----------------------------------------------------------------------------
# A sweep as a profile, for later planning.


def profile_of(result: SweepResult) -> TaskProfile:
    """The profile of a sweep: the bound on workers and, for a function, its needs."""
    good = [row for row in result.rows if not row.error]
    # If the recommended count was not measured, take the nearest one.
    row = min(good, key=lambda row: abs(row.workers - result.recommended))
    alone = _least_crowded(result, good)
    return TaskProfile(
        # A command's peak is that of all its workers together, partly shared.
        peak_memory=row.peak_memory if result.unit == "tasks" else None,
        cpu=alone.cores / alone.workers if alone.cores else None,
        wall=1.0 if alone.cores else None,
        max_workers=result.recommended,
        method="sweep",
    )


def _least_crowded(result: SweepResult, good: Sequence[Row]) -> Row:
    """The row whose workers competed least for cores: serial, or the fewest workers."""
    if result.serial and not result.serial.error:
        return result.serial
    return min(good, key=lambda row: row.workers)
