"""What is waiting or running: a call with its future, or calls of one map together."""

from __future__ import annotations

import logging
import pickle
from collections import deque
from concurrent.futures import CancelledError

from coresize.processes import transfer
from coresize.processes.transfer import TransferError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from concurrent.futures import Future
    from typing import Any


_log = logging.getLogger("concurrent.futures")  # as the standard library does


def key_of(function: object) -> Hashable:
    """What is learned about a function is kept under this."""
    function = getattr(function, "func", function)  # of a functools.partial
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    return (module, name or type(function).__qualname__)


#: Bytes of one call, and of all that wait for a worker, that are pickled at once. What
#: goes beyond is kept as it was given, and pickled when a worker takes it: a hundred
#: calls that share one array would be a hundred copies of it.
AT_ONCE = 1024**2
_WAITING = 32 * 1024**2


class Backlog:
    """The bytes that are pickled and wait for a worker.

    Each number is changed by one side alone: `added` by those who submit, one at a
    time, and `taken` by the thread that serves the workers.
    """

    __slots__ = ("added", "taken")

    def __init__(self) -> None:
        self.added = self.taken = 0

    @property
    def room(self) -> int:
        """Bytes of one call that may be pickled now."""
        return min(AT_ONCE, max(0, _WAITING - (self.added - self.taken)))


class Job:
    """A call, or several: what both have in common.

    Attributes:
        is_chunk: it is several calls of one function, each answered for itself.
        payload: the call or calls, pickled; None until a worker takes them, where they
            are large.
        key: of the function, for what is learned about it.
        need: bytes that were declared for it; None for none.
        number: of the call that is answered next, once it was sent.
        alone: it may only run while nothing else does.
        passed: how often a later one was started before it.
        attempts: how often it was started.
        kills: how often it was killed for memory.
        seen: bytes, the most that was seen of it so far.
        backlog: the bytes that wait, its own among them; None once it was taken.
        folder: the working folder when it was submitted; None where that is not known.
        inheritance: what a worker that is started for it inherits; None where there
            were enough of them when it was submitted.
    """

    __slots__ = (
        *("alone", "attempts", "backlog", "folder", "inheritance", "key", "kills"),
        *("need", "number", "passed", "payload", "seen"),
    )

    is_chunk = False

    def __init__(self, payload: bytes | None, key: Hashable, need: int | None) -> None:
        self.payload = payload
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
        """Bytes that are pickled and wait for a worker."""
        return 0 if self.payload is None else len(self.payload)

    def leave_queue(self) -> None:
        """Count its bytes no more among those that wait."""
        backlog, self.backlog = self.backlog, None
        if backlog is not None:
            backlog.taken += self.waiting_bytes

    def message(self) -> bytes:
        """The call or calls, pickled.

        Raises:
            TransferError: they cannot be pickled.
        """
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many calls are still to be answered."""
        return 1

    def begin(self) -> bool:
        """Take note that it is started; False where it was cancelled."""
        raise NotImplementedError

    def take(self, value: object) -> bool:
        """A value has come; True when nothing more is to come."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> bool:
        """An error has come in place of a value; True when nothing more is to come."""
        raise NotImplementedError

    def cancel(self) -> None:
        """It will not be started."""
        raise NotImplementedError

    def received(self, size: int) -> None:
        """Take note of the bytes of values, before the last of them is taken."""

    def take_pickled(self, payload: bytes | bytearray) -> bool:
        """A value has come as bytes; what cannot be unpickled is an error."""
        try:
            value = pickle.loads(payload)  # noqa: S301 - of our own worker
        except BaseException as error:  # noqa: BLE001 - pickle calls the user's code
            text = f"the result cannot be unpickled: {type(error).__name__}: {error}"
            return self.fail(TransferError(text))
        return self.take(value)

    def abandon(self, error: BaseException) -> None:
        """No more answers will come, begun or not."""
        if self.attempts or self.begin():
            while not self.fail(error):
                pass
            self.wake()

    def measured(self, peak: int) -> None:
        """Take note of the bytes that the worker took at its peak."""

    def wake(self) -> None:
        """Wake whoever waits for answers; futures do so by themselves."""


class Call(Job):
    """One call, with the future that the caller holds.

    The future is a plain one, with attributes besides: ``attempts``, how often its task
    was started; ``result_bytes``, what its value took on its way; and where the pool
    measures it ``peak_memory``, the most bytes that were seen of its worker and what
    that started.

    Args:
        future: the future.
        call: the function, its arguments and its keyword arguments.
        payload: the same, pickled; None where a worker is to take it first.
        need: bytes that were declared for it; None for none.
    """

    __slots__ = ("_call", "future")

    def __init__(
        self,
        future: Future[Any],
        call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]],
        payload: bytes | None,
        need: int | None,
    ) -> None:
        super().__init__(payload, key_of(call[0]), need)
        self.future = future
        # What is pickled is held no longer as it was given.
        self._call = call if payload is None else None

    def message(self) -> bytes:
        """See `Job.message`."""
        if self._call is None:
            return self.payload or b""
        return transfer.dump(self._call, self._call[0])

    def begin(self) -> bool:
        """See `Job.begin`."""
        self.leave_queue()
        self.attempts += 1
        self.future.attempts = self.attempts  # type: ignore[attr-defined]
        # A future that is begun again is running all the time.
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
        """Tell the future, whose callbacks are the user's code."""
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
        elif not self.future.done():  # it was begun once, and is to run again
            self.fail(CancelledError())


def tell(future: Future[Any], settle: Callable[[Any], None], content: object) -> None:
    """Tell a future what came of its call; what a callback raises ends nothing else.

    Args:
        future: the future.
        settle: its method, set_result or set_exception.
        content: the value or the error.
    """
    try:
        settle(content)
    except BaseException:  # noqa: BLE001 - such as SystemExit
        _log.exception("exception calling callback for %r", future)


class Failed:
    """An error in the place of a value."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Calls(Job):
    """Calls of one function, one after the other in one worker: a chunk of a map.

    Args:
        function: what is called.
        items: the arguments of each call.
        payload: both, pickled; None where that is to be done when a worker takes them.
        need: bytes that were declared for it; None for none.
        notify: called when something has ended.

    Attributes:
        results: what came of each that has ended and was not read yet: a value, or an
            error as `Failed`.
        answered: how many have ended.
        count: how many there are.
        result_bytes: bytes that the values took on their way.
        cancelled: nobody waits for what has not begun.
        wanted: somebody may yet read the values.
    """

    __slots__ = (
        *("_items", "_notify", "answered", "cancelled", "count", "function"),
        *("result_bytes", "results", "wanted"),
    )

    is_chunk = True

    def __init__(
        self,
        function: Callable[..., Any],
        items: list[tuple[Any, ...]],
        payload: bytes | None,
        need: int | None,
        notify: Callable[[], None],
    ) -> None:
        super().__init__(payload, key_of(function), need)
        self.function = function
        self.results: deque[Any] = deque()
        self.answered = self.result_bytes = 0
        self.count = len(items)
        self.cancelled = False
        self.wanted = True
        self._items = items
        self._notify = notify

    @property
    def size(self) -> int:
        """See `Job.size`."""
        return self.count - self.answered

    def message(self) -> bytes:
        """See `Job.message`."""
        if self.payload is not None and not self.answered:
            return self.payload
        # After a death: those that have not begun.
        rest = self._items[self.answered :]
        return transfer.dump((self.function, rest), self.function)

    def begin(self) -> bool:
        """See `Job.begin`."""
        self.leave_queue()
        self.attempts += 1
        return not self.cancelled

    def take(self, value: object) -> bool:
        """See `Job.take`."""
        if self.wanted:
            self.results.append(value)
        return self._ended()

    def received(self, size: int) -> None:
        """See `Job.received`."""
        self.result_bytes += size

    def fail(self, error: BaseException) -> bool:
        """See `Job.fail`."""
        if self.wanted:
            self.results.append(Failed(error))
        return self._ended()

    def cancel(self) -> None:
        """See `Job.cancel`."""
        self.leave_queue()
        while not self.fail(CancelledError()):
            pass
        self.wake()

    def _ended(self) -> bool:
        self.answered += 1
        if self.answered < self.count:
            return False
        self._items, self.payload = [], b""
        return True

    def wake(self) -> None:
        """See `Job.wake`."""
        self._notify()


# -----------------------------------------------------------------------------
# How long calls of a function take, and how many to give a worker ahead.


#: Seconds of work that a worker is given ahead, so that it need not wait for more: of
#: single calls, and of calls that are one message.
_AHEAD = {False: 0.002, True: 0.05}
_MOST_BYTES = 32 * 1024

#: Jobs that a worker has at most.
MOST = 64

#: What it costs to call anything at all.
_LEAST = 1e-5


class CallTimes:
    """Seconds of a call, by function."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def learn(self, job: Job, seconds: float) -> None:
        """A call took so long. Slower counts at once, quicker by and by."""
        seconds = max(seconds, _LEAST)
        before = self._seconds.get(job.key, seconds)
        share = 0.5 if seconds > before else 0.1
        self._seconds[job.key] = before + share * (seconds - before)

    def of(self, key: Hashable) -> float | None:
        """Seconds of one call; None where nobody knows."""
        return self._seconds.get(key)

    def ahead(
        self, running: Iterable[Job], waiting: deque[Job], room: int
    ) -> list[Job]:
        """Take from those that wait what a worker may have beside what it runs.

        Only such as are short: what it was given no other worker will do.
        """
        jobs: list[Job] = []
        planned = sum(self._of_all(job) for job in running)
        size = 0
        while waiting and len(jobs) < room:
            job = waiting[0]
            planned += self._of_all(job)
            size += job.waiting_bytes
            large = job.payload is None or size > _MOST_BYTES
            if planned > _AHEAD[job.is_chunk] or large:
                break
            jobs.append(waiting.popleft())
        return jobs

    def _of_all(self, job: Job) -> float:
        """Seconds of all calls of a job; for ever where nobody knows."""
        return self._seconds.get(job.key, float("inf")) * job.size
