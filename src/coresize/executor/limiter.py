"""Admission by memory in front of any executor."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from concurrent.futures import CancelledError, Executor, Future
from typing import TYPE_CHECKING

from coresize import processes
from coresize.arguments import check_sync
from coresize.errors import CoresizeError
from coresize.executor.admission.memory import Headroom
from coresize.executor.admission.needs import MemorySpec
from coresize.executor.admission.rules import Rules
from coresize.executor.jobs import Job, key_of, owned, tell
from coresize.executor.serial import OneByOneExecutor
from coresize.executor.traits import Traits, shut_down, submit_to, traits_of
from coresize.processes import exit_hooks
from coresize.processes.memory import read_own
from coresize.processes.ownership import Owner


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from coresize.executor.admission.needs import MemoryNeed

    P = ParamSpec("P")
    T = TypeVar("T")

#: More tasks than any executor runs at a time: the other executor has its own bound.
_MOST = 100_000

#: Seconds until the memory is checked again, since other programs may free some.
_LOOK = 0.1


def limit_memory(executor: Executor, *, memory: MemoryNeed) -> Executor:
    """An executor that hands tasks on to another executor only while they fit.

    A task is handed on if its need and the needs of running tasks fit together into the
    memory that is available now in the tightest cgroup. A task that fits nowhere runs
    alone. If the other executor is a pool that breaks, its running tasks are lost; use
    `coresize.ProcessPoolExecutor` to avoid that. Shutting this executor down shuts the
    other down.

    Args:
        executor: an executor of the standard library, loky, dask or another library.
        memory: bytes that one task needs, "2GiB", a `TaskProfile`, or a callable of its
            arguments; "auto" learns the need from the peak of the process that runs the
            task, which says nothing about one task if threads share the process.

    Raises:
        ConfigError: ``memory`` is not valid.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from coresize import limit_memory
    >>> with limit_memory(ThreadPoolExecutor(4), memory="1MiB") as pool:
    ...     list(pool.map(abs, [-1, -2]))
    [1, 2]
    """
    return _Limited(executor, MemorySpec(memory))


class _Waiting(Job):
    """A call that is to be handed on to the other executor."""

    __slots__ = ("args", "function", "future", "inner", "kwargs")

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
        self.future: Future[Any] = owned(Future())
        #: The future of the other executor, once the call was handed on.
        self.inner: Future[Any] | None = None

    def begin(self) -> bool:
        """See `Job.begin`."""
        return self.future.set_running_or_notify_cancel()

    def cancel(self) -> None:
        """See `Job.cancel`."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()

    def settle(self, value: object = None, error: BaseException | None = None) -> None:
        """Settle the future; an error of its callbacks is only logged."""
        if error is None:
            tell(self.future, self.future.set_result, value)
        else:
            tell(self.future, self.future.set_exception, error)


#: The objects whose calls are to be handed on before the program ends.
_open: weakref.WeakSet[_Handover] = weakref.WeakSet()


class _Limited(OneByOneExecutor):
    def __init__(self, executor: Executor, needs: MemorySpec) -> None:
        super().__init__()
        self._executor = executor
        self._spec = needs
        self._handover = _Handover(executor, needs)
        # When no reference to the executor is left, it takes no more calls.
        self._finalizer = weakref.finalize(self, exit_hooks.later, self._handover.close)
        self._finalizer.atexit = False

    @property
    def traits(self) -> Traits:
        """The traits of the other executor."""
        return traits_of(self._executor)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call, which is handed on when it fits.

        An error that a callable ``memory=`` raises is an error of the future.

        Raises:
            RuntimeError: the executor is shut down.
            TypeError: the function is ``async def``.
        """
        check_sync(fn)
        call = _Waiting(fn, args, kwargs, None)
        try:
            call.need = self._spec.of(args, kwargs)
        except Exception as error:  # noqa: BLE001 - a callable of the user's
            call.begin()
            call.settle(error=error)
        else:
            self._handover.put(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more calls, and end the other executor when all calls are done.

        First, each map takes the rest of its input. An input without a length may be
        endless: if its values were read in part, no more of it is taken.
        """
        try:
            self._end_maps(cancel=cancel_futures)
        finally:
            self._end(wait=wait, cancel_futures=cancel_futures)

    def _end(self, *, wait: bool, cancel_futures: bool) -> None:
        if not self._handover.owner.is_here:
            return
        self._handover.close(cancel=cancel_futures)
        if wait:
            self._handover.thread.join()
        shut_down(self._executor, wait=wait, cancel=cancel_futures)


class _Handover:
    """The waiting calls of a `_Limited`, and the thread that hands them on.

    This object holds no reference to its `_Limited`, so that can be collected. No error
    may end the thread while calls wait: an error of the other executor, of its futures
    or of callbacks is set on the calls that it concerns. None of their code is called
    while the lock is held.
    """

    def __init__(self, executor: Executor, needs: MemorySpec) -> None:
        self.owner = Owner()
        self._executor = executor
        self._spec = needs
        self._rules = Rules(_MOST, learns=needs.learns)
        self._headroom = Headroom()
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[_Waiting, int] = {}
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self.thread = threading.Thread(
            target=self._hand_on, name="coresize-limit", daemon=True
        )
        # This hook must run before that of the other executor's library, which has
        # registered by now: the last hook runs first.
        exit_hooks.register_last(_finish)
        exit_hooks.register(_finish, exit_hooks.HANDING_ON)
        self.thread.start()
        _open.add(self)

    def put(self, call: _Waiting) -> None:
        """Take a call.

        Raises:
            InheritedError: this is a fork of the process that has made the executor.
            RuntimeError: no more calls are taken.
        """
        self.owner.check("executor")
        with self._changed:
            if self._closed:
                msg = "cannot schedule new futures after shutdown"
                raise RuntimeError(msg)
            self._waiting.append(call)
            self._changed.notify()

    def close(self, *, cancel: bool = False) -> None:
        """Take no more calls, and end when all are handed on, or cancelled."""
        if not self.owner.is_here:
            return
        with self._changed:
            self._closed = True
            dropped = self._take_all() if cancel else []
            handed_on = list(self._running) if cancel else []
            self._changed.notify()
        for call in dropped:
            call.cancel()
        for call in handed_on:  # not every executor cancels the calls itself
            if call.inner is not None:
                call.inner.cancel()

    def _hand_on(self) -> None:
        over = False
        while not over:
            try:
                over = self._hand_on_one()
            except BaseException as error:  # noqa: BLE001 - the futures have it
                self._fail_all(error)

    def _hand_on_one(self) -> bool:
        """Wait for a call that fits, and start it; returns True if none will come."""
        call = self._next()
        if call is not None:
            self._start(call)
        return call is None

    def _next(self) -> _Waiting | None:
        """The next call that fits, counted as running; None if all are handed on."""
        with self._changed:
            while self._waiting or not self._closed:
                call = self._choose()
                if call is not None:
                    self._waiting.remove(call)
                    self._running[call] = 0
                    return call
                self._changed.wait(_LOOK if self._waiting else None)
        return None

    def _choose(self) -> _Waiting | None:
        """A waiting call that fits now, or None.

        The bytes that a running task has taken are unknown here. So the whole needs of
        all running tasks, and that of the new one, must fit into what is available now.
        """
        left = self._headroom.left() - self._headroom.soft
        running = [(call, used, 0.0) for call, used in self._running.items()]
        chosen = self._rules.choose(self._waiting, running, left)
        assert chosen is None or isinstance(chosen, _Waiting)
        return chosen

    def _start(self, call: _Waiting) -> None:
        try:
            if not call.begin():
                self._forget(call)
                return
            if self._spec.learns:
                inner = self._executor.submit(
                    _measured, call.function, call.args, call.kwargs
                )
            else:
                inner = submit_to(self._executor, call.function, call.args, call.kwargs)
            call.inner = inner
            inner.add_done_callback(lambda done: self._end(call, done))
        except BaseException as error:  # noqa: BLE001 - the future has it
            self._forget(call)
            call.settle(error=error)

    def _end(self, call: _Waiting, done: Future[Any]) -> None:
        value, error = None, None
        call.inner = None
        try:
            value, peak, error = _outcome(done, measured=self._spec.learns)
            if error is None:
                with self._changed:
                    self._rules.succeeded(call, peak)
        except BaseException as raised:  # noqa: BLE001 - the future has it
            error = raised
        self._forget(call)
        call.settle(value, error)

    def _forget(self, call: _Waiting) -> None:
        """Count a call as running no more."""
        with self._changed:
            self._running.pop(call, None)
            self._changed.notify()

    def _take_all(self) -> list[_Waiting]:
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def _fail_all(self, error: BaseException) -> None:
        """Fail all waiting calls with an error that arose while choosing one."""
        with self._changed:
            waiting = self._take_all()
        for call in waiting:
            msg = f"no task can be chosen to be handed on: {error!r}"
            told = CoresizeError(msg)
            told.__cause__ = error
            if call.begin():
                call.settle(error=told)


def _outcome(
    done: Future[Any], *, measured: bool
) -> tuple[Any, int, BaseException | None]:
    """The value, the peak in bytes and the error of another executor's future."""
    error = CancelledError() if done.cancelled() else done.exception()
    if error is not None:
        return None, 0, error
    if not measured:
        return done.result(), 0, None
    value, peak = done.result()
    return value, peak, None


def _finish() -> None:
    """Hand on all submitted calls at the end of the program."""
    handovers = [one for one in list(_open) if one.owner.is_here]
    for handover in handovers:
        handover.close()
    for handover in handovers:
        handover.thread.join()


def _measured(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, int]:
    """Make a call; returns its value, and the bytes by which its process grew."""
    processes.reset_peak("self")
    before = read_own()
    value = function(*args, **kwargs)
    after = read_own()
    if before is None or after is None:
        return value, 0
    return value, max(0, after.anonymous_peak - before.private)
