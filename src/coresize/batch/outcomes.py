"""The outcome of each task of a batch, and the report of the batch. Pure."""

from __future__ import annotations

import json

from coresize.batch.exit_codes import ExitCode
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

    #: ok: the task has a value. failed: the function raised an error. oom, crashed,
    #: killed, timeout: the worker ended before the task. cancelled: the task did not
    #: begin, or Ctrl-C ended it. skipped: the task was ok at an earlier start, and the
    #: journal has its value.
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


#: All statuses; tasks with a status in BAD count as failures.
GOOD = ("ok", "skipped")
BAD = ("failed", "oom", "crashed", "killed", "timeout")
STATUSES = ("ok", *BAD, "cancelled", "skipped")

#: The status for each error that reports the end of a worker; subclasses come first.
_ENDS: tuple[tuple[type[BaseException], Status], ...] = (
    (TaskOutOfMemoryError, "oom"),
    (TaskTimeoutError, "timeout"),
    (TaskCrashedError, "crashed"),
    (TaskKilledError, "killed"),
)


class Outcome(Value):
    """The outcome of one task.

    Attributes:
        key: the text that identifies the task.
        index: the place of the item in the input, from 0.
        status: "ok", "failed", "oom", "crashed", "killed", "timeout", "cancelled" or
            "skipped".
        value: the value that the function returned; None without one.
        error: the error that the task has instead of a value; None with a value.
        traceback: the traceback of the error, as text; empty without one.
        attempts: how often the task was started.
        peak_memory: the most bytes that the worker had resident during the task,
            without pages of files and without `shared_memory`, but with the copy of
            its value; None for threads, for tasks below a millisecond, and where the
            system does not report it.
        shared_memory: bytes of the large arguments of the task that lie in memory which
            processes share, and that are there once for all tasks; None for executors
            other than the pool of processes.
        wall: seconds that the last attempt took; if the task did not end, as after a
            timeout or a kill, seconds since it was submitted.
        cpu: seconds of CPU time that the task took; 0 if it did not end.
        waited: seconds in which the task was ready to run but had no CPU, as others had
            it or a quota was used up; 0 where that is not known, as for threads, and
            for a task after one of less than a millisecond (Linux).
        worker: the process or thread that ran the task.
    """

    key: str
    index: int
    status: Status
    value: Any
    error: BaseException | None
    traceback: str
    attempts: int
    peak_memory: int | None
    shared_memory: int | None
    wall: float
    cpu: float
    waited: float
    worker: str

    @property
    def ok(self) -> bool:
        """Whether the task has succeeded, now or at an earlier start."""
        return self.status in GOOD

    @property
    def message(self) -> str:
        """The type and the text of the error; empty without an error."""
        if self.error is None:
            return ""
        if type(self.error) is CoresizeError:  # from the journal: has the type already
            return str(self.error)
        name = type(self.error).__name__
        try:
            return f"{name}: {self.error}"
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - str() calls the user's code
            return name


def status_of(error: BaseException) -> Status:
    """The status of a task that has this error.

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
# The report of a batch, as values, one line, or JSON. Pure.


class BatchReport(Value):
    """The state of a batch, during the batch or at its end.

    Attributes:
        done: number of tasks that have ended, with those that a resume skipped.
        total: number of all tasks; None if the input has no length.
        counts: number of tasks by status.
        failed: number of tasks that have failed.
        retries: how often a task ran again because it had failed.
        elapsed: seconds since the start.
        rate: tasks per second, without skipped tasks.
        startup: seconds until the first task began.
        workers: (seconds since the start, number of workers) at each change.
        kills: workers killed for memory, whether or not their tasks succeeded later.
        evictions: how often a task was ended before the kernel would kill a process.
        need: bytes that a task may take, as learned; None if that was not requested.
        peak_memory: the most bytes that one task took; None if it was not measured.
        line: a summary in one line.
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
    def exit_code(self) -> int:
        """The status for ``sys.exit()``, the same as that of ``coresize batch``.

        0: all tasks are ok. 75: the batch was stopped, and the same program goes on.
        12: memory ran out for a task. 1: tasks have failed in another way.
        """
        unfinished = self.total is not None and self.done < self.total
        if unfinished or self.counts.get("cancelled"):
            code = ExitCode.CONTINUE
        elif self.counts.get("oom"):
            code = ExitCode.OUT_OF_MEMORY
        else:
            code = ExitCode.FAILED if self.failed else ExitCode.OK
        return int(code)

    @property
    def startup_share(self) -> float:
        """The start-up as a part of the elapsed time, 0 to 1."""
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
            kills = format_count(self.kills, "kill")
            parts.append(f"{kills}, {format_count(self.evictions, 'eviction')}")
        if self.peak_memory:
            parts.append(f"peak {format_bytes(self.peak_memory)}")
        return " | ".join(parts)

    def as_json(self) -> str:
        """The report as JSON, for programs."""
        return json.dumps({**self.as_dict(), "startup_share": self.startup_share})


#: The smallest part of the time for which the start-up is mentioned.
_WORTH = 0.05
