"""Maps that submit calls one by one to any executor, and calls made in the caller."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import TYPE_CHECKING

from coresize.arguments import check_callable, check_sync, check_workers
from coresize.executor.jobs import Failed
from coresize.executor.mapping import MapExecutor
from coresize.executor.traits import PoolState, Traits, of_caller, traits_of
from coresize.processes import exit_hooks, nesting
from coresize.units import estimate


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from coresize.executor.mapping import Args, Source
    from coresize.processes.exit_hooks import Unfinished

    P = ParamSpec("P")
    T = TypeVar("T")

#: Calls of a map that are handed on ahead of the reader, if it is unknown how many the
#: other executor runs at a time.
_AHEAD = 32


class Submitted:
    """A call of a map, submitted to an executor when there is room for its result."""

    def __init__(
        self,
        submit: Callable[..., Future[Any]],
        call: tuple[Any, ...],
        notify: Callable[[], None],
    ) -> None:
        self._submit = submit
        self._call = call
        self._notify = notify
        self._future: Future[Any] | None = None
        self.results: deque[Any] = deque()
        self.answered = self.result_bytes = 0
        self.wanted = True

    def start(self) -> None:
        """See `MapCalls.start`."""
        call, self._call = self._call, ()
        self._future = self._submit(*call)
        self._future.add_done_callback(self._ended)

    def drop(self) -> None:
        """See `MapCalls.drop`."""
        if self._future is not None:
            self._future.cancel()

    def refuse(self, error: Exception) -> None:
        """See `MapCalls.refuse`."""
        self._answer(Failed(CancelledError(str(error))), 0)

    def _ended(self, future: Future[Any]) -> None:
        self._future = None
        if future.cancelled():
            self._answer(Failed(CancelledError()), 0)
            return
        error = future.exception()
        if error is not None:
            self._answer(Failed(error), 0)
        else:
            value = future.result()
            self._answer(value, estimate(value))

    def _answer(self, result: object, size: int) -> None:
        if self.wanted:
            self.results.append(result)
            self.result_bytes = size
        self.answered = 1
        self._notify()


class Submitting:
    """The `Source` of a map that submits each call on its own, to any executor.

    Args:
        executor: the executor; only a weak reference is kept.
        submit: the method of its class that submits a call.
        function: the function that is called.
        ahead: the number of calls that keep all workers busy.
        most_running: the most calls that may be under way; None for any number.
        lazy: each call is made by the reader that asks for its value.
    """

    def __init__(
        self,
        executor: Executor,
        submit: Callable[..., Future[Any]],
        function: Callable[..., Any],
        *,
        ahead: int,
        most_running: int | None = None,
        lazy: bool = False,
    ) -> None:
        self._executor = weakref.ref(executor)
        self._method = submit
        self._function = function
        self.chunksize: int | None = None
        self.ahead = ahead
        self.most_running = most_running
        self.lazy = lazy

    def size(self, each: float) -> int:
        """See `Source.size`."""
        del each
        return 1

    def make(
        self, items: list[Args], notify: Callable[[], None]
    ) -> tuple[Submitted, int, int]:
        """See `Source.make`."""
        args = items[0]
        calls = Submitted(self._submit, (self._function, *args), notify)
        return calls, 1, sum(map(estimate, args))

    def _submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        executor = self._executor()
        if executor is not None:
            return self._method(executor, function, *args)
        return call_here(function, *args)


class OneByOneExecutor(MapExecutor):
    """An executor whose maps submit each call on its own, by its `submit`."""

    def __init__(self) -> None:
        self._maps: set[Unfinished] = set()

    @property
    def _unfinished(self) -> set[Unfinished]:
        return self._maps

    def _calls(
        self, fn: Callable[..., Any], *, chunksize: int | None, buffersize: int | None
    ) -> Source:
        del chunksize, buffersize  # calls are submitted one by one
        slots = traits_of(self).slots
        ahead = _AHEAD if slots is None else 2 * slots
        return Submitting(self, type(self).submit, fn, ahead=ahead)


def call_here(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
    """Make a call in this thread; returns its future, which is done.

    Raises:
        KeyboardInterrupt: the call was interrupted.
        SystemExit: the call ends the program.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    try:
        future.set_result(function(*args, **kwargs))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the future has it
        future.set_exception(error)
    return future


class Caller:
    """Makes each call at once, in the thread that submits it.

    A pool uses a `Caller` in place of its workers if all calls are to be serial.

    Args:
        initializer: a function that is called once, before the first call; or None.
        initargs: the arguments of the initializer.
        error: the class of the error that is raised if the initializer has failed.

    Attributes:
        unfinished: the maps that still have calls to make.
        broken: why no more calls are taken, if the initializer has failed; else False.
    """

    def __init__(
        self,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        error: type[BrokenExecutor] = BrokenExecutor,
    ) -> None:
        self.unfinished: set[Unfinished] = set()
        self.broken: str | bool = False
        self._initializer = initializer
        self._initargs = initargs
        self._error = error
        self._lock = threading.Lock()
        self._closed = False
        _open.add(self)
        exit_hooks.register(_finish, exit_hooks.CALLS)

    def submit(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        """Make a call, and return its future, which is done.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: no more calls are taken.
        """
        self._begin()
        return _run(fn, *args, **kwargs)

    def calls(
        self,
        executor: Executor,
        fn: Callable[..., Any],
        *,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Submitting:
        """How the calls of a map are made: each when its value is asked for.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: no more calls are taken.
        """
        del chunksize, buffersize
        self._begin()
        return Submitting(executor, _run_for, fn, ahead=1, lazy=True)

    def finish(self) -> None:
        """Make the remaining calls of maps that were not read to their end."""
        for unfinished in list(self.unfinished):
            unfinished.finish()

    def close(
        self, *, cancel: bool = False, terminate: bool = False, interrupt: bool = False
    ) -> None:
        """Take no more calls; no call waits or runs that could be cancelled."""
        del cancel, terminate, interrupt
        self._closed = True

    def join(self) -> None:
        """Return at once, since no call is running elsewhere."""

    def drop(self) -> None:
        """Take no more calls, since no reference to the executor is left."""
        self.close()

    def once(self, value: object) -> Any:
        """The object itself: no call is sent."""
        return value

    def observe(self) -> PoolState:
        """The state of the pool, which has no workers."""
        return PoolState(workers=0, kills=0, evictions=0, need=None, shared_memory=0)

    @property
    def traits(self) -> Traits:
        """The traits of an executor that makes its calls in the caller."""
        return of_caller()

    def _begin(self) -> None:
        if self._closed:
            msg = "cannot schedule new futures after shutdown"
            raise RuntimeError(msg)
        with self._lock:
            initializer, self._initializer = self._initializer, None
        if initializer is not None:
            try:
                initializer(*self._initargs)
            except Exception as error:
                log = logging.getLogger("concurrent.futures")  # as a pool does
                log.critical("Exception in initializer:", exc_info=True)
                self.broken = f"the initializer failed: {error!r}"
                raise self._error(str(self.broken)) from error
        if self.broken:
            raise self._error(str(self.broken))


class SerialExecutor(MapExecutor):
    """Makes each call at once, in the thread that submits it.

    `coresize.ProcessPoolExecutor` and `coresize.ThreadPoolExecutor` do the same if
    CORESIZE_PARALLEL=0 or ``parallel = false`` is set, to switch off all parallelism.

    Args:
        max_workers: must be above 0, as for a pool, but has no effect.
        initializer: a function that is called once, before the first call.
        initargs: the arguments of the initializer.

    Raises:
        ConfigError: ``max_workers`` is not above 0.
        TypeError: the initializer cannot be called.

    >>> from coresize import SerialExecutor
    >>> with SerialExecutor() as executor:
    ...     future = executor.submit(pow, 2, 5)
    ...     future.done(), future.result(), list(executor.map(abs, [-1, -2]))
    (True, 32, [1, 2])
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        check_workers(max_workers)
        check_callable("initializer", initializer)
        self._caller = Caller(initializer, initargs)
        self._finalizer = weakref.finalize(self, self._caller.drop)
        self._finalizer.atexit = False

    @property
    def traits(self) -> Traits:
        """The traits of this executor."""
        return self._caller.traits

    @property
    def _broken(self) -> str | bool:
        """Why no more calls are taken; False if they are."""
        return self._caller.broken

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Make a call, and return its future, which is done.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: the executor is shut down.
            TypeError: the function is ``async def``.
        """
        check_sync(fn)
        return self._caller.submit(fn, args, kwargs)

    @property
    def _unfinished(self) -> set[Unfinished]:
        return self._caller.unfinished

    def _calls(
        self, fn: Callable[..., Any], *, chunksize: int | None, buffersize: int | None
    ) -> Source:
        return self._caller.calls(self, fn, chunksize=chunksize, buffersize=buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more calls, and make the remaining calls of maps now.

        Args:
            wait: has no effect.
            cancel_futures: do not make the remaining calls of maps.
        """
        del wait
        try:
            self._end_maps(cancel=cancel_futures)
        finally:
            self._caller.close()

    def kill_workers(self) -> None:
        """Take no more calls; there are no workers to end."""
        self.shutdown(cancel_futures=True)

    terminate_workers = kill_workers


#: The callers of this process, for the end of the program.
_open: weakref.WeakSet[Caller] = weakref.WeakSet()


def _finish() -> None:
    """Make the remaining calls of maps at the end of this process, and take no more."""
    for caller in list(_open):
        caller.finish()
        caller.close()


# As for pools of threads, this runs before the program's own atexit hooks.
threading._register_atexit(_finish)  # type: ignore[attr-defined]  # noqa: SLF001


def _call(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    with nesting.task():
        return fn(*args, **kwargs)


def _run(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Make a call as a task in this thread; returns its future, which is done."""
    return call_here(_call, fn, *args, **kwargs)


def _run_for(_executor: Executor, fn: Callable[..., T], /, *args: Any) -> Future[T]:
    """Do the same as `_run`, with the signature that a map needs."""
    return _run(fn, *args)
