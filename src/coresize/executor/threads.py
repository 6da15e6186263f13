"""The pool of threads that people use, for tasks that mostly wait."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from concurrent.futures.thread import BrokenThreadPool
from typing import TYPE_CHECKING

from coresize.arguments import check_callable, check_count
from coresize.detection import available
from coresize.executor import sizing
from coresize.executor.mapping import MapExecutor
from coresize.executor.serial import Caller, Submitting
from coresize.executor.traits import Traits, of_threads


if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any, ParamSpec, TypeVar

    from coresize.executor.mapping import Source
    from coresize.processes.exit_hooks import Unfinished

    P = ParamSpec("P")
    T = TypeVar("T")

_log = logging.getLogger("coresize")

#: What the standard library takes: some for waiting, and no more than this.
_MORE, _MOST = 4, 32


class ThreadPoolExecutor(MapExecutor, concurrent.futures.ThreadPoolExecutor):
    """A pool of threads for tasks that mostly wait; the standard library's, sized.

    With CORESIZE_PARALLEL=0 there are none, and each call is made in the caller.

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
        if queue_size is not None:
            check_count("queue_size", queue_size, 1, ", or None")
        check_callable("initializer", initializer)
        usual = None
        if max_workers is None and cpu_share is None:
            usual = min(_MOST, available.available_cores() + _MORE)
        plan = sizing.plan(max_workers, cpu_share=cpu_share, usual=usual)
        super().__init__(plan.workers, thread_name_prefix, initializer, initargs)
        #: What makes the calls where there are to be no threads.
        self._caller: Caller | None = None
        if sizing.is_serial(plan):
            self._caller = Caller(initializer, initargs, BrokenThreadPool)
        self._maps: set[Unfinished] = set()
        #: Why not all threads could be started; empty where nothing was refused.
        self._refused = ""
        self._room: threading.Semaphore | None = None
        self._most_running = None
        if queue_size is not None:
            self._most_running = queue_size + plan.workers
            self._room = threading.Semaphore(self._most_running)

    @property
    def traits(self) -> Traits:
        """What this executor is like."""
        if self._caller is not None:
            return self._caller.traits
        return of_threads(self._max_workers)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call; with ``queue_size`` wait until there is room for it.

        Raises:
            RuntimeError: the executor is shut down.
        """
        if self._caller is not None:
            return self._caller.submit(fn, args, kwargs)
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

    @property
    def _unfinished(self) -> set[Unfinished]:
        return self._maps if self._caller is None else self._caller.unfinished

    def _calls(
        self, fn: Callable[..., Any], *, chunksize: int | None, buffersize: int | None
    ) -> Source:
        del chunksize, buffersize  # they are submitted one by one
        if self._caller is not None:
            return self._caller.calls(self, fn)
        # Without waiting for a thread: a map has a bound of its own.
        return Submitting(
            self,
            concurrent.futures.ThreadPoolExecutor.submit,
            fn,
            ahead=2 * self._max_workers,
            most_running=self._most_running,
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
            self._end_maps(cancel=cancel_futures)
        finally:
            if self._caller is not None:
                self._caller.close()
            super().shutdown(wait, cancel_futures=cancel_futures)
