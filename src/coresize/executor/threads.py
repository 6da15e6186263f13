"""The public pool of threads, for tasks that mostly wait."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from concurrent.futures.thread import BrokenThreadPool
from typing import TYPE_CHECKING

from coresize.arguments import check_callable, check_count, check_sync
from coresize.detection import available
from coresize.executor import sizing
from coresize.executor.jobs import owned
from coresize.executor.mapping import MapExecutor
from coresize.executor.serial import Caller, Submitting
from coresize.executor.traits import Traits, of_threads
from coresize.processes.ownership import Owner


if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any, ParamSpec, TypeVar

    from coresize.executor.mapping import Source
    from coresize.processes.exit_hooks import Unfinished

    P = ParamSpec("P")
    T = TypeVar("T")

_log = logging.getLogger("coresize")

#: As in the standard library: threads beside one per core, and the most threads.
_MORE, _MOST = 4, 32


class ThreadPoolExecutor(MapExecutor, concurrent.futures.ThreadPoolExecutor):
    """The standard library's pool of threads, sized; for tasks that mostly wait.

    With CORESIZE_PARALLEL=0 there are no threads, and each call is made in the caller.

    Args:
        max_workers: the number of threads; None takes it from the settings
            (CORESIZE_WORKERS). Without a setting it is the cores that this process may
            use + 4, at most 32; or with ``cpu_share`` the cores / share, at most 32 or
            five a core.
        thread_name_prefix: the beginning of the threads' names.
        initializer: a function that each thread calls first.
        initargs: the arguments of the initializer.
        cpu_share: the part of its time that a task computes, such as 0.05.
        queue_size: tasks that may wait for a thread; with more, ``submit`` waits.

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
        plan = sizing.plan(max_workers, cpu_share=cpu_share, usual=usual, threads=True)
        super().__init__(plan.workers, thread_name_prefix, initializer, initargs)
        #: Makes the calls if the pool is to have no threads.
        self._caller: Caller | None = None
        if sizing.is_serial(plan):
            self._caller = Caller(initializer, initargs, BrokenThreadPool)
        self._maps: set[Unfinished] = set()
        self._owner = Owner()
        #: Why not all threads could be started; empty if none was refused.
        self._refused = ""
        self._room: threading.Semaphore | None = None
        self._most_running = None
        if queue_size is not None:
            self._most_running = queue_size + plan.workers
            self._room = threading.Semaphore(self._most_running)

    @property
    def traits(self) -> Traits:
        """The traits of this executor."""
        if self._caller is not None:
            return self._caller.traits
        return of_threads(self._max_workers)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call; with ``queue_size``, wait until the queue has room for it.

        Raises:
            InheritedError: a parent process has started the threads.
            RuntimeError: the executor is shut down.
            TypeError: the function is ``async def``.
        """
        check_sync(fn)
        if self._caller is not None:
            return self._caller.submit(fn, args, kwargs)
        self._owner.take("pool", used=bool(self._threads))
        room = self._room
        if room is None:
            return owned(super().submit(fn, *args, **kwargs))
        room.acquire()
        try:
            future = owned(super().submit(fn, *args, **kwargs))
        except BaseException:
            room.release()
            raise
        future.add_done_callback(lambda _: room.release())
        return future

    def _adjust_thread_count(self) -> None:
        """Start a thread for a submitted task, or let the present threads run it.

        If no thread can be started, the standard library raises an error although the
        task is in its queue. If the pool has no thread at all, the task is taken back.
        This is called with the pool's lock held.
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
        del chunksize, buffersize  # calls are submitted one by one
        if self._caller is not None:
            return self._caller.calls(self, fn)
        self._owner.take("pool", used=bool(self._threads))
        # The base's method does not wait for the queue: a map has its own bound.
        return Submitting(
            self,
            concurrent.futures.ThreadPoolExecutor.submit,
            fn,
            ahead=2 * self._max_workers,
            most_running=self._most_running,
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more tasks, and end the threads when all tasks are done.

        First, each map takes the rest of its input. An input without a length may be
        endless: if its values were read in part, no more of it is taken.

        Args:
            wait: return only when the threads have ended.
            cancel_futures: cancel the tasks that have not begun.
        """
        if self._threads and not self._owner.is_here:
            return
        try:
            self._end_maps(cancel=cancel_futures)
        finally:
            if self._caller is not None:
                self._caller.close()
            super().shutdown(wait, cancel_futures=cancel_futures)
