"""What a sweep has found, as values, a table, JSON. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coresize import units
from coresize.errors import ConfigError, CoresizeError, ParseError
from coresize.model import Value
from coresize.planning.profiles import TaskProfile
from coresize.sweeping import advice, hints
from coresize.sweeping.measurements import given


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from coresize.sweeping.measurements import Row
    from coresize.sweeping.usl import Model


class SweepResult(Value):
    """Which number of workers is best, and what was measured.

    Attributes:
        recommended: the smallest count within 5 % of the best that fits into memory;
            where none that was measured does, as many as fit, at least 1.
        best: the count with the highest throughput.
        model: the Universal Scalability Law, fitted; None for too few points.
        reason: why that is recommended.
        rows: what each count came to.
        serial: the baseline; None where points were given.
        unit: what throughput counts: "tasks" or "runs".
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
        """Throughput by count, of those that were measured well."""
        return {row.workers: row.throughput for row in self.rows if not row.error}

    @property
    def profile(self) -> TaskProfile:
        """What it tells `coresize.plan_workers`: a bound, and what one worker needs."""
        from coresize.sweeping.result import profile_of  # brings pydantic

        return profile_of(self)

    def save(self, name: str) -> str:
        """Keep the profile, and return the path of the file.

        Args:
            name: as of `coresize.save_profile`.

        Raises:
            ConfigError: the name is none, or the file cannot be written.

        >>> import os, tempfile
        >>> from coresize import plan_workers
        >>> from coresize.sweeping.result import from_points
        >>> path = os.path.join(tempfile.mkdtemp(), "align.toml")
        >>> kept = from_points({1: 10.0, 2: 19.0, 3: 12.0}, "here").save(path)
        >>> plan_workers(profile=kept).bounds["profile"]
        2
        """
        from coresize.planning.profile_files import save_profile

        return save_profile(self.profile, name)

    def as_dict(self) -> dict[str, object]:
        """What is printed as JSON."""
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
        """All of it as JSON, for programs."""
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        head = _HEAD.format(unit=f"{self.unit.upper()}/S")
        lines = [_line(str(row.workers), row, self.recommended) for row in self.rows]
        if self.serial is None:  # points were given: there is no more to tell
            lines = [line[:_SHORT] + line[_MARK:] for line in lines]
            head = head[:_SHORT]
        else:
            lines.insert(0, _line("serial", self.serial, 0))
        return "\n".join([head, *lines, "", self.reason])


_HEAD = (
    "WORKERS  {unit:>10}     LOWEST - HIGHEST   SPEEDUP  START  CORES      MEMORY"
    "  THROTTLED"
)
#: Where a line may end, and where what marks it begins.
_SHORT, _MARK = 19, 86


def _line(name: str, row: Row, recommended: int) -> str:
    memory = units.format_bytes(row.peak_memory) if row.peak_memory else "-"
    mark = " <-" if row.workers == recommended else ""
    swapped = f"  swapped {row.swapped} pages" if row.swapped > 0 else ""
    error = f"  {row.error}" if row.error else ""
    return (
        f"{name:>7}  {row.throughput:>10.2f}  {row.low:>8.2f} - {row.high:>8.2f}"
        f"  {row.speedup:>7.2f}  {row.startup:>5.2f}  {row.cores:>5.1f}  {memory:>10}"
        f"  {row.throttled:>9.0%}{mark}{swapped}{error}"
    )


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
    """What follows from what was measured.

    Args:
        rows: what each count came to.
        serial: the baseline; None where points were given.
        unit: what throughput counts: "tasks" or "runs".
        memory_bound: workers that fit into memory; None if unknown.
        threads: the workers were threads of one process.
        untried: the counts that were left out, as throughput fell.
        interrupted: there would have been more.

    Raises:
        CoresizeError: nothing of it ended well.
    """
    good = [row for row in rows if not row.error]
    if not any(row.throughput for row in good):
        raise CoresizeError(_nothing(rows, serial, unit))
    points = {row.workers: row.throughput for row in good}
    rounds = {row.workers: row.rates for row in good}
    found = advice.advise(points, memory_bound, rounds)
    case = hints.Case(
        good=good,
        failed=[row for row in rows if row.error],
        serial=serial,
        unit=unit,
        threads=threads,
        memory_bound=memory_bound,
        untried=untried,
        advice=found,
    )
    begin = _INTERRUPTED if interrupted else ""
    told = (hints.failures(case), hints.left_out(case), hints.hint(case))
    return SweepResult(
        recommended=found.recommended,
        best=found.best,
        model=found.model,
        reason=" ".join(filter(None, (begin, found.reason, *told))),
        rows=tuple(rows),
        serial=serial,
        unit=unit,
        memory_bound=memory_bound,
    )


_INTERRUPTED = "It was interrupted: this is of what was measured until then."


def _nothing(rows: Sequence[Row], serial: Row | None, unit: str) -> str:
    """What went wrong where nothing ended well."""
    if not rows:
        return "no number of workers was measured"
    tried = [("serially", serial.error)] if serial else []
    tried += [(f"with {row.workers}", row.error) for row in rows]
    errors = "; ".join(f"{name}: {error}" for name, error in tried if error)
    if unit == "runs":
        return (
            f"no run of the command ended well ({errors}): run it by itself, with a "
            "number in place of {workers}, to see why; where memory or time ran out, "
            "give it more"
        )
    smaller = "smaller numbers, or " if min(row.workers for row in rows) > 1 else ""
    return (
        f"with no number of workers all tasks ended well ({errors}): try {smaller}a "
        "sample of which each item ends well; where memory or time ran out, give it "
        "more"
    )


#: Runs a second that nobody measures, and that no sum of squares could hold.
_MOST_RATE = 1e15


def from_points(points: Mapping[Any, Any], where: str) -> SweepResult:
    """What follows from throughput by count that was measured elsewhere.

    Raises:
        ConfigError: these are no such points.
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
    return conclude([given(n, known[n]) for n in sorted(known)], None, "runs", None)


# -----------------------------------------------------------------------------
# A sweep as a profile, so that planning uses it the next time.


def profile_of(result: SweepResult) -> TaskProfile:
    """The bound on workers; of a function what one needs, as far as it was measured."""
    good = [row for row in result.rows if not row.error]
    # As many as fit may not have been measured: then the nearest count stands for it.
    row = min(good, key=lambda row: abs(row.workers - result.recommended))
    alone = _least_crowded(result, good)
    return TaskProfile(
        # What a command takes is of all its workers together, of which some is shared.
        peak_memory=row.peak_memory if result.unit == "tasks" else None,
        cpu=alone.cores / alone.workers if alone.cores else None,
        wall=1.0 if alone.cores else None,
        most_workers=result.recommended,
        method="sweep",
    )


def _least_crowded(result: SweepResult, good: Sequence[Row]) -> Row:
    """Where workers did not have to wait for each other's core, or as few as can be."""
    if result.serial and not result.serial.error:
        return result.serial
    return min(good, key=lambda row: row.workers)
