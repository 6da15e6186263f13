"""What a batch came to, as values, one line, or JSON. Pure."""

from __future__ import annotations

import json

from coresize.detection.parse import format_bytes, format_count
from coresize.model import Value


class BatchReport(Value):
    """What a batch came to so far.

    Attributes:
        done: tasks that have ended, with those that a resume skipped.
        total: how many there are; None where the input does not tell.
        counts: how many of each status.
        failed: how many have no value.
        retries: how often a task was run again because it had failed.
        elapsed: seconds.
        rate: tasks a second, without skipped ones.
        startup: seconds until the first task began.
        workers: (seconds since the start, how many workers), each time that changed.
        kills: how often a worker was killed for memory, whatever became of its task.
        evictions: how often a task was ended before the kernel would have killed one.
        need: bytes that a task may take, as learned; None where that was not asked.
        peak_memory: bytes, the most of one task; None where it was not measured.
        line: all that in one line.
    """

    __slots__ = (  # noqa: RUF023
        "done",
        "total",
        "counts",
        "failed",
        "retries",
        "elapsed",
        "rate",
        "startup",
        "workers",
        "kills",
        "evictions",
        "need",
        "peak_memory",
        "line",
    )

    done: int
    total: int | None
    counts: dict[str, int]
    failed: int
    retries: int
    elapsed: float
    rate: float
    startup: float
    workers: tuple[tuple[float, int], ...]
    kills: int
    evictions: int
    need: int | None
    peak_memory: int | None
    line: str

    @property
    def startup_share(self) -> float:
        """The part of the time until the first task began."""
        return min(1.0, self.startup / self.elapsed) if self.elapsed else 0.0

    def __str__(self) -> str:
        parts = [self.line, f"{self.rate:.1f}/s"]
        parts += [
            f"{count} {status}"
            for status, count in self.counts.items()
            if count and status not in ("ok", "skipped", "failed", "cancelled")
        ]
        most = max((count for _, count in self.workers), default=0)
        parts.append(format_count(most, "worker"))
        if self.startup_share >= _WORTH:
            parts.append(f"start-up {self.startup_share:.0%}")
        if self.kills or self.evictions:
            parts.append(f"{self.kills} kills, {self.evictions} evictions")
        if self.peak_memory:
            parts.append(f"peak {format_bytes(self.peak_memory)}")
        return " | ".join(parts)

    def as_json(self) -> str:
        """All of it as JSON, for programs."""
        return json.dumps({**self.as_dict(), "startup_share": self.startup_share})


#: From this part on it is worth a word.
_WORTH = 0.05
