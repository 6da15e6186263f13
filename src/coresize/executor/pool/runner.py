"""How a pool of processes turns calls and maps into jobs for its dispatcher."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Executor, Future
from typing import TYPE_CHECKING

from coresize.executor import jobs
from coresize.executor.admission.memory import MemoryBound
from coresize.executor.jobs import AT_ONCE, Call, key_of, owned, shared_by
from coresize.executor.mapping import MOST_BYTES, MOST_ITEMS
from coresize.executor.pool.dispatcher import Dispatcher
from coresize.executor.sharing import Later
from coresize.executor.traits import PoolState, Traits, of_processes
from coresize.processes.buffers import size_of
from coresize.processes.transfer import TransferError


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from coresize.executor.admission.needs import MemoryNeed, MemorySpec
    from coresize.executor.mapping import Args
    from coresize.executor.pool.options import PoolOptions
    from coresize.processes.exit_hooks import Unfinished

    T = TypeVar("T")

#: Seconds that a chunk should take: long compared with the cost of sending it, short
#: compared with the time that a person waits; and the most calls of a chunk.
_TARGET = 0.02
_LARGEST = 512

#: The most bytes of a chunk of several calls, or of their results; larger chunks save
#: nothing.
_CHUNK_BYTES = 1024**2

#: A chunk has at most this part of the items that may be taken ahead of the reader.
_PARTS = 8


class Processes:
    """Runs calls in processes; where all calls are serial, `Caller` takes its place.

    Args:
        options: how workers are made, and what bounds their tasks.
        size: the number of workers that there may be.
        environment: variables that each worker has from its start.
        spec: the argument ``memory=``; None if it is not given.
    """

    def __init__(
        self,
        options: PoolOptions,
        size: int,
        environment: dict[str, str],
        spec: MemorySpec | None,
    ) -> None:
        memory = None
        if spec is not None:
            retries = options.oom_retries
            memory = MemoryBound(size, learns=spec.learns, oom_retries=retries)
        self.dispatcher = Dispatcher(options, size, environment, memory)
        self._sharing = options.sharing
        self._spec = spec

    @property
    def traits(self) -> Traits:
        """See `ProcessPoolExecutor.traits`."""
        return of_processes(self.dispatcher.size)

    @property
    def unfinished(self) -> set[Unfinished]:
        """The maps that have calls to start before the pool takes no more calls."""
        return self.dispatcher.unfinished

    @property
    def broken(self) -> str | bool:
        """Why the pool takes no more calls; False if it takes them."""
        return self.dispatcher.broken or False

    def submit(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        """See `ProcessPoolExecutor.submit`."""
        self.dispatcher.refuse_inherited()
        future: Future[T] = owned(Future())
        call = fn, args, kwargs
        try:
            room = self.dispatcher.backlog.room
            payload = self._sharing.pack_early(call, fn, room)
            need = self._need(args, kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - pickle calls the user's code
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        self.dispatcher.submit(Call(future, call, payload, need, self._sharing))
        return future

    def calls(
        self,
        executor: Executor,
        fn: Callable[..., Any],
        *,
        chunksize: int | None,
        buffersize: int | None,
    ) -> Chunking:
        """How the calls of a map are made: in chunks."""
        del executor  # the dispatcher takes jobs without it
        made = self.dispatcher.options
        alone = made.measured or made.timeout is not None
        return Chunking(
            self.dispatcher,
            fn,
            lambda args: self._need(args, {}),
            chunksize=1 if alone else chunksize,
            buffersize=buffersize,
            ahead=2 * self.dispatcher.size,
        )

    def once(self, value: object) -> Any:
        """What stands for an object in the messages of many calls."""
        return self._sharing.once(value)

    def observe(self) -> PoolState:
        """See `ProcessPoolExecutor.observe`."""
        memory = self.dispatcher.memory
        jobs = [*self.dispatcher.waiting.copy()]
        for worker in self.dispatcher.handles.copy():
            jobs += worker.running.copy()
        return PoolState(
            workers=len(self.dispatcher.handles),
            kills=memory.rules.kills if memory else 0,
            evictions=memory.rules.evictions if memory else 0,
            need=memory.rules.learned() if memory else None,
            shared_memory=shared_by(jobs),
        )

    def close(
        self, *, cancel: bool = False, terminate: bool = False, interrupt: bool = False
    ) -> None:
        """Take no more calls; see `Dispatcher.close`."""
        self.dispatcher.close(cancel=cancel, terminate=terminate, interrupt=interrupt)

    def join(self) -> None:
        """Wait until the dispatcher has ended."""
        self.dispatcher.join()

    def drop(self) -> None:
        """Take no more calls, since no reference to the pool is left; a finalizer."""
        self.dispatcher.drop()

    def _need(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Bytes that a call is declared to need; None if nothing is declared."""
        return self._spec.of(args, kwargs) if self._spec else None


class Chunking:
    """Makes the chunks of a map in a pool of processes.

    The size of a chunk is learned from calls that have ended, so that a chunk takes
    about 20 ms. Each call of a chunk has its own answer.

    Args:
        dispatcher: the dispatcher of the pool.
        function: the function that is called.
        need: returns the bytes that a call needs, from its arguments.
        chunksize: calls in a chunk; None learns the number.
        buffersize: items that may be taken ahead of the reader; None for a default.
        ahead: the number of chunks that keep all workers busy.
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
        self._sharing = dispatcher.options.sharing
        self._function = function
        self._sent = self._sharing.once(function)
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
            message = self._sent, items
            payload = self._sharing.pack_early(message, self._function, AT_ONCE)
        except (TransferError, MemoryError):
            if len(items) > 1:  # some item cannot be pickled, and must fail alone
                return self.make(items[:1], notify)
            payload = Later()  # the call gets the error when a worker is to take it
        chunk = Chunk(
            self._function,
            items[:],
            payload,
            None,
            sharing=self._sharing,
            sent=self._sent,
            notify=notify,
        )
        chunk.dispatcher = self._dispatcher
        if len(items) == 1:
            chunk.measure(self._need, items[0])
        size = MOST_BYTES
        if not isinstance(payload, Later):
            size = size_of(payload, self._sent)
        self._each = size / len(items)
        return chunk, len(items), size


class Chunk(jobs.Calls):
    """A chunk of a map, which starts when there is room for its results."""

    __slots__ = ("dispatcher", "failure")

    dispatcher: Dispatcher
    failure: Exception | None

    def __init__(self, *fields: Any, **options: Any) -> None:
        super().__init__(*fields, **options)
        self.failure = None

    def measure(self, need: Callable[[Args], int | None], args: Args) -> None:
        """Note the need of the only call; an error of ``need`` is that of the call."""
        try:
            self.need = need(args)
        except Exception as error:  # noqa: BLE001 - a callable of the user's
            self.failure = error

    def start(self) -> None:
        """See `MapCalls.start`."""
        if self.failure is not None:
            self.abandon(self.failure)
        else:
            self.dispatcher.submit(self)

    def drop(self) -> None:
        """See `MapCalls.drop`."""
        self.cancelled = True

    def refuse(self, error: Exception) -> None:
        """See `MapCalls.refuse`."""
        if isinstance(error, BrokenExecutor):
            self.abandon(error)
        else:
            self.cancel()


def specify(memory: MemoryNeed | None) -> MemorySpec | None:
    """The argument ``memory=`` of a pool as a specification; None if it is not given.

    Raises:
        ConfigError: the argument is not valid.
    """
    if memory is None:
        return None
    from coresize.executor.admission.needs import MemorySpec  # brings pydantic

    return MemorySpec(memory)
