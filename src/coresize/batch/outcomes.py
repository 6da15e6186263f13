"""What became of each task of a batch: failure is data. Pure."""

from __future__ import annotations

import json

from coresize.errors import (
    CoresizeError,
    TaskCrashedError,
    TaskKilledError,
    TaskOutOfMemoryError,
    TaskTimeoutError,
)
from coresize.model import Value
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    #: ok: there is a value. failed: the function raised. oom, crashed, killed, timeout:
    #: its worker ended before it did. cancelled: it was not begun, or Ctrl-C ended it.
    #: skipped: it was ok at an earlier start, and its value is in the journal.
    Status: TypeAlias = Literal[
        "ok",
        "failed",
        "oom",
        "crashed",
        "killed",
        "timeout",
        "cancelled",
        "skipped",
    ]


#: What a task may have come to; those that are not good are counted as failures.
GOOD = ("ok", "skipped")
BAD = ("failed", "oom", "crashed", "killed", "timeout")
STATUSES = ("ok", *BAD, "cancelled", "skipped")

#: The status for the end of a worker, the most special first.
_ENDS: tuple[tuple[type[BaseException], Status], ...] = (
    (TaskOutOfMemoryError, "oom"),
    (TaskTimeoutError, "timeout"),
    (TaskCrashedError, "crashed"),
    (TaskKilledError, "killed"),
)


class Outcome(Value):
    """What became of one task.

    Attributes:
        key: what the task is known by.
        index: its place in the input, from 0.
        status: "ok", "failed", "oom", "crashed", "killed", "timeout", "cancelled" or
            "skipped".
        value: what the function returned; None where there is none.
        error: what was raised instead; None where there is a value.
        traceback: of that error, as text; empty where there is none.
        attempts: how often the task was started.
        peak_memory: bytes, the most that its worker had resident while it ran, without
            pages of files; None of threads, of tasks below a millisecond, and where
            the system does not tell.
        wall: seconds that the last attempt took; of a task that did not end, as by a
            timeout or a kill: since it was handed on.
        cpu: seconds of CPU time that it took; 0 of a task that did not end.
        waited: seconds in which it was ready to run and had no CPU, as others had it or
            a quota was used up; 0 where nobody tells, as of threads, and of a task that
            comes after one of less than a millisecond (Linux).
        worker: the process that ran it, or the thread.
    """

    key: str
    index: int
    status: Status
    value: Any
    error: BaseException | None
    traceback: str
    attempts: int
    peak_memory: int | None
    wall: float
    cpu: float
    waited: float
    worker: str

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.status in GOOD

    @property
    def message(self) -> str:
        """The type and the text of the error; empty where there is none."""
        if self.error is None:
            return ""
        if type(self.error) is CoresizeError:  # of an earlier start, type and text
            return str(self.error)
        name = type(self.error).__name__
        try:
            return f"{name}: {self.error}"
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - str() calls the user's code
            return name


def status_of(error: BaseException) -> Status:
    """The status of a task that got an error in place of a value.

    >>> from coresize import TaskTimeoutError
    >>> status_of(TaskTimeoutError("late", exit_code=-9, peak_memory=0))
    'timeout'
    >>> status_of(ValueError())
    'failed'
    """
    for cls, status in _ENDS:
        if isinstance(error, cls):
            return status
    return "failed"


# -----------------------------------------------------------------------------
# What a batch came to, as values, one line, or JSON. Pure.


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
