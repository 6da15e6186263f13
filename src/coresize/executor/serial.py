"""Everything in the caller: the same futures, and no worker."""

from __future__ import annotations

import logging
import threading
import weakref
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import TYPE_CHECKING

from coresize.executor import sizing
from coresize.executor.chunks import Submitting, call_here
from coresize.executor.mapping import values_of
from coresize.executor.traits import PoolState, Traits, of_caller
from coresize.processes import exit_hooks, nesting


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, ParamSpec, TypeVar

    from coresize.processes.exit_hooks import Unfinished

    P = ParamSpec("P")
    T = TypeVar("T")


class Caller:
    """Runs each call at once, in the thread that submits it.

    This is what stands behind a pool where all is to be serial, in the place of its
    workers.

    Args:
        initializer: called once, before the first call; None for nothing.
        initargs: its arguments.
        error: the class of the error where the initializer has failed.

    Attributes:
        unfinished: maps of which calls are still to be made.
        broken: why no more calls are taken, where the initializer has failed; or False.
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
        """Make a call, and return the future that holds what came of it.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: this is closed.
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
            RuntimeError: this is closed.
        """
        del chunksize, buffersize
        self._begin()
        return Submitting(executor, _run_for, fn, ahead=1, lazy=True)

    def finish(self) -> None:
        """Make the calls of maps that nobody has read to their end."""
        for unfinished in list(self.unfinished):
            unfinished.finish()

    def close(
        self, *, cancel: bool = False, terminate: bool = False, interrupt: bool = False
    ) -> None:
        """Take no more calls; there is none that could be cancelled or ended."""
        del cancel, terminate, interrupt
        self._closed = True

    def join(self) -> None:
        """Return at once: all has ended."""

    def drop(self) -> None:
        """Take no more calls, as nobody holds the executor; a finalizer."""
        self.close()

    def observe(self) -> PoolState:
        """What is there: no worker."""
        return PoolState(workers=0, kills=0, evictions=0, need=None)

    @property
    def traits(self) -> Traits:
        """What an executor is like that makes its calls here."""
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


class SerialExecutor(Executor):
    """Runs each call at once, in the thread that submits it.

    What `coresize.ProcessPoolExecutor` and `coresize.ThreadPoolExecutor` do where
    CORESIZE_PARALLEL=0 or ``parallel = false`` is set: the instant way back.

    Args:
        max_workers: has to be above 0, as for a pool; there is none.
        initializer: called once, before the first call.
        initargs: its arguments.

    Raises:
        ConfigError: max_workers is not above 0.
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
        sizing.check(max_workers)
        sizing.check_initializer(initializer)
        self._caller = Caller(initializer, initargs)
        self._finalizer = weakref.finalize(self, self._caller.drop)
        self._finalizer.atexit = False

    @property
    def traits(self) -> Traits:
        """What this executor is like."""
        return self._caller.traits

    @property
    def _broken(self) -> str | bool:
        """Why no more calls are taken."""
        return self._caller.broken

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Run a call to its end, and return the future that holds what came of it.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: the executor is shut down.
        """
        return self._caller.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The values in the order of the items, each computed when it is asked for.

        So an endless input is no danger. Calls whose values nobody has asked for are
        made at the shutdown, as by any pool. timeout, chunksize and buffersize have
        nothing to do.

        Raises:
            BrokenExecutor: the initializer failed.
            ConfigError: chunksize or buffersize is no whole number above 0.
            RuntimeError: the executor is shut down.
        """
        return values_of(
            self,
            self._caller.unfinished,
            self._caller.calls(self, fn),
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more calls; those of maps that nobody has read are made now.

        Args:
            wait: has nothing to do.
            cancel_futures: leave the calls of maps that have not begun.
        """
        del wait
        try:
            if not cancel_futures:
                self._caller.finish()
        finally:
            self._caller.close()

    def kill_workers(self) -> None:
        """Take no more calls; there is no worker to end."""
        self.shutdown(cancel_futures=True)

    terminate_workers = kill_workers


#: Those that take calls.
_open: weakref.WeakSet[Caller] = weakref.WeakSet()


def _finish() -> None:
    """At the end of this process: make the calls of unread maps, and take no more."""
    for caller in list(_open):
        caller.finish()
        caller.close()


# Before what the program itself has registered with atexit, as pools of threads do.
threading._register_atexit(_finish)  # type: ignore[attr-defined]  # noqa: SLF001


def _call(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    with nesting.task():
        return fn(*args, **kwargs)


def _run(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """A call that has been made."""
    return call_here(_call, fn, *args, **kwargs)


def _run_for(_executor: Executor, fn: Callable[..., T], /, *args: Any) -> Future[T]:
    """As `_run`, for a map."""
    return _run(fn, *args)
