"""Everything in the caller: the same futures, and no worker."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import TYPE_CHECKING

from coresize.executor import sizing
from coresize.executor.chunks import call_here
from coresize.planning.settings import load_settings
from coresize.planning.values import WorkerPlan
from coresize.processes import exit_hooks, nesting


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, ParamSpec, Self, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

#: The arguments that a serial executor takes, by their places in every pool.
_TAKEN = {0: "max_workers", 2: "initializer", 3: "initargs"}


class SerialExecutor(Executor):
    """Runs each call at once, in the thread that submits it.

    What `coresize.ProcessPoolExecutor` and `coresize.ThreadPoolExecutor` are when
    CORESIZE_PARALLEL=0 or ``parallel = false`` is set: the instant way back.

    Args:
        max_workers: has to be above 0, as for a pool; there is none.
        initializer: called once, before the first call.
        initargs: its arguments.

    Raises:
        ConfigError: max_workers is not above 0.

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
        self._initializer = initializer
        self._initargs = initargs
        self._lock = threading.Lock()
        self._broken: str | bool = False
        self._maps = _Maps()
        _open.add(self._maps)
        exit_hooks.register(_finish, exit_hooks.CALLS)
        self._finalizer = weakref.finalize(self, self._maps.let_go)
        self._finalizer.atexit = False

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Run a call to its end, and return the future that holds what came of it.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: the executor is shut down.
        """
        self._begin()
        return _run(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The values in the order of the items, each computed when it is asked for.

        So an endless input is no danger. Where none was asked for, the calls are made
        at the shutdown. timeout, chunksize and buffersize have nothing to do.

        Raises:
            BrokenExecutor: the initializer failed.
            RuntimeError: the executor is shut down.
        """
        del timeout, chunksize, buffersize
        self._begin()
        return self._maps.add(fn, zip(*iterables, strict=False))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more calls; all are done, but for maps that nobody has read."""
        del wait
        if cancel_futures:
            self._maps.cancel()
        self._maps.close()

    def kill_workers(self) -> None:
        """Take no more calls; there is no worker to end."""
        self.shutdown(wait=False, cancel_futures=True)

    terminate_workers = kill_workers

    def _begin(self) -> None:
        if self._maps.closed:
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
                self._broken = f"the initializer failed: {error!r}"
                raise BrokenExecutor(self._broken) from error
        if self._broken:
            raise BrokenExecutor(self._broken)


class _Maps:
    """The maps of one executor of which no value was asked for yet.

    Their calls may have effects, so they are made: by who shuts the executor down, at
    the end of the program, or by who drops executor and values. Where the garbage
    collector finds them, or another thread has dropped them, a thread of its own does
    it: in the midst of something else no tasks can be run.
    """

    def __init__(self) -> None:
        self.closed = False
        self._pid = os.getpid()
        self.unread: list[_Map] = []
        self._is_held = True

    def add(
        self, function: Callable[..., T], items: Iterator[tuple[Any, ...]]
    ) -> Iterator[T]:
        """The values, each computed when it is asked for."""
        one = _Map(function, items)
        self.unread.append(one)
        _unfinished.add(self)
        values = self._values(one)
        one.values = weakref.ref(values, self._hand_over)
        return values

    def close(self) -> None:
        """Make the calls of maps that nobody has read."""
        self.closed = True
        self._make(list(self.unread))

    def cancel(self) -> None:
        """Nobody wants the calls of maps that nobody has read."""
        for one in list(self.unread):
            self._take(one)

    def let_go(self) -> None:
        """Nobody holds the executor any more, so nobody will shut it down."""
        self._is_held = False
        self._hand_over()

    def _hand_over(self, _gone: object = None) -> None:
        left = [one for one in list(self.unread) if one.values() is None]
        if not left or self._is_held:
            return
        elsewhere = any(one.caller != threading.get_ident() for one in left)
        if elsewhere or exit_hooks.is_collecting():
            exit_hooks.later(partial(self._make, left))
        else:
            self._make(left)

    def _make(self, maps: list[_Map]) -> None:
        if self._pid != os.getpid():  # its parent makes them
            return
        for one in maps:
            with one.lock:
                if self._take(one):
                    one.done.extend(_run(one.function, *items) for items in one.items)

    def _take(self, one: _Map) -> bool:
        """Whether a map was unread; from now on it is not."""
        try:
            self.unread.remove(one)
        except ValueError:
            return False
        finally:
            if not self.unread:
                _unfinished.discard(self)
        return True

    def _values(self, one: _Map) -> Iterator[Any]:
        with one.lock:  # or another thread is making the calls
            self._take(one)
        while one.done:
            yield one.done.popleft().result()
        for items in one.items:
            yield _call(one.function, *items)


class _Map:
    def __init__(
        self, function: Callable[..., Any], items: Iterator[tuple[Any, ...]]
    ) -> None:
        self.function = function
        self.items = items
        self.done: deque[Future[Any]] = deque()
        self.lock = threading.RLock()
        self.caller = threading.get_ident()
        self.values: Callable[[], object] = object


#: Those that take calls, and those whose calls are to be made before the program ends.
_open: weakref.WeakSet[_Maps] = weakref.WeakSet()
_unfinished: set[_Maps] = set()


def _finish() -> None:
    """At the end of this process: take no more calls, and make those of unread maps."""
    for maps in [*_open, *_unfinished]:
        maps.close()


# Before what the program itself has registered with atexit, as pools of threads do.
threading._register_atexit(_finish)  # type: ignore[attr-defined]  # noqa: SLF001


def _call(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    with nesting.task():
        return fn(*args, **kwargs)


def _run(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """A call that has been made."""
    return call_here(_call, fn, *args, **kwargs)


class SerialWhenOff:
    """What every pool is besides: a `SerialExecutor` where all is to be serial."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make a pool; or what runs its calls in the caller, with its initializer."""
        given = {name: args[at] for at, name in _TAKEN.items() if at < len(args)}
        taken = _TAKEN.values()
        given |= {name: value for name, value in kwargs.items() if name in taken}
        if _is_parallel(given.get("max_workers")):
            return super().__new__(cls)
        return SerialExecutor(**given)  # type: ignore[return-value]


def _is_parallel(max_workers: int | None) -> bool:
    """Whether there are to be workers: a plan goes by the settings it was made of."""
    if isinstance(max_workers, WorkerPlan):
        return max_workers.binding != "parallel"
    return load_settings().parallel
