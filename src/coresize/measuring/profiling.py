"""Run something once and measure what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize.arguments import check_count
from coresize.measuring.calls import measure_call
from coresize.measuring.runs import summarize
from coresize.processes import transfer


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from coresize.planning.profiles import TaskProfile


def profile_task(
    function: Callable[..., Any],
    *args: Any,
    repeat: int = 1,
    method: str | None = None,
    **kwargs: Any,
) -> TaskProfile:
    """What one task needs: bytes of memory, seconds, threads; by running it.

    The task runs in a fresh process that inherits nothing (start method spawn: the
    module that starts it needs its ``if __name__ == "__main__":``), with all that it
    starts itself. Native memory counts, pages of files that the kernel can drop do not,
    what several processes share counts once, and a peak of a few milliseconds is seen.
    What the task returns is thrown away.

    Args:
        function: what to run; it must be picklable, or cloudpickle be installed.
        args: its arguments.
        repeat: how many times, each in a process of its own; the largest peak counts,
            and ``peaks`` has all. For a function with an argument ``repeat`` or
            ``method`` of its own, pass a `functools.partial`.
        method: "cgroup" (needs a cgroup hierarchy that may be written), "proc" (Linux)
            or "psutil" (elsewhere: what each process holds alone, sampled; short peaks
            are missed except on Windows); None takes the first that works here.
        kwargs: its keyword arguments.

    Raises:
        ConfigError: repeat or method is not valid, or the method does not work here.
        TransferError: the function, an argument or an error of the task cannot be
            pickled; with its text.
        TaskKilledError: the process ended before the task did, with the memory it had:
            `coresize.errors.TaskOutOfMemoryError` where the kernel killed it for that.
        BaseException: whatever the task raises, with its traceback as the cause.

    Sources: proc(5), VmHWM and smaps_rollup; kernel
    Documentation/admin-guide/cgroup-v2.rst, "memory.peak".

    >>> from coresize import profile_task
    >>> profile = profile_task(bytearray, 50_000_000)
    >>> 48_000_000 < profile.peak_memory < 53_000_000
    True
    """
    rounds = range(check_count("repeat", repeat, 1))
    call = transfer.dump_call(function, args, kwargs)
    alone = transfer.dump_call(function, (), {})
    return summarize([measure_call(alone, call, method) for _ in rounds])
