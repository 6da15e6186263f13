"""The tasks in flight: submitted and not yet answered; and those to be tried again."""

from __future__ import annotations

import contextlib
import heapq
import logging
import queue
import time
from concurrent.futures import BrokenExecutor, CancelledError, Future
from itertools import count
from typing import TYPE_CHECKING

from coresize.batch.outcomes import Outcome, status_of
from coresize.errors import CoresizeError
from coresize.executor.mapping import MOST_BYTES
from coresize.processes import transfer
from coresize.units import estimate, expect


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from coresize.batch.executors import Pool
    from coresize.batch.inputs import Entry
    from coresize.batch.task import Answer, Task

_log = logging.getLogger("coresize")

#: Tasks submitted ahead: enough for all workers, and for so many seconds at the rate
#: that is seen; where they are quick, that is what keeps workers busy.
_AHEAD, _SECONDS, _MOST = 4, 0.1, 1024

#: Seconds before a task is tried again: the first time, and at most.
_BACKOFF, _LONGEST = 0.5, 60.0


#: Tasks that an executor is given at first where nobody knows how many it runs at a
#: time; and by how much the throughput has to grow for twice as many.
_FIRST, _GROWS = 16, 1.1


class Window:
    """How many tasks are in flight in an executor whose number of slots is unknown.

    The size doubles after each round, as long as that makes the executor faster. A
    round is over when as many tasks have ended as were in flight.
    """

    def __init__(self) -> None:
        self.size = _FIRST
        self._settled = False
        self._rate = 0.0
        self._ended = 0
        self._since = time.monotonic()

    def note_end(self) -> None:
        """A task has ended."""
        self._ended += 1
        if self._settled or self._ended < self.size:
            return
        now = time.monotonic()
        rate = self._ended / max(now - self._since, 1e-6)
        self._ended, self._since = 0, now
        if rate > self._rate * _GROWS and self.size < _MOST:
            self._rate = rate
            self.size *= 2
            return
        self._settled = True
        _log.info(
            "the executor does not say how many tasks it runs at a time: %d in flight, "
            "as more of them do not end sooner",
            self.size,
        )


class InFlight:
    """The tasks of one batch that an executor has.

    Args:
        pool: the executor.
        task: what is called with each item.
        ahead: tasks that may be submitted ahead; None goes by the rate.
    """

    def __init__(self, pool: Pool, task: Task, ahead: int | None) -> None:
        self._pool = pool
        self._task = task
        self._ahead = ahead
        self.futures: dict[Future[Answer], Entry] = {}
        self._answered_futures: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        self._later: list[tuple[float, int, Entry]] = []
        self._order = count()
        self._each = 0.0
        self._window = None if pool.slots else Window()
        self.broken: RuntimeError | None = None

    @property
    def pending(self) -> int:
        """Tasks that are in flight or to be tried again."""
        return len(self.futures) + len(self._later)

    def has_room(self, rate: float, ended: int) -> bool:
        """Whether one more may be submitted.

        Args:
            rate: tasks a second, as seen so far.
            ended: tasks that have ended and whose results are still held.
        """
        if self.broken:
            return False
        if self._pool.is_serial:  # what is submitted has ended
            return not self.futures
        slots = self._pool.slots or 0
        most = self._ahead
        if most is None and self._window is not None:
            most = self._window.size
        elif most is None:
            # A pool that breaks loses all of them.
            more = 0 if self._pool.breaks else int(rate * _SECONDS)
            most = min(_AHEAD * slots + more, _MOST)
        if (len(self.futures) + ended) * self._each > MOST_BYTES:
            most = slots
        return len(self.futures) < max(most, slots, 1)

    def start(self, entry: Entry) -> None:
        """Submit a task."""
        entry.tries += 1
        entry.began = time.monotonic()
        try:
            future = self._pool.executor.submit(self._task, entry.item)
        except RuntimeError as error:  # broken, or shut down
            entry.tries -= 1
            self.broken = error
            self.retry(entry, 0.0)
            return
        except Exception as error:  # noqa: BLE001 - of this task alone
            future = Future()
            future.set_exception(error)
        self.futures[future] = entry
        future.add_done_callback(self._answered)

    def _answered(self, future: Future[Answer]) -> None:
        entry = self.futures[future]
        entry.seconds = time.monotonic() - entry.began
        self._answered_futures.put(future)

    def retry(self, entry: Entry, delay: float | None = None) -> None:
        """Try a task again, after a while that doubles each time, up to a minute."""
        if delay is None:
            delay = min(_BACKOFF * 2 ** (entry.tries - 1), _LONGEST)
        due = time.monotonic() + delay
        heapq.heappush(self._later, (due, next(self._order), entry))

    def due(self) -> Iterator[Entry]:
        """The tasks whose time has come to be tried again."""
        while self._later and not self.broken and self._later[0][0] <= time.monotonic():
            yield heapq.heappop(self._later)[2]

    def completed(self, patience: float) -> Iterator[tuple[Entry, Future[Answer]]]:
        """The tasks that have been answered; waits for one, but not for ever.

        Args:
            patience: seconds.
        """
        if self._later:
            patience = min(patience, max(0.0, self._later[0][0] - time.monotonic()))
        try:
            future = self._answered_futures.get(timeout=patience)
            while True:
                self._each = expect(self._each, _size_of_result(future))
                if self._window is not None:
                    self._window.note_end()
                yield self.futures.pop(future), future
                future = self._answered_futures.get_nowait()
        except queue.Empty:
            return

    def cancel(self) -> list[Entry]:
        """Cancel what has not begun; the entries that will not be tried again."""
        for future in self.futures:
            with contextlib.suppress(Exception):  # somebody else's; it runs on
                future.cancel()
        dropped = [entry for _, _, entry in self._later]
        self._later.clear()
        return dropped


def outcome_of(
    entry: Entry, future: Future[Answer], decode: Callable[[Any], object] | None
) -> tuple[Outcome, object, float | None]:
    """What became of a task; its value as written; when it began, if it did."""
    attempts = max(entry.tries - 1 + (_told(future, "attempts") or 1), 1)
    seen = _told(future, "peak_memory")
    error = _error_of(future)
    if error is not None:
        return _ended(entry, error, attempts, seen), None, None
    good, written, text, wall, cpu, waited, peak, worker, began = future.result()
    value, failure = written, None
    if not good:
        value, failure = None, written
        if isinstance(written, tuple):
            text = written[1]
            failure = transfer.load_error(*written)
    elif decode is not None:
        try:
            value = decode(written)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:  # noqa: BLE001 - a pickle calls the user's code
            good, value, failure = False, None, _unreadable(reason)
            text = transfer.traceback_of(reason)
    outcome = Outcome(
        key=entry.key,
        index=entry.index,
        status="ok" if good else "failed",
        value=value,
        error=failure,
        traceback=text,
        attempts=attempts,
        peak_memory=max(filter(None, (peak, seen)), default=None),
        wall=wall,
        cpu=cpu,
        waited=waited,
        worker=worker,
    )
    return outcome, written if good else None, began


def _told(future: object, name: str) -> int | None:
    """A number that a pool of coresize has left at its future; None of any other.

    It is not asked for as an attribute: some futures have any attribute, as proxies.
    """
    attributes = getattr(future, "__dict__", None)
    number = attributes.get(name) if type(attributes) is dict else None
    return number if type(number) is int else None


def _error_of(future: Future[Answer]) -> BaseException | None:
    """What a task has raised; or what its future raises when it is asked."""
    try:
        return CancelledError() if future.cancelled() else future.exception()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - it is the answer
        return error


def _size_of_result(future: Future[Answer]) -> int:
    """Bytes of what a task has returned, or about as many."""
    size = _told(future, "result_bytes")
    if size is None and _error_of(future) is None:
        size = estimate(future.result()[1])
    return size or 0


def _unreadable(error: BaseException) -> transfer.TransferError:
    """For a value that cannot be read back, so that no later start could either."""
    text = f"{type(error).__name__}: {error}"
    msg = f"the result cannot be read back as it was written for the journal: {text}"
    return transfer.TransferError(msg)


def _ended(
    entry: Entry, error: BaseException, attempts: int, seen: int | None
) -> Outcome:
    """The outcome of a task whose function did not come to its end."""
    status = status_of(error)
    if isinstance(error, CancelledError):
        status, attempts = "cancelled", entry.tries - 1
    elif isinstance(error, KeyboardInterrupt):  # Ctrl-C reaches workers, too
        status = "cancelled"
    elif isinstance(error, BrokenExecutor):
        status = "crashed"
    quiet = isinstance(error, (CoresizeError, CancelledError)) and not error.__cause__
    return Outcome(
        key=entry.key,
        index=entry.index,
        status=status,
        value=None,
        error=error,
        traceback="" if quiet else transfer.traceback_of(error),
        attempts=attempts,
        peak_memory=seen,
        wall=0.0 if status == "cancelled" else entry.seconds,
        cpu=0.0,
        waited=0.0,
        worker="",
    )
