"""What other threads submit to the dispatcher: jobs, and that it should end."""

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

#: Seconds after which it is looked again, whoever notifies.
_PATIENCE = 0.1


class Submitted:
    """Jobs that have arrived, and the socket that wakes the dispatcher.

    Attributes:
        lock: held by whoever changes what is below.
        arrived: the jobs, in their order.
        backlog: the bytes of jobs that are pickled and wait for a worker.
        closing: none is taken any more.
        cancelling: those that have not begun are to be cancelled.
        terminated: those that run are to get SIGTERM as well.
        interrupted: those that run are to be killed as well.
        broken: why none can be taken; None where they can.
        cause: the error behind that, if one is.
        asleep: the dispatcher waits for the wakeup.
        wakeup: the socket that becomes readable then.
        ended: the dispatcher has ended.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.arrived: deque[Job] = deque()
        self.backlog = Backlog()
        self.closing = self.cancelling = self.ended = False
        self.terminated = self.interrupted = False
        self.broken: str | None = None
        self.cause: BaseException | None = None
        self.asleep = False
        self._settled = threading.Condition(self.lock)
        self._watched = 0
        self.wakeup, self._waker = processes.socket_pair()
        self.wakeup.settimeout(0)
        self._waker.settimeout(0)

    def put(self, job: Job) -> bool:
        """Take a job; whether the dispatcher sleeps, and has to be woken.

        Raises:
            BrokenProcessPool: workers cannot start.
            RuntimeError: it is closed.
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
            return self.asleep

    def take_back(self, job: Job) -> None:
        """Forget a job, if it is still there: its caller gets an error."""
        with self.lock, contextlib.suppress(ValueError):
            self.arrived.remove(job)
            job.leave_queue()

    def spoil(self, why: str, cause: BaseException | None) -> None:
        """Take no more, for a reason."""
        with self.lock:
            self.broken, self.cause = why, cause

    def error(self) -> BrokenProcessPool:
        """Why no job is taken, as an error."""
        error = BrokenProcessPool(self.broken)
        error.__cause__ = self.cause
        return error

    def shut(self, *, cancel: bool, terminate: bool, interrupt: bool) -> None:
        """Take no more."""
        with self.lock:
            self.closing = True
            self.cancelling |= cancel or terminate or interrupt
            self.terminated |= terminate
            self.interrupted |= interrupt

    def wake(self) -> None:
        """Wake the dispatcher, if it sleeps."""
        with self.lock:
            asleep = self.asleep
        if asleep:
            with contextlib.suppress(OSError):  # it is awake, or has ended
                self._waker.send(b"!")

    def drain(self, _events: int) -> None:
        """Read what has woken the dispatcher."""
        with contextlib.suppress(BlockingIOError):
            self.wakeup.recv(4096)

    def wait_until(self, settled: Callable[[], bool]) -> None:
        """Wait until something is true of what was submitted, or the dispatcher ends.

        Args:
            settled: looks whether it is true, after each turn of the dispatcher.
        """
        with self._settled:
            self._watched += 1
            while not (settled() or self.ended):
                self._settled.wait(_PATIENCE)
            self._watched -= 1

    def settle(self) -> None:
        """A turn of the dispatcher has given what could be given."""
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
