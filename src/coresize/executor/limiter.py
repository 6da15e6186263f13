"""Admission by memory in front of any executor."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from typing import TYPE_CHECKING

from coresize import footprint, processes
from coresize.executor import finalizing
from coresize.executor.admission import Admission
from coresize.executor.jobs import Job, key_of
from coresize.executor.needs import Needs
from coresize.executor.pressure import Pressure
from coresize.processes import exit_hooks


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from coresize.executor.needs import Memory

    P = ParamSpec("P")
    T = TypeVar("T")

#: More than any executor runs at a time: it has a bound of its own.
_MOST = 100_000

#: Seconds after which it is looked again whether a task fits: others give memory back.
_LOOK = 0.1


def limit_memory(executor: Executor, *, memory: Memory) -> Executor:
    """An executor in front of another, which gives it a task only while that fits.

    A task is handed on while what running ones need and its own need fit into what is
    available now in the tightest cgroup; one that fits nowhere runs alone. It cannot
    save what is running in a pool that breaks: for that use
    `coresize.ProcessPoolExecutor`. Shutting it down shuts the other down.

    Args:
        executor: of the standard library, loky, dask or anybody else.
        memory: bytes that one task needs, "2GiB", a `TaskProfile`, or a callable of its
            arguments; "auto" learns it from the peak of the process that runs it, which
            says nothing about a task where threads share one.

    Raises:
        ConfigError: memory is not valid.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from coresize import limit_memory
    >>> with limit_memory(ThreadPoolExecutor(4), memory="1MiB") as pool:
    ...     list(pool.map(abs, [-1, -2]))
    [1, 2]
    """
    return _Limited(executor, Needs(memory))


class _Waiting(Job):
    """A call that is to be handed on."""

    __slots__ = ("args", "function", "future", "kwargs")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        need: int | None,
    ) -> None:
        super().__init__(b"", key_of(function), need)
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.future: Future[Any] = Future()


#: Those whose calls are to be handed on before the program ends.
_open: weakref.WeakSet[_Door] = weakref.WeakSet()


class _Limited(Executor):
    def __init__(self, executor: Executor, needs: Needs) -> None:
        self._executor = executor
        self._needs = needs
        self._door = _Door(executor, needs)
        # What nobody holds any more takes no more calls.
        self._finalizer = weakref.finalize(self, finalizing.later, self._door.close)
        self._finalizer.atexit = False

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call; it is handed on when it fits.

        Raises:
            RuntimeError: the executor is shut down.
        """
        call = _Waiting(fn, args, kwargs, self._needs.of(args, kwargs))
        self._door.put(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more calls, and end the other executor when all are done."""
        self._door.close(cancel=cancel_futures)
        if wait:
            self._door.thread.join()
        self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)


class _Door:
    """The calls that wait, and the thread that hands them on.

    It does not know the executor in front of it, which so may be collected.
    """

    def __init__(self, executor: Executor, needs: Needs) -> None:
        self._executor = executor
        self._needs = needs
        self._admission = Admission(_MOST, learns=needs.learns)
        self._pressure = Pressure()
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[_Waiting, int] = {}
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self.thread = threading.Thread(
            target=self._hand_on, name="coresize-limit", daemon=True
        )
        _open.add(self)
        # Before the pools of the standard library end, which are known by now: the last
        # that has registered goes first.
        threading._register_atexit(_finish)  # type: ignore[attr-defined]  # noqa: SLF001
        exit_hooks.register(_finish, exit_hooks.HANDING_ON)
        self.thread.start()

    def put(self, call: _Waiting) -> None:
        """Take a call.

        Raises:
            RuntimeError: it is closed.
        """
        with self._changed:
            if self._closed:
                msg = "cannot schedule new futures after shutdown"
                raise RuntimeError(msg)
            self._waiting.append(call)
            self._changed.notify()

    def close(self, *, cancel: bool = False) -> None:
        """Take no more, and end when all are handed on; or cancel them."""
        with self._changed:
            self._closed = True
            while cancel and self._waiting:
                future = self._waiting.popleft().future
                future.cancel()
                future.set_running_or_notify_cancel()
            self._changed.notify()

    def _hand_on(self) -> None:
        # Without the lock: the other executor may let its caller wait for a place,
        # which comes free when a task ends, and that is told here under the lock.
        while call := self._next():
            self._start(call)
            del call  # not held while waiting

    def _next(self) -> _Waiting | None:
        """The next call that may start, as soon as there is one; None at the end."""
        with self._changed:
            while not (self._closed and not self._waiting):
                call = self._choose()
                if call is None:
                    self._changed.wait(_LOOK if self._waiting else None)
                    continue
                self._waiting.remove(call)
                if call.future.set_running_or_notify_cancel():
                    self._running[call] = 0
                    return call
                del call
        return None

    def _choose(self) -> _Waiting | None:
        """The one that fits, if any.

        What running tasks have taken cannot be told from here, so the whole of their
        needs is reserved, and what is available now must hold the new one as well.
        """
        left = self._pressure.left() - self._pressure.soft
        running = [(call, used, 0.0) for call, used in self._running.items()]
        chosen = self._admission.choose(self._waiting, running, left)
        assert chosen is None or isinstance(chosen, _Waiting)
        return chosen

    def _start(self, call: _Waiting) -> None:
        try:
            if self._needs.learns:
                inner = self._executor.submit(
                    _measured, call.function, call.args, call.kwargs
                )
            else:
                inner = self._executor.submit(call.function, *call.args, **call.kwargs)
        except BaseException as error:  # noqa: BLE001 - the future has it
            with self._changed:
                del self._running[call]
            call.future.set_exception(error)
            return
        inner.add_done_callback(lambda done: self._end(call, done))

    def _end(self, call: _Waiting, done: Future[Any]) -> None:
        error = CancelledError() if done.cancelled() else done.exception()
        value, peak = None, 0
        if error is None:
            value, peak = done.result() if self._needs.learns else (done.result(), 0)
        with self._changed:
            self._running.pop(call, None)
            if error is None:
                self._admission.succeeded(call, peak)
            self._changed.notify()
        if error is None:
            call.future.set_result(value)
        else:
            call.future.set_exception(error)


def _finish() -> None:
    """At the end of the program: all that was submitted is handed on."""
    doors = list(_open)
    for door in doors:
        door.close()
    for door in doors:
        door.thread.join()


def _measured(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, int]:
    """What a call gives, and the bytes that its process took at its peak."""
    processes.reset_peak("self")
    before = footprint.memory()
    value = function(*args, **kwargs)
    after = footprint.memory()
    if before is None or after is None:
        return value, 0
    return value, max(0, after.anonymous_peak - before.private)
