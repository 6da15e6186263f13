"""What other threads say to the dispatcher: jobs, and that it should end."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures.process import BrokenProcessPool

from coresize import processes
from coresize.executor.jobs import Backlog


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.jobs import Job


class Mailbox:
    """Jobs that have arrived, and a bell that wakes who sleeps.

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
        asleep: the dispatcher waits for the bell.
        bell: what becomes readable when it rings.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.arrived: deque[Job] = deque()
        self.backlog = Backlog()
        self.closing = self.cancelling = False
        self.terminated = self.interrupted = False
        self.broken: str | None = None
        self.cause: BaseException | None = None
        self.asleep = False
        self.bell, self._rope = processes.socket_pair()
        self.bell.settimeout(0)
        self._rope.settimeout(0)

    def put(self, job: Job) -> None:
        """Take a job.

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

    def ring(self) -> None:
        """Wake the dispatcher, if it sleeps."""
        if self.asleep:
            with contextlib.suppress(OSError):  # it is awake, or has ended
                self._rope.send(b"!")

    def heard(self, _events: int) -> None:
        """The bell has rung."""
        with contextlib.suppress(BlockingIOError):
            self.bell.recv(4096)

    def close(self) -> None:
        """Take the bell down."""
        self.bell.close()
        self._rope.close()
