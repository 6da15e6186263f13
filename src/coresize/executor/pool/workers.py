"""The workers of a pool, and what to listen to."""

from __future__ import annotations

import selectors
import time
from functools import partial

from coresize.executor.pool.exits import Starts
from coresize.executor.pool.handle import Outgoing, WorkerHandle


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from coresize.executor.pool.options import PoolOptions
    from coresize.processes.inheritance import Inheritance


#: Seconds that workers have to end by themselves.
_PATIENCE = 5.0


class Workers:
    """The workers of a pool, with the selector that tells of them.

    Args:
        options: what workers are like.
        size: how many there may be.
        environment: variables that each has from its start.
        exchange: called with a worker and events when its socket is ready.
        on_exit: called with a worker when its process has ended.
    """

    def __init__(
        self,
        options: PoolOptions,
        size: int,
        environment: dict[str, str],
        exchange: Callable[[WorkerHandle, int], None],
        on_exit: Callable[[WorkerHandle], None],
    ) -> None:
        self.handles: list[WorkerHandle] = []
        self.selector = selectors.DefaultSelector()
        self.starts = Starts()
        self.size = size
        self.environment = environment
        self._options = options
        self._exchange = exchange
        self._on_exit = on_exit
        self._number = 0
        self._outgoing = Outgoing()

    def listen_to(self, wakeup: socket.socket, drain: Callable[[int], None]) -> None:
        """Tell when a wakeup has rung."""
        self.selector.register(wakeup, selectors.EVENT_READ, drain)

    @property
    def busy(self) -> list[WorkerHandle]:
        """Those that have something to do."""
        return [worker for worker in self.handles if worker.running]

    @property
    def has_room(self) -> bool:
        """Whether one more may be started: who forks later forks beside threads."""
        room = len(self.handles) < self.size
        return room and not self._options.forks and self.starts.may_try

    def empty(self) -> bool:
        """End all workers; whether there are none left, or they cannot be replaced.

        What they keep of earlier tasks is memory that one task alone may need.
        """
        if self._options.forks:
            return True
        for worker in self.handles:
            if not worker.ready and not worker.kill_reason:  # it may never be
                worker.kill("unused")
            elif not worker.stopping and not worker.stop():
                self.listen(worker, writing=True)
        return not self.handles

    def resize(self, size: int) -> None:
        """Have as many as that; where there are more, the idlest are told to end.

        Args:
            size: how many there may be. A pool that forks starts none later.
        """
        if size == self.size:
            return
        self.size = size
        staying = [worker for worker in self.handles if not worker.stopping]
        for worker in sorted(staying, key=lambda worker: len(worker.running))[
            : max(0, len(staying) - size)
        ]:
            if not worker.stop():
                self.listen(worker, writing=True)

    def add(
        self, inheritance: Inheritance, environment: dict[str, str] | None = None
    ) -> WorkerHandle:
        """Start a worker.

        Args:
            inheritance: what it inherits.
            environment: variables that this one has besides those of all.

        Raises:
            Exception: it cannot be started.
        """
        self._number += 1
        worker = WorkerHandle(
            self._options,
            self._number,
            self._outgoing,
            self._options.bequeathed(
                inheritance, {**self.environment, **(environment or {})}
            ),
        )
        try:
            self.listen(worker, writing=False)
            self.selector.register(
                worker.gone, selectors.EVENT_READ, lambda _: self._on_exit(worker)
            )
        except BaseException:
            self.ignore(worker)
            worker.kill("unused")
            worker.reap()
            raise
        self.handles.append(worker)
        return worker

    def listen(self, worker: WorkerHandle, *, writing: bool) -> None:
        """Tell when a worker has written, and when more can be written to it."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        change = self.selector.modify if worker.watched else self.selector.register
        change(worker.pipe, events, partial(self._exchange, worker))
        worker.watched = True

    def flush(self) -> None:
        """Write what had to wait until less was on its way."""
        if self._outgoing.held and self._outgoing.has_room():
            self._outgoing.held = False
            for worker in self.handles:
                if not worker.flush():
                    self.listen(worker, writing=True)

    def ignore(self, worker: WorkerHandle) -> None:
        """Tell no more of its socket; its end is told by other means."""
        if worker.watched:
            self.selector.unregister(worker.pipe)
            worker.watched = False

    def remove(self, worker: WorkerHandle) -> int | None:
        """Forget a worker that has ended; with what exit code."""
        self.selector.unregister(worker.gone)
        self.ignore(worker)
        self.handles.remove(worker)
        return worker.reap()

    def drop(self, worker: WorkerHandle) -> None:
        """End a worker that has begun nothing, and wait for that."""
        worker.kill("unused")
        self.remove(worker)

    def end(self) -> None:
        """Let workers end by themselves, those that have begun to work at all."""
        for worker in self.handles:
            if worker.ready and not worker.kill_reason:
                worker.stop()
            elif not worker.kill_reason:
                worker.kill("unused")
        end = time.monotonic() + _PATIENCE
        for worker in self.handles:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.exitcode is None:
                worker.kill("slow")
            worker.reap()
        self.handles.clear()
        self.selector.close()
