"""Running a function and measuring what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize.arguments import check_count, check_sync
from coresize.measuring import calls
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
    """Run a task and measure its needs: bytes of memory, seconds, threads.

    The task runs in a fresh process that inherits nothing (start method spawn: the
    calling module needs the guard ``if __name__ == "__main__":``). Processes that the
    task starts are measured with it. Native memory counts; pages of files that the
    kernel can drop do not; memory that several processes share counts once; and a peak
    of a few milliseconds is seen. The return value of the task is dropped.

    As in a pool, large arrays among the arguments and in a `functools.partial` lie in
    memory that processes share: they are no part of ``peak_memory``, and the profile
    tells their bytes as ``shared_memory``, which a plan counts once for all workers. If
    each task has arrays of its own, set ``shared_memory`` to 0, and add them to
    ``peak_memory``.

    BLAS, OpenMP and similar libraries get one thread, as in a pool that has a worker
    for each core. Variables such as OMP_NUM_THREADS that the user has set stay; the
    profile tells the number in ``thread_limit``. A task of fewer than 50 milliseconds
    is called again in its process, for 0.1 seconds, because a short call alone does not
    show whether it computes or waits; an error of these calls is dropped.

    Args:
        function: the function to run; it must be picklable, or cloudpickle must be
            installed.
        args: the arguments of the function.
        repeat: the number of runs, each in a process of its own; the largest peak
            counts, and ``peaks`` has all. If the function has an argument ``repeat`` or
            ``method`` of its own, pass a `functools.partial`.
        method: "cgroup" (needs a writable cgroup hierarchy), "proc" (Linux) or "psutil"
            (elsewhere: samples of the memory that each process holds alone, which miss
            short peaks except on Windows); None takes the first that works here.
        kwargs: the keyword arguments of the function.

    Raises:
        ConfigError: ``repeat`` or ``method`` is not valid, or the method does not work
            here.
        TransferError: the function, an argument or an error of the task cannot be
            pickled.
        TaskKilledError: the process ended before the task did; the error has its peak
            memory. It is a `coresize.errors.TaskOutOfMemoryError` if the kernel killed
            the process because memory ran out.
        BaseException: any error that the task raises, with its traceback as the cause.

    Sources: proc(5), VmHWM and smaps_rollup; kernel
    Documentation/admin-guide/cgroup-v2.rst, "memory.peak".

    >>> from coresize import profile_task
    >>> profile = profile_task(bytearray, 50_000_000)
    >>> 48_000_000 < profile.peak_memory < 53_000_000
    True
    """
    check_sync(function)
    rounds = range(check_count("repeat", repeat, 1))
    call = calls.packed(function, args, kwargs)
    alone = transfer.dump_call(function, (), {})
    return summarize([measure_call(alone, call, method) for _ in rounds])
