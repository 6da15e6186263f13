"""How the calls of a map are made: in chunks by processes, one by one by all others."""

from __future__ import annotations

import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import TYPE_CHECKING

from coresize.executor import jobs
from coresize.executor.jobs import AT_ONCE, Failed, key_of
from coresize.executor.mapping import MOST_BYTES, MOST_ITEMS
from coresize.processes import transfer
from coresize.processes.transfer import TransferError
from coresize.units import estimate


if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any, TypeVar

    from coresize.executor.mapping import Args
    from coresize.executor.pool.dispatcher import Dispatcher

    T = TypeVar("T")

#: Seconds that a chunk should take: long beside the cost of sending it, short beside
#: the time that a person waits; and calls in one, however quick.
_TARGET = 0.02
_LARGEST = 512

#: Bytes of a chunk of several calls, or of their results: to send more at once saves
#: nothing.
_CHUNK_BYTES = 1024**2

#: What may be taken ahead is so many chunks at least.
_PARTS = 8


class Submitted:
    """One call of a map, submitted to an executor when there is room for its result."""

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
        """See `Calls.start`."""
        call, self._call = self._call, ()
        self._future = self._submit(*call)
        self._future.add_done_callback(self._ended)

    def check(self) -> None:
        """See `Calls.check`."""

    def drop(self) -> None:
        """See `Calls.drop`."""
        if self._future is not None:
            self._future.cancel()

    def refuse(self, error: Exception) -> None:
        """See `Calls.refuse`."""
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
    """The calls of a map over any executor, each submitted for itself.

    Args:
        executor: the executor, which is not held.
        submit: its method, as of its class.
        function: what is called.
        ahead: calls that keep all workers busy.
        most_running: calls that may be under way at most; None for any number.
        lazy: each call is made by who asks for its value.
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


def call_here(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
    """The future of a call that has been made, in this thread.

    Raises:
        KeyboardInterrupt: it was interrupted.
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


class Chunking:
    """The calls of a map in a pool of processes, in chunks.

    Chunks are as large as takes about the same time, learned from those that have
    ended; each call in one is answered for itself.

    Args:
        dispatcher: what serves the workers.
        function: what is called.
        need: bytes that a call needs, by its arguments.
        chunksize: calls in a chunk; None learns it.
        buffersize: items that may be taken ahead of the reader; None for a default.
        ahead: chunks that keep all workers busy.
    """

    most_running: int | None = None
    lazy = False

    def __init__(
        self,
        dispatcher: Dispatcher,
        function: Callable[..., Any],
        need: Callable[[Args], int | None],
        *,
        chunksize: int | None,
        buffersize: int | None,
        ahead: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._function = function
        self._key = key_of(function)
        self._need = need
        self.chunksize = chunksize
        self._most = buffersize or MOST_ITEMS
        self.ahead = ahead
        self._size = 1
        self._each = 1.0

    def size(self, each: float) -> int:
        """See `Source.size`."""
        if self.chunksize is not None:
            return self.chunksize
        seconds = self._dispatcher.times.of(self._key)
        if seconds is not None:
            most = min(_LARGEST, self._most // _PARTS, 2 * self._size)
            self._size = max(1, min(int(_TARGET / seconds), most))
        return min(self._size, max(1, int(_CHUNK_BYTES / max(self._each, each))))

    def make(
        self, items: list[Args], notify: Callable[[], None]
    ) -> tuple[Chunk, int, int]:
        """See `Source.make`."""
        try:
            message = self._function, items
            payload = transfer.dump_within(message, self._function, AT_ONCE)
        except TransferError:
            if len(items) > 1:  # one of them cannot be pickled, and fails alone
                return self.make(items[:1], notify)
            payload = None  # the error is told when it is due
        chunk = Chunk(self._function, items[:], payload, None, notify)
        chunk.dispatcher = self._dispatcher
        if len(items) == 1:
            chunk.measure(self._need, items[0])
        size = MOST_BYTES if payload is None else len(payload)
        self._each = size / len(items)
        return chunk, len(items), size


class Chunk(jobs.Calls):
    """A chunk of a map, to be started when there is room for its results."""

    __slots__ = ("dispatcher", "failure")

    dispatcher: Dispatcher
    failure: Exception | None

    def __init__(self, *fields: Any) -> None:
        super().__init__(*fields)
        self.failure = None

    def measure(self, need: Callable[[Args], int | None], args: Args) -> None:
        """Ask what its one call needs; what that raises is the error of the call."""
        try:
            self.need = need(args)
        except Exception as error:  # noqa: BLE001 - a callable of the user's
            self.failure = error

    def start(self) -> None:
        """See `Calls.start`."""
        if self.failure is not None:
            self.abandon(self.failure)
        else:
            self.dispatcher.submit(self)

    def check(self) -> None:
        """See `Calls.check`."""
        self.dispatcher.refuse_inherited()

    def drop(self) -> None:
        """See `Calls.drop`."""
        self.cancelled = True

    def refuse(self, error: Exception) -> None:
        """See `Calls.refuse`."""
        if isinstance(error, BrokenExecutor):
            self.abandon(error)
        else:
            self.cancel()
