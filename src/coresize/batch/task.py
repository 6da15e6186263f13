"""The code that runs in a worker: it calls the function and measures the call.

Rule 1: every worker imports this module, so the module imports little. Rule 2: an
error of the function returns as an answer, so that no executor, of whatever library,
has to handle it.
"""

from __future__ import annotations

import pickle
import threading
import time
from typing import cast

from coresize import processes
from coresize.processes import nesting, schedstat, transfer
from coresize.processes.memory import read_own


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sized
    from typing import Any, TypeAlias, TypeVar

    from coresize.processes import oom

    _Written = TypeVar("_Written", bound=Sized)

    #: Whether the task has a value; the value, or the error; the traceback; seconds;
    #: seconds of CPU time; seconds of waiting for a CPU; peak memory in bytes; the
    #: worker; the time when the task began.
    Answer: TypeAlias = tuple[
        bool, Any, str, float, float, float, int | None, str, float
    ]

#: Seconds. A shorter task cannot fill much memory and is not measured, since reading
#: the kernel's counts would take a good part of that time.
_QUICK = 0.001

#: Whether VmHWM of this process must be reset before the next task.
_stale = True

#: Whether this process has removed the program's variables from its environment.
_forgotten = False


class Task:
    """A function of a batch, to be called with one item.

    Args:
        func: the function.
        encode: a function that encodes the value for the journal; None without one.
        crosses: the task runs in another process, which sends the answer.
        watches: find out whether a process of the task was killed for memory; a pool of
            coresize does that itself.
        sent: what stands for the function where the task is pickled; None for the
            function itself.
    """

    __slots__ = ("crosses", "encode", "func", "sent", "watches")

    def __init__(
        self,
        func: Callable[[Any], object],
        encode: Callable[[object], str | bytes] | None,
        *,
        crosses: bool,
        watches: bool = False,
        sent: object = None,
    ) -> None:
        self.func = func
        self.encode = encode
        self.crosses = crosses
        self.watches = watches
        self.sent = func if sent is None else sent

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[object, ...]]:
        told = self.sent, self.encode, self.crosses, self.watches, processes.own()
        return _task, told

    def __call__(self, item: Any) -> Answer:
        """Call the function with an item; the answer has its value or its error."""
        began, clock, pid = time.time(), time.perf_counter, processes.own()
        cpu_clock = time.process_time if self.crosses else time.thread_time
        mark = _reset() if self.crosses else None
        kills = _watch() if self.watches else None
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
        processes.end_if_forked(pid)
        wall, cpu = clock() - start, cpu_clock() - cpu
        if kills is not None:
            value = _explained(kills, value, good=good, wall=wall)
        if self.crosses and not good:
            value = transfer.dump_error(cast("BaseException", value))
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
    watches: bool,  # noqa: FBT001 - as above
    program: int,
) -> Task:
    """Rebuild a task; a process other than that of the batch becomes a worker."""
    global _forgotten  # noqa: PLW0603 - it belongs to the process
    if not _forgotten and processes.own() != program:
        nesting.forget_program()
        _forgotten = True
    return Task(func, encode, crosses=crosses, watches=watches)


def _watch() -> oom.TaskKills:
    from coresize.processes import oom  # the workers of our pools do not need it

    return oom.TaskKills()


#: Seconds. In a shorter time no process is started, fills the memory and is killed.
_INSTANT = 0.001


def _explained(kills: oom.TaskKills, value: Any, *, good: bool, wall: float) -> Any:
    """The value or the error of a task; another error if a process of it was killed."""
    if wall < (_LONG if good else _INSTANT):
        return value
    verdict = kills.take(None if good else value)
    if verdict == "no":
        return value
    from coresize.executor.pool import exits

    if good:
        exits.tell_unneeded(verdict)
        return value
    return exits.explained(value, peak=0, attempts=1, out_of_memory=verdict)


#: Seconds. After a success, a shorter task is not looked at: its kill is only a note.
_LONG = 0.1


def _who(crosses: bool) -> str:  # noqa: FBT001 - of one place
    return str(processes.own()) if crosses else threading.current_thread().name


def _reset() -> schedstat.Mark | None:
    """Reset the counts, except after a quick task, which has not read them.

    Returns:
        The mark from which waiting for a CPU is counted; None without a reset.
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
    memory = read_own()
    return None if memory is None else memory.anonymous_peak


# --- How values are written -----------------------------------------------------


def to_json(value: object) -> str:
    """A value as JSON; reading it back gives the same value, but lists for tuples.

    Raises:
        TransferError: JSON cannot represent the value, or it is too long.
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
    """A value as a pickle.

    Raises:
        TransferError: the pickle is too long for a journal.
    """
    return checked(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


#: The most bytes of an encoded value: SQLite's limit for a row (SQLITE_MAX_LENGTH,
#: 10**9), less the other columns. The worker refuses a longer value before sending it,
#: which fails this task alone.
LONGEST = 995_000_000


def checked(written: _Written) -> _Written:
    """An encoded value, after a check of its length.

    Raises:
        TransferError: the value is too long.
    """
    if len(written) > LONGEST:
        raise transfer.TransferError(too_long(len(written), LONGEST))
    return written


def too_long(size: int, limit: int) -> str:
    """The message for a value that is too long for a journal."""
    return (
        f"the result is too long for the journal ({size} bytes as written, of at most "
        f"{limit}): write it to a file in the task, and return the path of that"
    )


#: The function that encodes a value, by serializer.
ENCODERS: dict[str, Callable[[object], str | bytes]] = {
    "json": to_json,
    "pickle": to_pickle,
}
