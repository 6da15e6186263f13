"""A mark of the running task that no environment drops: a limit without effect.

A subprocess that is given an environment of its own, and a mere fork, do not show the
variable of `orphans`. And a start time does not tell for sure during which task a
process was started: the kernel counts in ticks, and the parent learns of the end of a
task later than the worker. But a process passes its resource limits on to all that it
starts, and /proc shows them (setrlimit(2), proc(5), /proc/PID/limits).

So before each task, a worker sets a limit of its own to a number that names the worker
and the task. The limit is RLIMIT_RTTIME, in microseconds, which bounds only processes
with a realtime policy. The numbers are above 10^18, so the limit bounds no process. A
limit that the user has set stays as it is.

    bit 62: set      bit 61: see below
    bits 60 to 32: the worker      bits 31 to 0: the task

The same number decides between a worker and its parent who makes a call that the worker
was given ahead. A worker that waits inside a call cannot be asked, and reads of its
socket what the kernel has. But prlimit(2) sets a limit and returns the one before, as
one step. The parent puts a number with bit 61 in place (`recall`), and learns of which
task the number before was. The worker does the same before each task: it either comes
first, and the parent learns that the task has begun; or it finds the parent's number,
and begins no task after the one that this number tells.
"""

from __future__ import annotations

import os
import sys

from coresize import processes
from coresize.host import MARK


try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: The limit, which only Linux has.
_RTTIME: int = getattr(resource, "RLIMIT_RTTIME", 15)

#: The title of the limit in /proc/PID/limits; the soft limit follows.
_TITLE = "Max realtime timeout"

#: The bit that all our numbers have, and the bits for the number of the task.
_OURS, _BITS = 1 << 62, 32
_TASKS = 1 << _BITS

#: The bit of a number that the parent has put in place.
_RECALLED = 1 << 61

#: The bits of a program and of its worker in the name of a worker.
_PROGRAMS, _WORKERS = 1 << 13, 1 << 16


def setter() -> Callable[[int], int | None]:
    """A function that notes the number of the task that this worker begins.

    It returns None; or, if the parent has recalled tasks since the last one, the number
    after which no task may begin. The function does nothing where there is no such
    limit, or where the user has set it.
    """
    mark = os.environ.get(MARK, "")
    if (
        not mark
        or not hasattr(resource, "prlimit")
        or not sys.platform.startswith("linux")
    ):
        return _note_nothing
    worker, change = _worker(mark), resource.prlimit
    try:
        soft, hard = resource.getrlimit(_RTTIME)
    except (OSError, ValueError):  # a sandbox does not know the limit
        return _note_nothing
    free = resource.RLIM_INFINITY
    if hard != free or (soft != free and soft < _OURS):
        return _note_nothing

    def begin(number: int) -> int | None:
        try:
            before, _ = change(0, _RTTIME, (worker + number % _TASKS, hard))
        except (OSError, ValueError):  # a sandbox or a task has forbidden it
            return None
        if before < _OURS or not before & _RECALLED:
            return None
        return before % _TASKS

    begin(0)
    return begin


def _note_nothing(_number: int) -> None:
    """Leave the limit as it is."""


def recall(pid: int, mark: str, number: int) -> int | None:
    """Let a worker begin no task after the one that it is making.

    The worker has to be told where the tasks begin that it may make again.

    Args:
        pid: the worker, which has not been waited for.
        mark: the mark of the worker.
        number: the number of the task that it is making, as far as is known.

    Returns:
        The number of the last task that the worker has begun, or may begin; None if
        nothing is recalled: the worker shows no number, or must not be asked.
    """
    worker = _worker(mark)
    try:
        soft, hard = resource.prlimit(pid, _RTTIME)
        if not 0 <= soft - worker < _TASKS:
            return None
        new = worker | _RECALLED | number % _TASKS
        before, _ = resource.prlimit(pid, _RTTIME, (new, hard))
    except (AttributeError, OSError, ValueError):
        return None
    begun = before % _TASKS  # it may have begun others meanwhile
    return number + (begun - number) % _TASKS if is_since(begun, number) else number


def task_of(pid: int, mark: str) -> int | None:
    """The number of the task during which a process was started.

    Args:
        pid: the process.
        mark: the mark of the worker, from `orphans.new`.

    Returns:
        The number, modulo 2^32; None if the process shows no number of this worker.
    """
    for line in processes.read(pid, "limits").split("\n"):
        soft = line.removeprefix(_TITLE).split()[:1]
        if line.startswith(_TITLE) and soft and soft[0].isdigit():
            number = (int(soft[0]) & ~_RECALLED) - _worker(mark)
            return number if 0 <= number < _TASKS else None
    return None


def is_since(number: int, first: int) -> bool:
    """Whether a task's number is that of a task or of a later one, modulo 2^32.

    >>> is_since(7, 7), is_since(6, 7), is_since(1, 2**32 - 1)
    (True, False, True)
    """
    return (number - first) % _TASKS < _TASKS // 2


def _worker(mark: str) -> int:
    """The number that names a worker, by the last part of its mark.

    >>> _worker("/00000000000000ff/2/") == _worker("/0a/1/00000000000000ff/2/")
    True
    """
    program, number = mark.strip("/").split("/")[-2:]
    name = int(program, 16) % _PROGRAMS * _WORKERS + int(number) % _WORKERS
    return _OURS + name * _TASKS
