"""What a sweep has found, as values, a table, JSON. Pure."""

from __future__ import annotations

import json
import math

from coresize.detection import parse
from coresize.errors import ConfigError, ParseError
from coresize.model import Value
from coresize.sweeping import advice


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from coresize.sweeping.usl import Model


class Row(Value):
    """What one count came to, over all rounds.

    Attributes:
        workers: the count.
        throughput: tasks or runs a second, the median.
        low: the lowest.
        high: the highest.
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
    speedup: float
    startup: float
    cores: float
    peak_memory: int | None
    throttled: float
    swapped: int
    error: str


class SweepResult(Value):
    """Which number of workers is best, and what was measured.

    Attributes:
        recommended: the smallest count within 5 % of the best, that fits into memory.
        best: the count with the highest throughput.
        model: the Universal Scalability Law, fitted; None for too few points.
        reason: why that is recommended.
        rows: what each count came to.
        serial: the baseline; None where points were given.
        unit: what throughput counts: "tasks" or "runs".
        memory_bound: workers that fit into memory; None if unknown.
    """

    __slots__ = (  # noqa: RUF023
        "recommended",
        "best",
        "model",
        "reason",
        "rows",
        "serial",
        "unit",
        "memory_bound",
    )

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
    memory = parse.format_bytes(row.peak_memory) if row.peak_memory else "-"
    mark = " <-" if row.workers == recommended else ""
    swapped = f"  swapped {row.swapped} pages" if row.swapped > 0 else ""
    error = f"  {row.error}" if row.error else ""
    return (
        f"{name:>7}  {row.throughput:>10.2f}  {row.low:>8.2f} - {row.high:>8.2f}"
        f"  {row.speedup:>7.2f}  {row.startup:>5.2f}  {row.cores:>5.1f}  {memory:>10}"
        f"  {row.throttled:>9.0%}{mark}{swapped}{error}"
    )


def conclude(
    rows: Sequence[Row], serial: Row | None, unit: str, memory_bound: int | None
) -> SweepResult:
    """What follows from what was measured.

    Raises:
        ConfigError: nothing of it ended well.
    """
    points = {row.workers: row.throughput for row in rows if not row.error}
    if not any(points.values()):
        errors = "; ".join(f"{row.workers}: {row.error}" for row in rows)
        raise ConfigError("workers", errors, "a task and counts of which some end well")
    found = advice.advise(points, memory_bound)
    reason = found.reason
    failed = [str(row.workers) for row in rows if row.error]
    if failed:
        reason += f" Not measured well: {', '.join(failed)}."
    if serial and serial.throughput > points[found.recommended]:
        reason += " Serially it is faster than with any number of workers tried."
    return SweepResult(
        recommended=found.recommended,
        best=found.best,
        model=found.model,
        reason=reason,
        rows=tuple(rows),
        serial=serial,
        unit=unit,
        memory_bound=memory_bound,
    )


def from_points(points: Mapping[Any, Any], where: str) -> SweepResult:
    """What follows from throughput by count that was measured elsewhere.

    Raises:
        ConfigError: these are no such points.
    """
    allowed = 'counts with runs a second, such as {"2": 82.98, "5": 153.94}'
    known: dict[int, float] = {}
    for name, rate in points.items():
        try:
            count, number = parse.positive(str(name)), float(rate)
        except (ParseError, TypeError, ValueError, OverflowError):
            raise ConfigError(where, {name: rate}, allowed) from None
        lawful = not isinstance(rate, (bool, str)) and 0 <= number < math.inf
        if not lawful or count in known:
            raise ConfigError(where, {name: rate}, allowed)
        known[count] = number
    if not any(known.values()):
        raise ConfigError(where, dict(points), allowed)
    rows = [_given(count, known[count]) for count in sorted(known)]
    return conclude(rows, None, "runs", None)


def _given(workers: int, rate: float) -> Row:
    return Row(
        workers=workers,
        throughput=rate,
        low=rate,
        high=rate,
        speedup=0.0,
        startup=0.0,
        cores=0.0,
        peak_memory=None,
        throttled=0.0,
        swapped=0,
        error="",
    )
