"""The workers of a pool, and the selector that reports their events."""

from __future__ import annotations

import selectors
import time
from functools import partial

from coresize.executor.pool.exits import Starts
from coresize.executor.pool.handle import FILES, WorkerHandle, keep_free
from coresize.executor.pool.outgoing import Outgoing


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from coresize.executor.jobs import Job
    from coresize.executor.pool.options import PoolOptions
    from coresize.processes.forkserver import Channel
    from coresize.processes.inheritance import Inheritance


#: Seconds in which workers may end by themselves.
_PATIENCE = 5.0

#: A worker that keeps more than these bytes of its tasks ends sooner: after these
#: seconds in which it is idle.
_MUCH, _SOON = 300 * 1024**2, 10.0


class Workers:
    """The workers of a pool, with the selector that reports their events.

    Args:
        options: how workers are made.
        size: the number of workers that there may be.
        environment: variables that each worker has from its start.
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
        self._channel: Channel | None = None

    def listen_to(self, wakeup: socket.socket, drain: Callable[[int], None]) -> None:
        """Call a function when the socket that wakes the dispatcher is readable."""
        self.selector.register(wakeup, selectors.EVENT_READ, drain)

    @property
    def busy(self) -> list[WorkerHandle]:
        """The workers that have a job."""
        return [worker for worker in self.handles if worker.running]

    def take_put_off(self) -> list[Job]:
        """The jobs whose large buffers have not fitted into memory; once."""
        jobs, self._outgoing.put_off = self._outgoing.put_off, []
        return jobs

    @property
    def has_room(self) -> bool:
        """Whether one more worker may be started; no fork beside a running thread."""
        room = len(self.handles) < self.size
        return room and not self._options.forks and self.starts.may_try

    def empty(self) -> bool:
        """End all workers; returns True once none is left, or if none can be replaced.

        Workers keep memory of earlier tasks, which a task that runs alone may need.
        """
        if self._options.forks:
            return True
        for worker in self.handles:
            if not worker.ready and not worker.kill_reason:  # it may never be ready
                worker.kill("unused")
            elif not worker.stopping:
                self._stop(worker)
        return not self.handles

    def recall(self) -> list[Job]:
        """Take back jobs that wait behind a long one while another worker has none.

        Otherwise they would wait for ever if the long one waits for one of them.
        """
        if not (self.has_room or any(worker.is_idle for worker in self.handles)):
            return []
        back: list[Job] = []
        for worker in self.handles:
            if worker.is_late:
                back += worker.recall()
                if not worker.flush():
                    self.listen(worker, writing=True)
        return back

    def resize(self, size: int) -> None:
        """Change the number of workers; surplus ones with the fewest jobs end first.

        Args:
            size: the number of workers that there may be. A pool that forks starts no
                worker later.
        """
        if size == self.size:
            return
        self.size = size
        staying = [worker for worker in self.handles if not worker.stopping]
        for worker in sorted(staying, key=lambda worker: len(worker.running))[
            : max(0, len(staying) - size)
        ]:
            self._stop(worker)

    def end_unneeded(self, *, rest: bool) -> None:
        """End the workers that have been idle for as long as they may be.

        Args:
            rest: end also those whose memory has grown by much since their first rest;
                what a worker held then is mostly what its tasks have imported.
        """
        now = time.monotonic()
        for worker in [worker for worker in self.handles if worker.is_idle]:
            if now >= self._until(worker) or (rest and worker.has_grown(_MUCH)):
                self._stop(worker)

    def patience(self) -> float | None:
        """The seconds until an idle worker is to end; None if none is."""
        if self._options.idle is None:
            return None
        ends = [self._until(worker) for worker in self.handles if worker.is_idle]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _until(self, worker: WorkerHandle) -> float:
        """When an idle worker is to end (time.monotonic)."""
        most = self._options.idle
        if most is None:
            return float("inf")
        much = worker.rested is not None and worker.rested > worker.base + _MUCH
        return worker.began + (min(most, _SOON) if much else most)

    def _stop(self, worker: WorkerHandle) -> None:
        if not worker.stop():
            self.listen(worker, writing=True)

    def add(
        self, inheritance: Inheritance, environment: dict[str, str] | None = None
    ) -> WorkerHandle:
        """Start a worker.

        Args:
            inheritance: the state that the worker inherits.
            environment: variables of this worker, besides those of all workers.

        Raises:
            Exception: the worker cannot be started.
        """
        self._number += 1
        worker = WorkerHandle(
            self._options,
            self._number,
            self._outgoing,
            self._options.bequeathed(
                inheritance, {**self.environment, **(environment or {})}
            ),
            self._open_channel(),
        )
        try:
            self.listen(worker, writing=False)
            self._listen_to_end(worker)
        except BaseException:
            self.ignore(worker)
            worker.kill("unused")
            worker.reap()
            raise
        self.handles.append(worker)
        return worker

    def _open_channel(self) -> Channel | None:
        """The channel of a running forkserver; None for another start method.

        Raises:
            OSError: the forkserver cannot be started.
        """
        if self._options.method != "forkserver":
            return None
        if self._channel is None or not self._channel.is_open():
            self._drop_channel()
            keep_free(FILES)
            channel = self._options.open_channel()
            self.selector.register(
                channel.socket, selectors.EVENT_READ, lambda _: self._reap()
            )
            self._channel = channel
        return self._channel

    def _drop_channel(self) -> None:
        """Close the channel of a forkserver that has ended; its workers go on."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self.selector.unregister(channel.socket)
            channel.close()
            for worker in self.handles:
                if worker.channel is channel and worker.gone is None:
                    worker.watch()
                    self._listen_to_end(worker)

    def _reap(self) -> None:
        """Remove the workers that have ended, as the forkserver reports."""
        channel = self._channel
        assert channel is not None
        channel.receive()
        for worker in [one for one in self.handles if one.has_ended()]:
            self._on_exit(worker)
        if channel.is_closed and channel is self._channel:
            self._drop_channel()

    def _listen_to_end(self, worker: WorkerHandle) -> None:
        if worker.gone is not None:
            self.selector.register(
                worker.gone, selectors.EVENT_READ, lambda _: self._on_exit(worker)
            )

    def listen(self, worker: WorkerHandle, *, writing: bool) -> None:
        """Watch a worker's socket.

        Args:
            worker: the worker.
            writing: report also when more can be written.
        """
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        change = self.selector.modify if worker.watched else self.selector.register
        change(worker.pipe, events, partial(self._exchange, worker))
        worker.watched = True

    def flush(self) -> None:
        """Write the jobs that had to wait until fewer bytes were on their way."""
        if self._outgoing.held and self._outgoing.has_room():
            self._outgoing.held = False
            for worker in self.handles:
                if not worker.flush():
                    self.listen(worker, writing=True)

    def ignore(self, worker: WorkerHandle) -> None:
        """Watch a worker's socket no more; the end of its process is still reported."""
        if worker.watched:
            self.selector.unregister(worker.pipe)
            worker.watched = False

    def remove(self, worker: WorkerHandle) -> int | None:
        """Remove a worker that has ended; returns its exit code."""
        if worker.gone is not None:
            self.selector.unregister(worker.gone)
        self.ignore(worker)
        self.handles.remove(worker)
        return worker.reap()

    def drop(self, worker: WorkerHandle) -> None:
        """Kill a worker that has begun no job, and wait for its end."""
        worker.kill("unused")
        self.remove(worker)

    def end(self) -> None:
        """End all workers: let those that are ready end by themselves, kill others."""
        for worker in self.handles:
            if worker.ready and not worker.kill_reason:
                worker.stop()
            elif not worker.kill_reason:
                worker.kill("unused")
        end = time.monotonic() + _PATIENCE
        for worker in self.handles:
            worker.wait(max(0.0, end - time.monotonic()))
            if worker.process.exitcode is None:
                worker.kill("slow")
            worker.reap()
        self.handles.clear()
        if self._channel is not None:
            self._channel.close()
        self.selector.close()
