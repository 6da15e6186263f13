"""Everything in the caller: the same futures, and no worker."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

from coresize.settings import load_settings


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, ParamSpec, Self, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")


class SerialExecutor(Executor):
    """Runs each call at once, in the thread that submits it.

    What `coresize.ProcessPoolExecutor` and `coresize.ThreadPoolExecutor` are when
    CORESIZE_PARALLEL=0 or ``parallel = false`` is set: the instant way back.

    Args:
        initializer: called once, before the first call.
        initargs: its arguments.

    >>> from coresize import SerialExecutor
    >>> with SerialExecutor() as executor:
    ...     future = executor.submit(pow, 2, 5)
    ...     future.done(), future.result(), list(executor.map(abs, [-1, -2]))
    (True, 32, [1, 2])
    """

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._lock = threading.Lock()
        self._closed = False

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Run a call to its end, and return the future that holds what came of it.

        Raises:
            RuntimeError: the executor is shut down.
        """
        future: Future[T] = Future()
        self._begin()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the future has it
            future.set_exception(error)
        return future

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

        So an endless input is no danger; timeout, chunksize and buffersize have nothing
        to do.

        Raises:
            RuntimeError: the executor is shut down.
        """
        del timeout, chunksize, buffersize
        self._begin()
        return (fn(*items) for items in zip(*iterables, strict=False))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more calls; all are done."""
        del wait, cancel_futures
        self._closed = True

    def _begin(self) -> None:
        if self._closed:
            msg = "cannot schedule new futures after shutdown"
            raise RuntimeError(msg)
        with self._lock:
            initializer, self._initializer = self._initializer, None
        if initializer is not None:
            initializer(*self._initargs)


class SerialWhenOff:
    """What every pool is besides: a `SerialExecutor` where all is to be serial."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make a pool; or what runs its calls in the caller, with its initializer.

        Of every pool here initializer and its arguments are the third and the fourth.
        """
        if load_settings().parallel:
            return super().__new__(cls)
        names = ("initializer", "initargs")
        given = dict(zip(names, args[2:], strict=False))
        given.update({name: kwargs[name] for name in names if name in kwargs})
        return SerialExecutor(**given)  # type: ignore[return-value]
