"""What runs in the place where a task runs: the function, measured, whatever it does.

Rule 1: it is imported in every worker, so it imports little. Rule 2: what a function
raises comes back as an answer: so that the executor in between, of whatever library,
has only good news to carry.
"""

from __future__ import annotations

import pickle
import threading
import time

from coresize import processes
from coresize.processes import nesting, schedstat, transfer
from coresize.processes.memory import read_memory


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sized
    from typing import Any, TypeAlias, TypeVar

    _Written = TypeVar("_Written", bound=Sized)

    #: Whether there is a value; the value, or the error; a traceback; seconds; seconds
    #: of CPU time; seconds of waiting for a CPU; bytes; who; when it began.
    Answer: TypeAlias = tuple[
        bool, Any, str, float, float, float, int | None, str, float
    ]

#: What takes less than this cannot fill much memory, and is not measured: to ask the
#: kernel would take a part of that.
_QUICK = 0.001

#: Whether VmHWM of this process is to be reset before the next task.
_stale = True

#: Whether this process knows that it is a worker, of whatever executor.
_forgotten = False


class Task:
    """A function of a batch, to be called with one item.

    Args:
        func: the function.
        encode: how a value is written, None for not at all.
        crosses: it runs in a process of its own, from which answers are sent.
    """

    __slots__ = ("crosses", "encode", "func")

    def __init__(
        self,
        func: Callable[[Any], object],
        encode: Callable[[object], str | bytes] | None,
        *,
        crosses: bool,
    ) -> None:
        self.func = func
        self.encode = encode
        self.crosses = crosses

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[object, ...]]:
        return _task, (self.func, self.encode, self.crosses, processes.own())

    def __call__(self, item: Any) -> Answer:
        """Call it; the answer says what came of it."""
        began, clock, pid = time.time(), time.perf_counter, processes.own()
        cpu_clock = time.process_time if self.crosses else time.thread_time
        mark = _reset() if self.crosses else None
        good, text = True, ""
        start, cpu = clock(), cpu_clock()
        try:
            with nesting.task():
                value = self.func(item)
            if self.encode is not None:
                value = self.encode(value)
        except KeyboardInterrupt as error:
            processes.end_if_forked(pid, error)
            raise
        except BaseException as error:  # noqa: BLE001 - it is the answer
            processes.end_if_forked(pid, error)
            good, value, text = False, error, transfer.traceback_of(error)
            if self.crosses:
                value = transfer.dump_error(error)
        processes.end_if_forked(pid)
        wall, cpu = clock() - start, cpu_clock() - cpu
        waited, peak = 0.0, None
        if self.crosses and wall >= _QUICK:
            waited, peak = mark.waited(wall) if mark else 0.0, _peak()
        who = _who(self.crosses)
        answer = good, value, text, wall, cpu, waited, peak, who, began
        return answer if good or not self.crosses else transfer.Failure(answer)


def _task(
    func: Callable[[Any], object],
    encode: Callable[[object], str | bytes] | None,
    crosses: bool,  # noqa: FBT001 - as __reduce__ gives it
    program: int,
) -> Task:
    """A task where it runs; in another process than the batch, that is a worker."""
    global _forgotten  # noqa: PLW0603 - it belongs to the process
    if not _forgotten and processes.own() != program:
        nesting.forget_program()
        _forgotten = True
    return Task(func, encode, crosses=crosses)


def _who(crosses: bool) -> str:  # noqa: FBT001 - of one place
    return str(processes.own()) if crosses else threading.current_thread().name


def _reset() -> schedstat.Mark | None:
    """Count from here on, but after a quick task, which has not read the counts.

    Returns from where on waiting for a CPU counts; None where that is not asked.
    """
    global _stale  # noqa: PLW0603 - it belongs to the process
    if not _stale:
        return None
    processes.reset_peak("self")
    _stale = False
    return schedstat.Mark()


def _peak() -> int | None:
    global _stale  # noqa: PLW0603 - it belongs to the process
    _stale = True
    memory = read_memory()
    return None if memory is None else memory.anonymous_peak


# --- How values are written -----------------------------------------------------


def to_json(value: object) -> str:
    """A value as JSON, which comes back as it was, but tuples as lists.

    Raises:
        TransferError: JSON cannot hold it.
    """
    import json

    try:
        text = json.dumps(value, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise transfer.TransferError(_UNWRITTEN.format(error)) from None
    if not _keeps_keys(value):
        reason = "of keys of mappings it keeps only texts"
        raise transfer.TransferError(_UNWRITTEN.format(reason))
    return checked(text)


_UNWRITTEN = (
    "the result cannot be written to the journal as JSON ({}): return plain values, or "
    'choose serializer="pickle"'
)


def _keeps_keys(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(
            map(_keeps_keys, value.values())
        )
    return not isinstance(value, (list, tuple)) or all(map(_keeps_keys, value))


def to_pickle(value: object) -> bytes:
    """A value, pickled.

    Raises:
        TransferError: no journal can hold it.
    """
    return checked(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


#: Bytes of a value as written that a journal can hold: SQLite's limit for a row
#: (SQLITE_MAX_LENGTH, 10**9), less what else is in it. What is longer is told by who
#: ran the task, before it travels, and costs this task alone.
LONGEST = 995_000_000


def checked(written: _Written) -> _Written:
    """A value as written, which is not too long.

    Raises:
        TransferError: it is.
    """
    if len(written) > LONGEST:
        raise transfer.TransferError(too_long(len(written), LONGEST))
    return written


def too_long(size: int, limit: int) -> str:
    """What is said of a value that no journal can hold."""
    return (
        f"the result is too long for the journal ({size} bytes as written, of at most "
        f"{limit}): write it to a file in the task, and return the path of that"
    )


#: How values are written, by serializer.
ENCODERS: dict[str, Callable[[object], str | bytes]] = {
    "json": to_json,
    "pickle": to_pickle,
}
