"""The jobs of a pool: a call with its future, or several calls of one map."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import CancelledError, Future
from pickle import loads

from coresize import processes
from coresize.executor.sharing import Later
from coresize.processes import buffers
from coresize.processes.buffers import Packed
from coresize.processes.ownership import present
from coresize.processes.transfer import TransferError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from typing import Any, TypeVar

    from coresize.executor.sharing import Sharing
    from coresize.processes.ownership import Owner

    T = TypeVar("T")


_log = logging.getLogger("concurrent.futures")  # the standard library's logger


def key_of(function: object) -> Hashable:
    """The key under which the pool keeps what it has learned about a function."""
    function = getattr(function, "func", function)  # the one in a functools.partial
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    return (module, name or type(function).__qualname__)


#: The most bytes of one call, and of all calls that wait for a worker, that are pickled
#: at submission. Other calls are pickled when a worker takes them: otherwise a hundred
#: calls that share one array would hold a hundred copies of it.
AT_ONCE = 1024**2
_WAITING = 32 * 1024**2


class Backlog:
    """Counts the bytes that are pickled and wait for a worker.

    Each number has one writer at a time: threads that submit change `added` under a
    lock, and the dispatcher's thread changes `taken`.
    """

    __slots__ = ("added", "taken")

    def __init__(self) -> None:
        self.added = self.taken = 0

    @property
    def room(self) -> int:
        """The most bytes of one call that may be pickled now."""
        return min(AT_ONCE, max(0, _WAITING - (self.added - self.taken)))


class Job:
    """The unit that a worker is given: the base of `Call` and `Calls`.

    Attributes:
        is_chunk: the job is several calls of one function, each with its own answer.
        payload: the call or calls, pickled; None if they are pickled only when a worker
            takes them.
        later: what is known of a payload that is None.
        key: the key of the function, for what is learned about it.
        need: bytes that are declared for the job, or that it needs after a kill; None
            if there is no such number.
        number: the number of the call that is answered next, once the job was sent.
        alone: the job may run only while no other does.
        passed: how often a later job was started before this one.
        attempts: how often the job was started.
        kills: how often the job was killed for memory.
        seen: the most bytes that were seen of the job so far.
        sharing: how the large buffers travel that a worker takes.
        backlog: counts the job's bytes while the job waits; None before and after.
        folder: the working folder when the job was submitted; None if unknown.
        inheritance: the state that a worker inherits if it is started for this job;
            None if there were enough workers at the submission.
    """

    __slots__ = (
        *("alone", "attempts", "backlog", "folder", "inheritance", "key", "kills"),
        *("later", "need", "number", "passed", "payload", "seen", "sharing"),
    )

    is_chunk = False

    sharing: Sharing

    def __init__(
        self, payload: bytes | Packed | Later, key: Hashable, need: int | None
    ) -> None:
        self.payload = None if isinstance(payload, Later) else payload
        self.later = payload if isinstance(payload, Later) else None
        self.key = key
        self.need = need
        self.folder: str | None = None
        self.inheritance: Any = None
        self.alone = False
        self.number = -1
        self.passed = self.attempts = self.kills = self.seen = 0
        self.backlog: Backlog | None = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the job that are pickled and wait for a worker."""
        return 0 if self.payload is None else len(self.payload)

    def leave_queue(self) -> None:
        """Remove the bytes of the job from those that wait."""
        backlog, self.backlog = self.backlog, None
        if backlog is not None:
            backlog.taken += self.waiting_bytes

    @property
    def mapped(self) -> int:
        """Bytes of the segments that the worker maps for the job."""
        return self.payload.mapped if isinstance(self.payload, Packed) else 0

    @property
    def uncopied(self) -> int:
        """Bytes of large buffers that are still to be copied for the job."""
        if self.payload is not None or self.later is None:
            return 0
        return self.later.size

    def message(self) -> bytes | Packed | Later:
        """The call or calls, pickled; `Later` if their large buffers do not fit now.

        Raises:
            TransferError: the calls cannot be pickled.
        """
        raise NotImplementedError

    def _pack(self, message: object, function: object) -> bytes | Packed | Later:
        """Pickle a message; what refers to segments is kept for another attempt."""
        content = self.sharing.pack(message, function)
        if isinstance(content, Packed):
            self.payload = content
        elif isinstance(content, Later):
            self.payload, self.later = None, content
        return content

    def put_off(self) -> None:
        """Note that the job has not begun after all, since it could not be packed."""
        self.attempts -= 1

    def give_up(self) -> None:
        """Fail all calls, whose large buffers do not fit into memory."""
        assert self.later is not None
        assert self.later.error is not None
        self.abandon(self.later.error)

    @property
    def size(self) -> int:
        """The number of calls that are not answered yet."""
        return 1

    def split(self, keep: int) -> Job:
        """Leave the next calls to this job, and return a new one with the others.

        Args:
            keep: the number of calls that are left, above 0 and below `size`.
        """
        raise NotImplementedError

    def begin(self) -> bool:
        """Note that the job is started; returns False if it was cancelled."""
        raise NotImplementedError

    def take(self, value: object) -> bool:
        """Take the value of the next call; returns True if no answer is missing now."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> bool:
        """Take an error in place of a value; returns as `take` does."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Cancel the job, which will not be started."""
        raise NotImplementedError

    def received(self, size: int) -> None:
        """Note the bytes of values, before the last of these values is taken."""

    def take_pickled(
        self, payload: bytes | bytearray, rows: Sequence[buffers.Row] = ()
    ) -> bool:
        """Take a pickled value; a value that cannot be unpickled becomes an error.

        Args:
            payload: the value, without its large buffers.
            rows: the large buffers.
        """
        try:
            value = buffers.load(payload, rows)
        except BaseException as error:  # noqa: BLE001 - pickle calls the user's code
            return self.fail(_unreadable(error))
        return self.take(value)

    def take_some(self, payloads: Sequence[bytes | bytearray]) -> None:
        """Take consecutive values as `take_pickled` does; an answer is missing then."""
        raise NotImplementedError

    def abandon(self, error: BaseException) -> None:
        """Fail all calls that are not answered, whether the job has begun or not."""
        if self.attempts or self.begin():
            while not self.fail(error):
                pass
            self.wake()

    def measured(self, peak: int) -> None:
        """Note the peak memory of the worker in bytes."""

    def wake(self) -> None:
        """Wake the reader of a map; futures wake their waiters themselves."""


def shared_by(jobs: Iterable[Job]) -> int:
    """The bytes of the segments that hold the large buffers of jobs."""
    packed = [job.payload for job in jobs]
    used = {
        segment
        for each in packed
        if isinstance(each, Packed)
        for segment in each.segments
    }
    return sum(segment.size for segment in used if segment.is_memory)


_DONE = ("CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED")
_ADVICE = "wait for it before the fork, or make another pool in the child"


class _OwnedCondition(threading.Condition):
    """The condition of a future, which cannot be waited for in a forked child.

    The thread that would settle the child's copy of a future exists only in the parent.
    Each method of a future, and `wait()` and `as_completed()`, first enter or acquire
    its condition; so this is the place to check. What is done by the time of the fork
    can be read in the child.

    Attributes:
        owner: the process of the future.
        settled: the future is done.
    """

    owner: Owner
    settled = False

    @classmethod
    def guard(cls, future: Future[Any]) -> None:
        """Make the condition of a future one of this class; other threads may use it.

        The standard library makes the condition of each future, and another one would
        cost as much as the rest of the future.
        """
        condition: Any = future._condition  # noqa: SLF001
        condition.owner = present()
        del condition.acquire  # the method of the class takes its place
        condition.__class__ = cls
        if future._state != "PENDING" and future._state in _DONE:  # noqa: SLF001
            condition.settled = True

    def __enter__(self) -> bool:
        if self.owner.forks != processes.forks:
            self._inherit()
        return bool(self._lock.__enter__())  # type: ignore[attr-defined]

    def acquire(self, *args: Any) -> bool:
        """Acquire the lock."""
        if self.owner.forks != processes.forks:
            self._inherit()
        return bool(self._lock.acquire(*args))  # type: ignore[attr-defined]

    def notify_all(self) -> None:
        """Note that the future is done: futures call this then, and only then."""
        self.settled = True
        super().notify_all()

    def _inherit(self) -> None:
        """Take over a lock, which a thread of the parent may hold for ever.

        Raises:
            InheritedError: the future is not done.
        """
        if not self.settled:
            self.owner.check("future", _ADVICE)
        super().__init__()
        self.__dict__.pop("acquire", None)
        self.owner = present()


def owned(future: Future[T]) -> Future[T]:
    """A future that raises an error in a forked child instead of waiting for ever.

    Args:
        future: a plain future, which is changed and returned.
    """
    _OwnedCondition.guard(future)
    return future


class Call(Job):
    """One call, with the future that the caller holds.

    The future is a plain one with further attributes: ``attempts``, how often its task
    was started; ``result_bytes``, the bytes of its pickled value; ``shared_memory``,
    the bytes of its large arguments in memory that processes share; and, if the pool
    measures memory, ``peak_memory``, the most bytes that were seen of its worker and
    the worker's descendants, without that memory.

    Args:
        future: the future.
        call: the function, its arguments and its keyword arguments.
        payload: the same, pickled; or `Later`.
        need: bytes that are declared for the call; None if nothing is declared.
        sharing: how the large buffers of the call travel.
    """

    __slots__ = ("_call", "future")

    def __init__(
        self,
        future: Future[Any],
        call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]],
        payload: bytes | Packed | Later,
        need: int | None,
        sharing: Sharing,
    ) -> None:
        super().__init__(payload, key_of(call[0]), need)
        self.sharing = sharing
        self.future = future
        # A pickled call does not hold the original objects.
        self._call = call if self.payload is None else None

    def message(self) -> bytes | Packed | Later:
        """See `Job.message`."""
        if self.payload is not None:
            return self.payload
        assert self._call is not None
        return self._pack(self._call, self._call[0])

    def begin(self) -> bool:
        """See `Job.begin`."""
        self.leave_queue()
        self.attempts += 1
        self.future.attempts = self.attempts  # type: ignore[attr-defined]
        # At a second attempt, the future is running already.
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def take(self, value: object) -> bool:
        """See `Job.take`."""
        self._settle(self.future.set_result, value)
        return True

    def received(self, size: int) -> None:
        """See `Job.received`."""
        self.future.result_bytes = size  # type: ignore[attr-defined]

    def fail(self, error: BaseException) -> bool:
        """See `Job.fail`."""
        self._settle(self.future.set_exception, error)
        return True

    def _settle(self, settle: Callable[[Any], None], content: object) -> None:
        """Settle the future, whose callbacks are the user's code."""
        self.future.shared_memory = self.mapped  # type: ignore[attr-defined]
        self._call, self.payload = None, b""
        tell(self.future, settle, content)

    def measured(self, peak: int) -> None:
        """See `Job.measured`."""
        self.future.peak_memory = peak  # type: ignore[attr-defined]

    def cancel(self) -> None:
        """See `Job.cancel`."""
        self.leave_queue()
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()
        elif not self.future.done():  # it has begun once, and was to run again
            self.fail(CancelledError())


def tell(future: Future[Any], settle: Callable[[Any], None], content: object) -> None:
    """Settle a future, and log the errors of its callbacks instead of raising them.

    Args:
        future: the future.
        settle: the method of the future, set_result or set_exception.
        content: the value or the error.
    """
    try:
        settle(content)
    except BaseException:  # noqa: BLE001 - such as SystemExit
        _log.exception("exception calling callback for %r", future)


def _unreadable(error: BaseException) -> TransferError | MemoryError:
    text = f"the result cannot be unpickled: {type(error).__name__}: {error}"
    return (MemoryError if isinstance(error, MemoryError) else TransferError)(text)


class Failed:
    """An error in place of a value."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Calls(Job):
    """Calls of one function, made one after the other in one worker: a chunk of a map.

    Args:
        function: the function that is called.
        items: the arguments of each call.
        payload: both, pickled; or `Later`.
        need: bytes that are declared for the chunk; None if nothing is declared.
        sharing: how the large buffers of the calls travel.
        sent: what stands for the function in a message; see `Sharing.once`.
        notify: called when calls have been answered.

    Attributes:
        results: the unread results of the calls that have ended, in order: a value, or
            an error as `Failed`.
        answered: the number of calls that have ended, with those that were split off.
        count: the number of calls of this job.
        result_bytes: bytes of the pickled values so far.
        cancelled: no reader waits for the calls, if the chunk has not begun.
        wanted: a reader may yet read the values.
    """

    __slots__ = (
        *("_done", "_items", "_notify", "_rest", "_sent", "_whole", "answered"),
        *("cancelled", "count", "function", "result_bytes", "results", "wanted"),
    )

    is_chunk = True

    def __init__(
        self,
        function: Callable[..., Any],
        items: list[tuple[Any, ...]],
        payload: bytes | Packed | Later,
        need: int | None,
        *,
        sharing: Sharing,
        sent: Any,
        notify: Callable[[], None],
    ) -> None:
        super().__init__(payload, key_of(function), need)
        self.sharing = sharing
        self.function = function
        self._sent = sent
        self.results: deque[Any] = deque()
        self.answered = self.result_bytes = self._done = 0
        self.count = len(items)
        #: The job that the reader knows, if this one was split off, and the job of the
        #: calls that come next.
        self._whole: Calls | None = None
        self._rest: Calls | None = None
        self.cancelled = False
        self.wanted = True
        self._items = items
        self._notify = notify

    @property
    def size(self) -> int:
        """See `Job.size`."""
        return self.count - self._done

    def split(self, keep: int) -> Calls:
        """See `Job.split`."""
        self.count = self._done + keep
        rest = Calls(
            self.function,
            self._items[self.count :],
            Later(),
            self.need,
            sharing=self.sharing,
            sent=self._sent,
            notify=self._notify,
        )
        rest.folder, rest.inheritance = self.folder, self.inheritance
        rest._whole, rest._rest = self._whole or self, self._rest
        self._items, self.payload, self._rest = self._items[: self.count], None, rest
        return rest

    def message(self) -> bytes | Packed | Later:
        """See `Job.message`."""
        if self.payload is not None and not self._done:
            return self.payload
        # After the death of a worker, the calls that are not answered are sent.
        rest = self._items[self._done :]
        return self._pack((self._sent, rest), self.function)

    def begin(self) -> bool:
        """See `Job.begin`."""
        self.leave_queue()
        self.attempts += 1
        return not (self._whole or self).cancelled

    def take(self, value: object) -> bool:
        """See `Job.take`."""
        if (self._whole or self).wanted:
            self.results.append(value)
        return self._ended()

    def take_some(self, payloads: Sequence[bytes | bytearray]) -> None:
        """See `Job.take_some`."""
        whole = self._whole or self
        for payload in payloads:
            try:
                value = loads(payload)  # noqa: S301 - of our own worker
            except BaseException as error:  # noqa: BLE001 - pickle calls the user's code
                value = Failed(_unreadable(error))
            if whole.wanted:
                self.results.append(value)
            whole.answered += 1
            self._done += 1

    def received(self, size: int) -> None:
        """See `Job.received`."""
        (self._whole or self).result_bytes += size

    def fail(self, error: BaseException) -> bool:
        """See `Job.fail`."""
        if (self._whole or self).wanted:
            self.results.append(Failed(error))
        return self._ended()

    def cancel(self) -> None:
        """See `Job.cancel`."""
        self.leave_queue()
        while not self.fail(CancelledError()):
            pass
        self.wake()

    def _ended(self) -> bool:
        whole = self._whole or self
        whole.answered += 1
        self._done += 1
        if self._done < self.count:
            return False
        self._items, self.payload = [], b""
        if self._rest is not None and self.results is whole.results:
            self._rest.follow(whole)
            self._rest = None
        return True

    def follow(self, whole: Calls) -> None:
        """Give the results to the reader, which has those of all calls before."""
        whole.results.extend(self.results)
        self.results = whole.results
        if not self.size and self._rest is not None:
            self._rest.follow(whole)
            self._rest = None

    def wake(self) -> None:
        """See `Job.wake`."""
        self._notify()
