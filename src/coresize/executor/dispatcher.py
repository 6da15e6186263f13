"""The thread that gives jobs to workers and receives what comes of them.

Rule 1: it alone touches slots and the selector; others append to a queue and wake it.
Rule 2: it waits for nothing but the selector: sockets are never blocking. Rule 3: what
a worker has written before it died counts; then the first job it has not answered is
the one that it died of, and all others it was given go back.
"""

from __future__ import annotations

import contextlib
import pickle
import selectors
import socket
import threading
import time
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from coresize import transfer
from coresize.errors import CoresizeError
from coresize.executor import frames
from coresize.executor.burial import Undertaker
from coresize.executor.slot import Slot


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from coresize.executor.gate import Gate
    from coresize.executor.jobs import Job
    from coresize.executor.setup import Setup

#: Seconds of work that a worker is given ahead, so that it need not wait for more: of
#: single calls, and of calls that are one message.
_AHEAD = {frames.CALL: 0.002, frames.CALLS: 0.05}
_MOST_AHEAD = 64
_MOST_BYTES = 32 * 1024

#: Seconds between two looks at what tasks take.
_LOOK = 0.25

#: Workers that could not start, one after the other, before the pool is given up.
_MOST_FAILURES = 3
_KILL = 0.05


class Dispatcher:
    """The workers of one pool, and the thread that serves them."""

    def __init__(self, setup: Setup, gate: Gate | None) -> None:
        self.setup = setup
        self.gate = gate
        self.waiting: deque[Job] = deque()
        self.slots: list[Slot] = []
        self.broken: str | None = None
        self.pace: dict[Hashable, float] = {}
        self.thread: threading.Thread | None = None
        self._arrived: deque[Job] = deque()
        self._lock = threading.Lock()
        self._asleep = False
        self._closing = self._cancelling = self._interrupted = False
        self._ended = self._starting = False
        self._failures = 0.0
        self._number = 0
        self._looked = 0.0
        self._answered: set[Job] = set()
        self._undertaker = Undertaker(setup, gate)
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._bell.settimeout(0)
        self._rope.settimeout(0)
        self._selector.register(self._bell, selectors.EVENT_READ, self._heard)

    # --- For other threads ----------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            BrokenProcessPool: workers cannot start.
            RuntimeError: it is closed.
        """
        with self._lock:
            if self.broken is not None:
                raise BrokenProcessPool(self.broken)
            if self._closing:
                msg = "cannot schedule new futures after shutdown"
                raise RuntimeError(msg)
            self._arrived.append(job)
            if self.thread is None:
                self._start()
        self._wake()

    def close(self, *, cancel: bool = False, interrupt: bool = False) -> None:
        """Take no more jobs, and end when all are done; or cancel, or kill them."""
        with self._lock:
            self._closing = True
            self._cancelling |= cancel or interrupt
            self._interrupted |= interrupt
            if self.thread is None and not self._ended:  # it was never used
                self._end()
        self._wake()

    def join(self) -> None:
        """Wait until all has ended."""
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def settle(self) -> None:
        """Wait until what was submitted has been given to workers, or has to wait."""
        with self._lock:
            if self.thread is None and not self._closing:
                self._start()
        while self._arrived or self._starting:
            time.sleep(0.001)

    def _start(self) -> None:
        if self.setup.forks:
            others = threading.active_count() - 1
            if others:
                msg = (
                    f"{others} other threads are alive, and a fork would take their "
                    "locks along: use the start method forkserver or spawn"
                )
                raise CoresizeError(msg)
            for _ in range(self.setup.max_workers):
                self._add_slot()
        self.thread = threading.Thread(
            target=self._serve, name="coresize-dispatcher", daemon=True
        )
        self.thread.start()

    def _wake(self) -> None:
        if self._asleep:
            with contextlib.suppress(OSError):  # it is awake, or has ended
                self._rope.send(b"!")

    # --- The thread -----------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._is_over():
                self._turn()
        except BaseException as error:
            self._break(f"the pool failed: {error!r}")
            raise
        finally:
            self._end()

    def _is_over(self) -> bool:
        with self._lock:
            idle = not self._arrived and not self.waiting
            return self._closing and idle and not any(s.running for s in self.slots)

    def _turn(self) -> None:
        while self._arrived:
            self._starting = True
            self.waiting.append(self._arrived.popleft())
        if self._interrupted:
            self._interrupt_all()
        more = self._starting = self._assign()
        if self._cancelling:  # after what could begin has begun
            while self.waiting:
                self.waiting.popleft().cancel()
        self._asleep = True
        idle = not (more or self._arrived or self._is_over())
        ready = self._selector.select(self._patience() if idle else 0)
        self._asleep = False
        for key, events in ready:
            key.data(events)
        for job in self._answered:
            job.ring()
        self._answered.clear()
        self._look()

    def _heard(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)

    def _patience(self) -> float | None:
        """How long to wait for something to happen."""
        if not any(slot.running for slot in self.slots):
            return None if not self.waiting else _LOOK
        look = self.gate.interval if self.gate else _LOOK
        if self.setup.timeout is None:
            return look
        begun = [slot.began for slot in self.slots if slot.running and slot.ready]
        first = min(begun, default=time.monotonic())
        return max(0.0, min(look, first + self.setup.timeout - time.monotonic()))

    # --- Giving ---------------------------------------------------------------

    def _assign(self) -> bool:
        """Give what can be given; whether to go on at once with more of it."""
        free = [slot for slot in self.slots if slot.is_free(self.setup.max_tasks)]
        if self.gate:
            return self._assign_by_memory(free)
        for slot in free:
            if self.waiting and not slot.running:
                self._give(slot, [self.waiting.popleft()])
        if self.waiting and self._has_room():
            added = self._add_slot()
            if added is not None:
                self._give(added, [self.waiting.popleft()])
            return added is not None
        if self.waiting and not self.setup.measured and self.setup.timeout is None:
            for slot in free:
                self._give(slot, self._ahead(slot))
        return False

    def _assign_by_memory(self, free: list[Slot]) -> bool:
        idle = [slot for slot in free if not slot.running]
        if not idle and not self._has_room():
            return False
        assert self.gate is not None
        job = self.gate.choose(self.waiting, self.slots, must_start=not idle)
        if job is None:
            return False
        slot = next(iter(idle), None) or self._add_slot()
        if slot is None:
            return False
        self.waiting.remove(job)
        self._give(slot, [job])
        return True

    def _has_room(self) -> bool:
        if self.setup.forks or self.broken is not None:
            return False  # who forks later forks with threads alive
        return len(self.slots) < self.setup.max_workers

    def _ahead(self, slot: Slot) -> list[Job]:
        """Jobs to give to a worker that is still at work: only such as are short."""
        jobs: list[Job] = []
        planned, size = 0.0, 0
        for job in slot.running:
            planned += self._seconds(job)
        room = slot.room(self.setup.max_tasks, _MOST_AHEAD)
        while self.waiting and len(jobs) < room:
            job = self.waiting[0]
            planned += self._seconds(job)
            size += len(job.payload)
            if planned > _AHEAD[job.kind] or size > _MOST_BYTES:
                break
            jobs.append(self.waiting.popleft())
        return jobs

    def _seconds(self, job: Job) -> float:
        """How long a job may take; for ever where nobody knows."""
        pace = self.pace.get(job.key)
        return float("inf") if pace is None else pace * job.size

    def _give(self, slot: Slot, jobs: list[Job]) -> None:
        begun = [job for job in jobs if job.begin()]
        if begun and not slot.give(begun):
            self._watch(slot, writing=True)

    def _add_slot(self) -> Slot | None:
        self._number += 1
        others = [end for slot in self.slots for end in (slot.pipe, slot.line)]
        try:
            slot = Slot(self.setup, self._number, others)
        except Exception as error:  # noqa: BLE001 - pickle calls the user's code
            self._break(f"a worker cannot be started: {error!r}")
            return None
        self.slots.append(slot)
        self._watch(slot, writing=False)
        gone = partial(self._bury, slot)
        self._selector.register(slot.gone, selectors.EVENT_READ, gone)
        return slot

    def _watch(self, slot: Slot, *, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        serve: Callable[[int], None] = partial(self._exchange, slot)
        change = self._selector.modify if slot.watched else self._selector.register
        change(slot.pipe, events, serve)
        slot.watched = True

    def _unwatch(self, slot: Slot) -> None:
        if slot.watched:
            self._selector.unregister(slot.pipe)
            slot.watched = False

    # --- Receiving ------------------------------------------------------------

    def _exchange(self, slot: Slot, events: int) -> None:
        if slot.buried:  # it was among the same events
            return
        if events & selectors.EVENT_WRITE and slot.flush():
            self._watch(slot, writing=False)
        if events & selectors.EVENT_READ:
            messages = slot.receive()
            if slot.is_closed:
                self._unwatch(slot)  # its end is told by other means
            for message in messages:
                self._understand(slot, message)

    def _understand(self, slot: Slot, message: frames.Message) -> None:
        kind, _, peak, _, payload = message
        if kind == frames.READY:
            slot.ready, slot.base, self._failures = True, peak, 0
            slot.began = time.monotonic()
            self._undertaker.welcome(slot)
        elif kind == frames.BROKEN:
            _, text = pickle.loads(payload)  # noqa: S301 - of our own worker
            self._break(f"the initializer of a worker failed:\n{text}")
        elif slot.running:
            self._answer(slot, slot.running[0], message)

    def _answer(self, slot: Slot, job: Job, message: frames.Message) -> None:
        kind, _, peak, seconds, payload = message
        if kind == frames.VALUE:
            over = job.take_pickled(payload)
        else:
            error = transfer.load_error(*pickle.loads(payload))  # noqa: S301 - as above
            over = job.fail(error)
            while seconds < 0 and not over:  # none of its calls could be unpickled
                over = job.fail(error)
        self._answered.add(job)
        self._learn_pace(job, max(seconds, 1e-5))
        if over:
            slot.running.popleft()
            slot.served += 1
            slot.began = time.monotonic()
            if self.gate:
                self.gate.succeeded(slot, job, peak)
            if not slot.running and slot.served == self.setup.max_tasks:
                slot.stop()

    def _learn_pace(self, job: Job, seconds: float) -> None:
        """Slower counts at once, quicker by and by."""
        before = self.pace.get(job.key, seconds)
        share = 0.5 if seconds > before else 0.1
        self.pace[job.key] = before + share * (seconds - before)

    # --- Deaths and ends ------------------------------------------------------

    def _bury(self, slot: Slot, _events: int = 0) -> None:
        while messages := slot.receive():
            for message in messages:
                self._understand(slot, message)
        self._selector.unregister(slot.gone)
        self._unwatch(slot)
        self.slots.remove(slot)
        code = slot.bury()
        if not slot.ready and not slot.doomed:
            # Who ends by itself will do so again; a kill may be bad luck.
            self._failures += 1 if code is None or code >= 0 else _KILL
            if self._failures >= _MOST_FAILURES:
                self._break(f"workers end before they are ready, exit code {code}")
        busy = 1 + sum(bool(other.running) for other in self.slots)
        again = self._undertaker.again(slot, code, busy)
        self.waiting.extendleft(reversed(again))
        if self.setup.forks and not self.slots and not self._closing:
            self._break("all workers that were forked have ended")
        if self.broken is not None:
            self._fail_all(self.broken)

    def _look(self) -> None:
        """Time limits, and what running tasks take."""
        now = time.monotonic()
        if self.setup.timeout is not None:
            for slot in self.slots:
                if (
                    slot.running
                    and slot.ready
                    and now - slot.began > self.setup.timeout
                ):
                    slot.kill("timeout")
        if now - self._looked >= (self.gate.interval if self.gate else _LOOK):
            self._looked = now
            self._undertaker.look(self.slots)
            if self.gate:
                self.gate.watch(self.slots)

    def _break(self, why: str) -> None:
        with self._lock:
            self.broken = why
        self._fail_all(why)

    def _fail_all(self, why: str) -> None:
        """Nothing that waits will be started, nor what is running ended."""
        jobs = [*self.waiting, *self._arrived]
        self.waiting.clear()
        self._arrived.clear()
        for slot in self.slots:
            jobs += slot.running
            slot.running.clear()
            slot.kill("broken")
        for job in jobs:
            job.abandon(BrokenProcessPool(why))

    def _interrupt_all(self) -> None:
        while self.waiting:
            self.waiting.popleft().cancel()
        for slot in self.slots:
            if not slot.doomed:
                slot.kill("interrupted")

    def _end(self) -> None:
        """Let workers end by themselves, those that have begun to work at all."""
        for slot in self.slots:
            if slot.ready and not slot.doomed:
                slot.stop()
            elif not slot.doomed:
                slot.kill("unused")
        patience = time.monotonic() + 5.0
        for slot in self.slots:
            slot.process.join(max(0.0, patience - time.monotonic()))
            if slot.process.exitcode is None:
                slot.kill("slow")
            slot.bury()
        self.slots.clear()
        self._ended = True
        self._selector.close()
        self._bell.close()
        self._rope.close()
