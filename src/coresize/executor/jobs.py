"""What is waiting or running: a call with its future, or calls of one map together."""

from __future__ import annotations

import pickle
from collections import deque
from concurrent.futures import CancelledError

from coresize import transfer
from coresize.executor import frames
from coresize.transfer import TransferError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from concurrent.futures import Future
    from typing import Any


def key_of(function: object) -> Hashable:
    """What is learned about a function is kept under this."""
    function = getattr(function, "func", function)  # of a functools.partial
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    return (module, name or type(function).__qualname__)


class Job:
    """A call, or several: what both have in common.

    Attributes:
        kind: of the message.
        payload: the call or calls, pickled.
        key: of the function, for what is learned about it.
        need: bytes that were declared for it; None for none.
        alone: it may only run while nothing else does.
        passed: how often a later one was started before it.
        attempts: how often it was started.
        kills: how often it was killed for memory.
        seen: bytes, the most that was seen of it so far.
        folder: the working folder when it was submitted; None where that is not known.
        inheritance: what a worker that is started for it inherits; None where there
            were enough of them when it was submitted.
    """

    __slots__ = (
        *("alone", "attempts", "key", "kills", "need", "passed", "payload", "seen"),
        *("folder", "inheritance"),
    )

    kind = frames.CALL

    def __init__(self, payload: bytes, key: Hashable, need: int | None) -> None:
        self.payload = payload
        self.key = key
        self.need = need
        self.folder: str | None = None
        self.inheritance: Any = None
        self.alone = False
        self.passed = self.attempts = self.kills = self.seen = 0

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

    def take_pickled(self, payload: bytes) -> bool:
        """A value has come as bytes; what cannot be unpickled is an error."""
        try:
            value = pickle.loads(payload)  # noqa: S301 - of our own worker
        except Exception as error:  # noqa: BLE001 - pickle calls the user's code
            text = f"the result cannot be unpickled: {type(error).__name__}: {error}"
            return self.fail(TransferError(text))
        return self.take(value)

    def abandon(self, error: BaseException) -> None:
        """No more answers will come, begun or not."""
        if self.attempts or self.begin():
            while not self.fail(error):
                pass
            self.ring()

    def measured(self, peak: int) -> None:
        """Take note of the bytes that the worker took at its peak."""

    def ring(self) -> None:
        """Wake whoever waits for answers; futures do so by themselves."""


class Call(Job):
    """One call, with the future that the caller holds.

    The future is a plain one, with two attributes besides: ``attempts``, how often its
    task was started, and where the pool measures it ``peak_memory``, the most bytes
    that were seen of its worker and what that started.
    """

    __slots__ = ("future",)

    def __init__(
        self, future: Future[Any], payload: bytes, key: Hashable, need: int | None
    ) -> None:
        super().__init__(payload, key, need)
        self.future = future

    def begin(self) -> bool:
        """See `Job.begin`."""
        self.attempts += 1
        self.future.attempts = self.attempts  # type: ignore[attr-defined]
        # A future that is begun again is running all the time.
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def take(self, value: object) -> bool:
        """See `Job.take`."""
        self.future.set_result(value)
        return True

    def fail(self, error: BaseException) -> bool:
        """See `Job.fail`."""
        self.future.set_exception(error)
        return True

    def measured(self, peak: int) -> None:
        """See `Job.measured`."""
        self.future.peak_memory = peak  # type: ignore[attr-defined]

    def cancel(self) -> None:
        """See `Job.cancel`."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()
        else:  # it was begun once, and is to run again
            self.future.set_exception(CancelledError())


class Failed:
    """An error in the place of a value."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Calls(Job):
    """Calls of one function, one after the other in one worker.

    Attributes:
        results: what came of each that has ended and was not read yet: a value, or an
            error as `Failed`.
        answered: how many have ended.
        count: how many there are.
        cancelled: nobody waits for what has not begun.
    """

    __slots__ = (
        *("_items", "_notify", "answered", "cancelled", "count", "function"),
        "results",
    )

    kind = frames.CALLS

    def __init__(
        self,
        function: Callable[..., Any],
        items: list[tuple[Any, ...]],
        need: int | None,
        notify: Callable[[], None],
    ) -> None:
        super().__init__(dump_calls(function, items), key_of(function), need)
        self.function = function
        self.results: deque[Any] = deque()
        self.answered = 0
        self.count = len(items)
        self.cancelled = False
        self._items = items
        self._notify = notify

    @property
    def size(self) -> int:
        """See `Job.size`."""
        return self.count - self.answered

    def begin(self) -> bool:
        """See `Job.begin`."""
        self.attempts += 1
        if self.answered:  # after a death: those that have not begun
            rest = self._items[self.answered :]
            self.payload = dump_calls(self.function, rest)
        return not self.cancelled

    def take(self, value: object) -> bool:
        """See `Job.take`."""
        self.results.append(value)
        return self._ended()

    def fail(self, error: BaseException) -> bool:
        """See `Job.fail`."""
        self.results.append(Failed(error))
        return self._ended()

    def cancel(self) -> None:
        """See `Job.cancel`."""
        while not self.fail(CancelledError()):
            pass
        self.ring()

    def _ended(self) -> bool:
        self.answered += 1
        if self.answered < self.count:
            return False
        self._items, self.payload = [], b""
        return True

    def ring(self) -> None:
        """See `Job.ring`."""
        self._notify()


def dump_calls(function: Callable[..., Any], items: list[tuple[Any, ...]]) -> bytes:
    """Several calls of one function, pickled.

    Raises:
        TransferError: they cannot be pickled.
    """
    return transfer.dump((function, items), function)
