"""The tasks in flight, which have no answer yet, and those that wait for a retry."""

from __future__ import annotations

import contextlib
import heapq
import logging
import queue
import time
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Future
from itertools import count
from typing import TYPE_CHECKING

from coresize.batch.outcomes import Outcome, status_of
from coresize.errors import CoresizeError, TaskOutOfMemoryError
from coresize.executor.mapping import MOST_BYTES
from coresize.executor.traits import submit_to
from coresize.executor.verdicts import verdict_of
from coresize.processes import transfer
from coresize.units import estimate, expect


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from coresize.batch.executors import Pool
    from coresize.batch.inputs import Entry
    from coresize.batch.outcomes import Status
    from coresize.batch.task import Answer, Task

_log = logging.getLogger("coresize")

#: Tasks submitted ahead: _AHEAD for each worker, plus the tasks of _SECONDS at the
#: current rate, which keep workers busy with quick tasks; at most _MOST.
_AHEAD, _SECONDS, _MOST = 4, 0.1, 1024

#: Statuses of tasks whose worker has died.
_DEATHS = ("killed", "oom", "crashed")

#: Seconds before a retry: of the first retry, and at most.
_BACKOFF, _LONGEST = 0.5, 60.0


#: The first size of a `Window`, and the growth of the throughput that doubles the size.
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
        """Note that a task has ended, and adapt the size after each round."""
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
    """The tasks of one batch that are in flight or wait for a retry.

    Args:
        pool: the executor.
        task: the task; it is called with one item.
        ahead: how many tasks may be submitted ahead; None adapts it to the rate.
    """

    def __init__(self, pool: Pool, task: Task, ahead: int | None) -> None:
        self._pool = pool
        self._task = task
        self._ahead = ahead
        self.futures: dict[Future[Answer], Entry] = {}
        self._answered_futures: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        self._later: list[tuple[float, int, Entry]] = []
        self._suspects: deque[Entry] = deque()
        self._order = count()
        self._each = 0.0
        self._window = None if pool.slots else Window()
        self.broken: RuntimeError | None = None

    @property
    def pending(self) -> int:
        """Number of tasks that are in flight or are to run again."""
        return len(self.futures) + len(self._later) + len(self._suspects)

    def has_room(self, rate: float, ended: int) -> bool:
        """Whether one more task may be submitted.

        Args:
            rate: tasks per second so far.
            ended: number of tasks that have ended and whose results are still held.
        """
        if self.broken:
            return False
        if self._pool.is_serial:  # a submitted task has ended already
            return not self.futures
        slots = self._pool.slots or 0
        most = self._ahead
        if most is None and self._window is not None:
            most = self._window.size
        elif most is None:
            # A pool that breaks loses all submitted tasks.
            more = 0 if self._pool.breaks else int(rate * _SECONDS)
            most = min(_AHEAD * slots + more, _MOST)
        if (len(self.futures) + ended) * self._each > MOST_BYTES:
            most = slots
        return len(self.futures) < max(most, slots, 1)

    def start(self, entry: Entry) -> None:
        """Submit the task of an entry."""
        entry.tries += 1
        entry.began = time.monotonic()
        try:
            future = submit_to(self._pool.executor, self._task, (entry.item,), {})
        except RuntimeError as error:  # the executor is broken or shut down
            entry.tries -= 1
            self.broken = error
            self.retry(entry, 0.0)
            return
        except Exception as error:  # noqa: BLE001 - it fails this task alone
            future = Future()
            future.set_exception(error)
        self.futures[future] = entry
        future.add_done_callback(self._answered)

    def _answered(self, future: Future[Answer]) -> None:
        entry = self.futures[future]
        entry.seconds = time.monotonic() - entry.began
        self._answered_futures.put(future)

    def retry(self, entry: Entry, delay: float | None = None) -> None:
        """Schedule a retry, after a delay that doubles each time, up to a minute."""
        if delay is None:
            delay = min(_BACKOFF * 2 ** (entry.tries - 1), _LONGEST)
        due = time.monotonic() + delay
        heapq.heappush(self._later, (due, next(self._order), entry))

    def suspects(self, entry: Entry, outcome: Outcome) -> bool:
        """Whether a task died that may have been innocent; it runs again, alone.

        The task that has caused the death of a worker dies when it runs alone, too.
        """
        died = outcome.status in _DEATHS and not entry.alone
        if not (died and self._pool.traits.suspects) or self.broken:
            return False
        entry.alone = True
        self._suspects.append(entry)
        return True

    def start_suspect(self) -> None:
        """Start the next task that has to run alone, unless another task is pending."""
        if self._suspects and not (self.futures or self._later or self.broken):
            self.start(self._suspects.popleft())

    def due(self) -> Iterator[Entry]:
        """Yield the entries whose retry is due."""
        while self._later and not self.broken and self._later[0][0] <= time.monotonic():
            yield heapq.heappop(self._later)[2]

    def completed(self, patience: float) -> Iterator[tuple[Entry, Future[Answer]]]:
        """Yield the tasks that have an answer; waits for the first one.

        Args:
            patience: the most seconds to wait.
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
        """Cancel tasks that have not begun; returns the entries that get no retry."""
        for future in self.futures:
            with contextlib.suppress(Exception):  # of a foreign executor; the task runs
                future.cancel()
        dropped = [*self._suspects, *(entry for _, _, entry in self._later)]
        self._suspects.clear()
        self._later.clear()
        return dropped


def outcome_of(
    entry: Entry, future: Future[Answer], decode: Callable[[Any], object] | None
) -> tuple[Outcome, object, float | None]:
    """The outcome of a task; its encoded value; the time when it began, or None."""
    attempts = max(entry.tries - 1 + (_number_at(future, "attempts") or 1), 1)
    seen = _number_at(future, "peak_memory")
    shared = _number_at(future, "shared_memory")
    error = _error_of(future)
    if error is not None:
        return _ended(entry, error, attempts, seen, shared), None, None
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
        status="ok" if good else _status_of_failure(failure),
        value=value,
        error=failure,
        traceback=text,
        attempts=attempts,
        peak_memory=max(filter(None, (peak, seen)), default=None),
        shared_memory=shared,
        wall=wall,
        cpu=cpu,
        waited=waited,
        worker=worker,
    )
    return outcome, written if good else None, began


def _status_of_failure(error: BaseException | None) -> Status:
    """The status of a task that has raised an error: "oom" for memory, else "failed".

    A task that has waited for another pool may raise that pool's errors. Those of time
    and of crashes say nothing of this task's own worker.
    """
    # Not isinstance: an error of the user's may lie about its class.
    return "oom" if issubclass(type(error), TaskOutOfMemoryError) else "failed"


def _number_at(future: object, name: str) -> int | None:
    """A number that a pool of coresize has set on its future; None on other futures.

    The lookup uses ``__dict__``, since proxies of futures have any attribute.
    """
    attributes = getattr(future, "__dict__", None)
    number = attributes.get(name) if type(attributes) is dict else None
    return number if type(number) is int else None


def _error_of(future: Future[Answer]) -> BaseException | None:
    """The error of a task; or the error that its future raises on access; or None."""
    try:
        return CancelledError() if future.cancelled() else future.exception()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - it is the answer
        return error


def _size_of_result(future: Future[Answer]) -> int:
    """Bytes of the value that a task has returned, or an estimate."""
    size = _number_at(future, "result_bytes")
    if size is None and _error_of(future) is None:
        size = estimate(future.result()[1])
    return size or 0


def _unreadable(error: BaseException) -> transfer.TransferError:
    """The error for a value that cannot be decoded, so no later start could read it."""
    text = f"{type(error).__name__}: {error}"
    msg = f"the result cannot be read back as it was written for the journal: {text}"
    return transfer.TransferError(msg)


def _ended(
    entry: Entry,
    error: BaseException,
    attempts: int,
    seen: int | None,
    shared: int | None,
) -> Outcome:
    """The outcome of a task whose executor returned an error instead of an answer."""
    status = verdict_of(error) or status_of(error)
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
        shared_memory=shared,
        wall=0.0 if status == "cancelled" else entry.seconds,
        cpu=0.0,
        waited=0.0,
        worker="",
    )
