"""What other threads pass to the dispatcher: jobs, and requests to end."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures.process import BrokenProcessPool

from coresize import processes
from coresize.executor.jobs import Backlog


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from coresize.executor.jobs import Job

#: Seconds after which a waiting thread looks again, even if it is not notified.
_PATIENCE = 0.1


class Submitted:
    """The jobs that have arrived, and the socket that wakes the dispatcher.

    Attributes:
        lock: held by a thread that adds a job, or changes an attribute for the
            dispatcher to see.
        arrived: the jobs that the dispatcher has not taken yet, in order.
        backlog: the bytes of jobs that are pickled and wait for a worker.
        closing: no more jobs are taken.
        cancelling: the jobs that have not begun are to be cancelled.
        terminated: the workers are to get SIGTERM as well.
        interrupted: the workers are to be killed as well.
        resting: no job is expected soon, so workers that hold much memory may end.
        broken: why no job can be taken; None if jobs are taken.
        cause: the error behind ``broken``, or None.
        asleep: the dispatcher waits, or is about to wait, for an event.
        wakeup: the socket that becomes readable to wake the dispatcher.
        ended: the dispatcher has ended.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.arrived: deque[Job] = deque()
        self.backlog = Backlog()
        self.closing = self.cancelling = self.ended = False
        self.terminated = self.interrupted = self.resting = False
        self.broken: str | None = None
        self.cause: BaseException | None = None
        self.asleep = False
        self._settled = threading.Condition(self.lock)
        self._watched = 0
        self.wakeup, self._waker = processes.socket_pair()
        self.wakeup.settimeout(0)
        self._waker.settimeout(0)

    @property
    def is_open(self) -> bool:
        """Whether jobs are taken."""
        return not (self.closing or self.ended or self.broken is not None)

    def take_rest(self) -> bool:
        """Whether the dispatcher was told that no job is expected soon; once."""
        rests, self.resting = self.resting, False
        return rests

    def put(self, job: Job) -> bool:
        """Take a job; returns whether the dispatcher sleeps, and has to be woken.

        Raises:
            BrokenProcessPool: workers cannot start.
            RuntimeError: the pool is closed.
        """
        with self.lock:
            if self.broken is not None:
                raise self.error()
            if self.closing:
                msg = "cannot schedule new futures after shutdown"
                raise RuntimeError(msg)
            job.backlog = self.backlog
            self.backlog.added += job.waiting_bytes
            self.arrived.append(job)
            asleep, self.asleep = self.asleep, False  # one call wakes it for all
            return asleep

    def take_back(self, job: Job) -> None:
        """Remove a job whose caller gets an error, if it is still in ``arrived``."""
        with self.lock, contextlib.suppress(ValueError):
            self.arrived.remove(job)
            job.leave_queue()

    def spoil(self, why: str, cause: BaseException | None) -> None:
        """Take no more jobs, since the pool is broken.

        Args:
            why: the text of the errors that jobs get from now on.
            cause: the error behind that, or None.
        """
        with self.lock:
            self.broken, self.cause = why, cause

    def error(self) -> BrokenProcessPool:
        """A new error that says why no job is taken."""
        error = BrokenProcessPool(self.broken)
        error.__cause__ = self.cause
        return error

    def shut(self, *, cancel: bool, terminate: bool, interrupt: bool) -> None:
        """Take no more jobs; for the arguments see `Dispatcher.close`."""
        with self.lock:
            self.closing = True
            self.cancelling |= cancel or terminate or interrupt
            self.terminated |= terminate
            self.interrupted |= interrupt

    def wake(self) -> None:
        """Wake the dispatcher, if it waits for an event."""
        with self.lock:
            asleep, self.asleep = self.asleep, False
        if asleep:
            self.ring()

    def ring(self) -> None:
        """Wake the dispatcher, which `put` has told to be asleep."""
        with contextlib.suppress(OSError):  # already woken, or ended
            self._waker.send(b"!")

    def drain(self, _events: int) -> None:
        """Read the bytes that have woken the dispatcher."""
        with contextlib.suppress(BlockingIOError):
            self.wakeup.recv(4096)

    def wait_until(self, settled: Callable[[], bool]) -> None:
        """Wait until a condition is true, or the dispatcher ends.

        Args:
            settled: returns whether the condition is true; called, with the lock held,
                after each turn of the dispatcher.
        """
        with self._settled:
            self._watched += 1
            while not (settled() or self.ended):
                self._settled.wait(_PATIENCE)
            self._watched -= 1

    def settle(self) -> None:
        """Notify waiting threads that a turn has given all jobs that it could give."""
        if self._watched:
            with self._settled:
                self._settled.notify_all()

    def close(self) -> None:
        """Close the sockets: the dispatcher has ended."""
        with self._settled:
            self.ended = True
            self._settled.notify_all()
        self.wakeup.close()
        self._waker.close()
