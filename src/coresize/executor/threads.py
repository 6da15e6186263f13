"""The pool of threads that people use, for tasks that mostly wait."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from typing import TYPE_CHECKING

from coresize.detection import available
from coresize.errors import ConfigError
from coresize.executor import sizing
from coresize.executor.chunks import Submitting
from coresize.executor.mapping import values_of
from coresize.executor.serial import SerialWhenOff


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from typing import Any, ParamSpec, TypeVar

    from coresize.processes.exit_hooks import Unfinished

    P = ParamSpec("P")
    T = TypeVar("T")

_log = logging.getLogger("coresize")

#: What the standard library takes: some for waiting, and no more than this.
_MORE, _MOST = 4, 32


class ThreadPoolExecutor(SerialWhenOff, concurrent.futures.ThreadPoolExecutor):
    """A pool of threads for tasks that mostly wait; the standard library's, sized.

    With CORESIZE_PARALLEL=0 this makes a `SerialExecutor`.

    Args:
        max_workers: threads; None is what the settings say (CORESIZE_WORKERS), else the
            cores that this process may use + 4, at most 32, or with ``cpu_share`` the
            cores / share, at most 32 or five a core.
        thread_name_prefix: what the names of the threads begin with.
        initializer: what each thread calls first.
        initargs: its arguments.
        cpu_share: the part of its time that a task computes, such as 0.05.
        queue_size: tasks that may wait for a thread; then ``submit`` waits.

    Raises:
        ConfigError: an argument or a setting is not valid.

    Source of the default: CPython, concurrent.futures.ThreadPoolExecutor.

    >>> from coresize import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(cpu_share=0.05) as pool:
    ...     list(pool.map(abs, [-1, -2]))
    [1, 2]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        cpu_share: float | None = None,
        queue_size: int | None = None,
    ) -> None:
        if queue_size is not None and queue_size < 1:
            raise ConfigError("queue_size", queue_size, "a number above 0, or None")
        usual = None
        if max_workers is None and cpu_share is None:
            usual = min(_MOST, available.available_cores() + _MORE)
        plan = sizing.plan(max_workers, cpu_share=cpu_share, usual=usual)
        super().__init__(plan.workers, thread_name_prefix, initializer, initargs)
        self._maps: set[Unfinished] = set()
        #: Why not all threads could be started; empty where nothing was refused.
        self._refused = ""
        self._room: threading.Semaphore | None = None
        self._most_running = None
        if queue_size is not None:
            self._most_running = queue_size + plan.workers
            self._room = threading.Semaphore(self._most_running)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call; with ``queue_size`` wait until there is room for it.

        Raises:
            RuntimeError: the executor is shut down.
        """
        room = self._room
        if room is None:
            return super().submit(fn, *args, **kwargs)
        room.acquire()
        try:
            future = super().submit(fn, *args, **kwargs)
        except BaseException:
            room.release()
            raise
        future.add_done_callback(lambda _: room.release())
        return future

    def _adjust_thread_count(self) -> None:
        """Start a thread for what was submitted; those that are there are enough.

        The standard library raises where none can be started, and has taken the task
        all the same. Without a thread it is taken back. Called with its lock held.
        """
        try:
            super()._adjust_thread_count()
        except (RuntimeError, MemoryError) as error:
            if not self._threads:
                self._work_queue.get_nowait()
                raise
            if not self._refused:
                _log.warning("threads cannot be started now: %s", error)
            self._refused = str(error) or repr(error)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The values of a function over items, in their order, as they are asked for.

        Args:
            fn: the function.
            iterables: the arguments, taken side by side.
            timeout: seconds from now until which values are waited for.
            chunksize: has nothing to do with threads.
            buffersize: items that may be taken ahead of the reader; None takes up to
                4096, or 32 MiB of arguments and results.

        Raises:
            ConfigError: buffersize is not above 0.
            TimeoutError: a value is not there in time.
        """
        del chunksize
        # Without waiting for a thread: a map has a bound of its own.
        calls = Submitting(
            self,
            concurrent.futures.ThreadPoolExecutor.submit,
            fn,
            ahead=2 * self._max_workers,
            most_running=self._most_running,
        )
        return values_of(
            self, self._maps, calls, iterables, timeout=timeout, buffersize=buffersize
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more tasks, and end the threads when all are done.

        Of a map all of the input is taken first, unless it may be endless (it has no
        length) and a part was read.

        Args:
            wait: return when that is so.
            cancel_futures: cancel the tasks that have not begun.
        """
        try:
            for unfinished in [] if cancel_futures else list(self._maps):
                unfinished.finish()
        finally:
            super().shutdown(wait, cancel_futures=cancel_futures)
