"""How a worker ended, as the error that its task gets. Pure."""

from __future__ import annotations

import signal

from coresize.detection.parse import format_bytes
from coresize.errors import (
    TaskCrashedError,
    TaskKilledError,
    TaskOutOfMemoryError,
    TaskTimeoutError,
)
from coresize.processes import exits


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.model import OutOfMemory

#: Signals that others send; all the rest are faults of the process itself.
_SENT = frozenset(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
    if hasattr(signal, name)
)


_FEWER = "with memory= tasks start while they fit; fewer workers leave more for each"


def verdict(
    exit_code: int | None,
    *,
    peak: int,
    attempts: int,
    out_of_memory: OutOfMemory = "no",
    limit: str = "",
    shared_memory: int | None = None,
) -> TaskKilledError:
    """What became of the task whose worker ended.

    Args:
        exit_code: of the worker; minus the signal that ended it.
        peak: bytes, the most that was seen of it.
        attempts: how often the task was started.
        out_of_memory: what the kernel's counters say.
        limit: a sentence about the memory limit.
        shared_memory: bytes of /dev/shm, None where there is none.
    """
    seen = f", with {format_bytes(peak)} of memory" if peak else ""
    name = exits.signal_name(-(exit_code or 0))
    cls, text = TaskKilledError, f"its worker was ended by {name}{seen}"
    if exit_code is None or exit_code >= 0:
        cls = TaskCrashedError
        text = f"its worker ended itself, exit status {exit_code}"
    elif exits.was_killed(exit_code) and out_of_memory != "no":
        probably = "probably " if out_of_memory == "probably" else ""
        cls = TaskOutOfMemoryError
        text = f"its worker was {probably}killed for memory{seen}; {limit}; {_FEWER}"
    elif -exit_code == getattr(signal, "SIGBUS", None) and shared_memory is not None:
        cls = TaskCrashedError
        text = f"{text}; /dev/shm has {format_bytes(shared_memory)}"
    elif -exit_code not in _SENT:
        cls = TaskCrashedError
    times = f" (attempt {attempts})" if attempts > 1 else ""
    return cls(
        f"the task did not end: {text}{times}",
        exit_code=exit_code,
        peak_memory=peak,
        attempts=attempts,
    )


def lost(
    error: BaseException,
    *,
    peak: int,
    attempts: int,
    out_of_memory: OutOfMemory,
    limit: str,
) -> TaskOutOfMemoryError:
    """What a task gets that failed as the kernel killed what it had started.

    Args:
        error: what it raised.
        peak: bytes, the most that was seen of it.
        attempts: how often the task was started.
        out_of_memory: "yes" or "probably".
        limit: a sentence about the memory limit.
    """
    seen = f", with {format_bytes(peak)} of memory" if peak else ""
    probably = "probably " if out_of_memory == "probably" else ""
    times = f" (attempt {attempts})" if attempts > 1 else ""
    return TaskOutOfMemoryError(
        f"the task failed with {type(error).__name__}: a process that it had started "
        f"was {probably}killed for memory{seen}; {limit}; {_FEWER}{times}",
        exit_code=exits.KILLED,
        peak_memory=peak,
        attempts=attempts,
    )


def overdue(seconds: float, *, peak: int, attempts: int) -> TaskTimeoutError:
    """What a task gets that took longer than it may."""
    return TaskTimeoutError(
        f"the task took longer than {seconds:g} s, and its worker was ended",
        exit_code=exits.KILLED,
        peak_memory=peak,
        attempts=attempts,
    )


def confused(attempts: int) -> TaskCrashedError:
    """What a task gets whose worker has answered something that it was not asked."""
    return TaskCrashedError(
        "the task did not end: its worker has sent something else than its answers, as "
        "where a task writes to a descriptor that it has not opened, or forks and lets "
        "both go on; the worker was ended",
        exit_code=exits.KILLED,
        peak_memory=0,
        attempts=attempts,
    )


#: What counts less: a kill may be bad luck, but less so of the only worker.
_KILL, _KILL_ALONE = 0.05, 0.3
_STRAY = 0.005


def weight(code: int | None, *, alone: bool, memory: bool = True) -> float:
    """How much the end of a worker that was not ready counts as a failure.

    Who ends by itself will do so again; who crashes, or is killed for memory, may. A
    kill by somebody else says nothing of the next start.

    Args:
        code: its exit code.
        alone: there was no other worker.
        memory: the kernel has killed something for memory meanwhile.
    """
    if code is None or code >= 0:
        return 1.0
    if not memory and -code in _SENT:
        return _STRAY
    return _KILL_ALONE if alone else _KILL


def unready(code: int | None, *, advice: str) -> str:
    """How a worker ended that was not ready, and what may help.

    Args:
        code: its exit code.
        advice: what to do where it ended itself.
    """
    if code is not None and code < 0:
        name = exits.signal_name(-code)
        return f"by {name}; is there memory for one, and for what it loads?"
    return f"exit code {code}; {advice}"
