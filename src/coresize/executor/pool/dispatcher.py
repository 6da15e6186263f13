"""The thread that gives jobs to workers and receives what comes of them.

Rule 1: it alone touches slots and the selector; others append to a queue and wake it.
Rule 2: it waits for nothing but the selector: sockets are never blocking. Rule 3: what
a worker has written before it died counts; then the first job it has not answered is
the one that it died of, and all others it was given go back.
"""

from __future__ import annotations

import logging
import os
import pickle
import selectors
import threading
import time
import weakref
from collections import deque
from itertools import islice

from coresize import processes
from coresize.executor import protocol
from coresize.executor.admission.deadlines import TimeLimit
from coresize.executor.jobs import MOST, Pace
from coresize.executor.pool import exits
from coresize.executor.pool import exits as starts
from coresize.executor.pool.exits import Undertaker
from coresize.executor.pool.options import check_fork
from coresize.executor.pool.submitted import Mailbox
from coresize.executor.pool.workers import Crew
from coresize.processes import exit_hooks, inheritance, main_module, refusals, transfer


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from coresize.executor.admission.memory import Gate
    from coresize.executor.jobs import Backlog, Job
    from coresize.executor.pool.options import Setup
    from coresize.executor.pool.workers import Slot
    from coresize.executor.protocol import Message
    from coresize.processes.exit_hooks import Unfinished
    from coresize.processes.inheritance import Inheritance


#: Seconds between two looks at what tasks take.
_LOOK = 0.25

_log = logging.getLogger("coresize")


#: Those whose work is to be done before this process ends.
_started: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


class Dispatcher:
    """The workers of one pool, and the thread that serves them."""

    def __init__(self, setup: Setup, gate: Gate | None) -> None:
        self.setup = setup
        self.gate = gate
        self.pace = Pace()
        self.thread: threading.Thread | None = None
        #: The maps that are to be finished before no more jobs are taken.
        self.unfinished: set[Unfinished] = set()
        self._looked = 0.0
        self._moment: Inheritance | None = None
        self._furnish()

    def _furnish(self) -> None:
        """Make what belongs to this process and to no child that is forked from it."""
        setup, gate = self.setup, self.gate
        self._pid, self._forks = os.getpid(), processes.forks
        self._mailbox = Mailbox()
        try:
            self._crew = Crew(setup, self._exchange, self._bury)
            self._crew.hear(self._mailbox.bell, self._mailbox.heard)
        except BaseException:  # no more files
            self._mailbox.close()
            raise
        self.slots = self._crew.slots
        self._assignment = Assignment(
            setup, gate, self._crew, self.pace, self._add_slot_for
        )
        self.waiting = self._assignment.waiting
        self._undertaker = Undertaker(setup, gate)
        self._ended = self._starting = False
        #: Why the last worker could not be started; empty where it could.
        self.refused = ""
        self._limit = TimeLimit(setup.timeout)
        self._answers = Answers(
            setup,
            gate,
            self.pace,
            self._welcome,
            explain=self._explain,
            run_again=self._run_again,
        )

    # --- For other threads ----------------------------------------------------

    @property
    def broken(self) -> str | None:
        """Why no more jobs are taken; None where they are."""
        return self._mailbox.broken

    @property
    def backlog(self) -> Backlog:
        """The bytes of jobs that are pickled and wait for a worker."""
        return self._mailbox.backlog

    @property
    def is_inherited(self) -> bool:
        """Whether this is the copy in a forked child: the parent has the workers."""
        if self._forks == processes.forks:
            return False
        return self.thread is not None or self._ended

    def refuse_inherited(self) -> None:
        """Let no forked child use what its parent has started.

        A pool that had started nothing at the fork is as good as one made in the child.

        Raises:
            RuntimeError: this is such a child.
        """
        if self.is_inherited:
            msg = (
                f"this pool was started by process {self._pid}, of which this process "
                "is a fork: make another pool in the child"
            )
            raise RuntimeError(msg)
        if self._forks != processes.forks:
            self._furnish()

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            BrokenProcessPool: workers cannot start.
            CoresizeError: they were to be forked beside other threads.
            OSError: they were to be forked, and not one can be.
            RuntimeError: it is closed, belongs to the process that forked this one, or
                no thread can be started.
        """
        self.refuse_inherited()
        self._note_moment(job)
        self._mailbox.put(job)
        if self.thread is None:
            try:
                self._start()
            except BaseException:  # nobody will serve it, but maybe those of others
                self._mailbox.take_back(job)
                raise
        self._mailbox.ring()

    def _note_moment(self, job: Job) -> None:
        """Note what a worker would inherit now, where one may be started for a job.

        Else it would be started with what was noted last, in the folder of the job.
        """
        job.folder = inheritance.folder()
        most = self.setup.max_workers
        there = len(self.slots) + len(self.waiting) + len(self._mailbox.arrived)
        if there < most or self.setup.max_tasks is not None or self._moment is None:
            self._moment = job.inheritance = inheritance.current()

    def close(
        self,
        *,
        cancel: bool = False,
        terminate: bool = False,
        interrupt: bool = False,
    ) -> None:
        """Take no more jobs, and end when all are done.

        Args:
            cancel: the jobs that have not begun are cancelled.
            terminate: the workers get SIGTERM as well.
            interrupt: they are killed, with all that their tasks have started.
        """
        if self.is_inherited:
            return
        with self._mailbox.lock:
            self._mailbox.shut(cancel=cancel, terminate=terminate, interrupt=interrupt)
            if self.thread is None and not self._ended:  # it was never used
                self._end()
        self._mailbox.ring()

    def drop(self) -> None:
        """Take no more jobs: nobody holds the pool any more.

        A finalizer, so this waits for nothing.
        """
        if not self.unfinished or not exit_hooks.later(self._finish_started):
            self.close()

    def _finish_started(self) -> None:
        for unfinished in list(self.unfinished):
            unfinished.start_all()
        self.close()

    def finish(self) -> None:
        """Take all of what is to be mapped, before no more is taken."""
        for unfinished in [] if self.is_inherited else list(self.unfinished):
            unfinished.finish()

    def join(self) -> None:
        """Wait until all has ended; then the thread is held no more."""
        thread = None if self.is_inherited else self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            self.thread = None

    def settle(self) -> None:
        """Wait until what was submitted has been given to workers, or has to wait."""
        self.refuse_inherited()
        if not self._mailbox.closing:
            self._start()
        while self._mailbox.arrived or self._starting:
            time.sleep(0.001)

    def _start(self) -> None:
        with self._mailbox.lock:
            if self.thread is not None:
                return
            main_module.refuse_while_importing("start no pool of its own")
            if self.setup.forks:
                self._fork_all()
            exit_hooks.register(_finish, exit_hooks.POOLS)
            _started.add(self)
            self.thread = self._start_thread()

    def _start_thread(self) -> threading.Thread:
        """Start the thread, if need be in the place of the last that was forked."""
        while True:
            thread = threading.Thread(
                target=self._serve, name="coresize-dispatcher", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                if self.slots:
                    self._crew.drop(self.slots[-1])
                if not self.slots:
                    raise
            else:
                return thread

    def _fork_all(self) -> None:
        """All at once, while there is no thread whose locks a fork would take along."""
        check_fork()
        most = self.setup.max_workers
        try:
            while len(self.slots) < most:  # some may be of an earlier try
                self._crew.add(inheritance.current())
        except OSError as error:
            if not self.slots:
                raise
            why = refusals.explain(error)
            _log.warning("only %d of %d workers: %s", len(self.slots), most, why)
            self.refused = why

    # --- The thread -----------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._is_over():
                self._turn()
        except BaseException as error:  # noqa: BLE001 - futures have it
            _log.critical("a pool failed", exc_info=True)
            self._break(f"the pool failed: {error!r}", error)
        finally:
            self._end()

    def _is_over(self) -> bool:
        with self._mailbox.lock:
            idle = not self._mailbox.arrived and not self.waiting
            return self._mailbox.closing and idle and not self._crew.busy

    def _turn(self) -> None:
        while self._mailbox.arrived:
            self._starting = True
            self.waiting.append(self._mailbox.arrived.popleft())
        if self._mailbox.interrupted or self._mailbox.terminated:
            self._interrupt_all()
        more = self._starting = self._assignment.go_on()
        if self._mailbox.cancelling and (self._crew.busy or not self.slots):
            # After what could begin has begun.
            while self.waiting:
                self.waiting.popleft().cancel()
        self._mailbox.asleep = True
        idle = not (more or self._mailbox.arrived or self._is_over())
        ready = self._crew.selector.select(self._patience() if idle else 0)
        self._mailbox.asleep = False
        for key, events in ready:
            key.data(events)
        self._answers.ring()
        self._crew.flush()
        self._look()

    def _patience(self) -> float | None:
        """How long to wait for something to happen."""
        if not self._crew.busy:
            return None if not self.waiting else _LOOK
        look = self.gate.interval if self.gate else _LOOK
        return look if self.setup.timeout is None else min(look, self._limit.left())

    # --- Workers ----------------------------------------------------------------

    def _add_slot_for(self, job: Job) -> Slot | None:
        moment = job.inheritance or self._moment
        assert moment is not None  # that of the first job, at least
        return self._add_slot(moment.changed(folder=job.folder))

    def _add_slot(self, moment: Inheritance) -> Slot | None:
        if self.broken is not None:
            return None
        try:
            return self._crew.add(moment)
        except Exception as error:  # noqa: BLE001 - pickle calls the user's code
            self._refuse(error)
            return None

    def _refuse(self, error: Exception) -> None:
        """A worker could not be started; without others that is tried some times."""
        why, again = repr(error), starts.may_go_away(error)
        if again:
            why = refusals.explain(error)
            if not self.refused:  # told once in a row
                _log.warning("a worker cannot be started now: %s", why)
            self.refused = why
        if not again or self._crew.starts.fail(
            starts.REFUSED, alone=not self.slots, wait=True
        ):
            why += self.setup.advice(error)
            self._break(f"a worker cannot be started: {why}", error)

    # --- Receiving ------------------------------------------------------------

    def _exchange(self, slot: Slot, events: int) -> None:
        if slot.buried:  # it was among the same events
            return
        if events & selectors.EVENT_WRITE and slot.flush():
            self._crew.listen(slot, writing=False)
        if events & selectors.EVENT_READ:
            messages = slot.receive()
            if slot.is_closed:
                self._crew.ignore(slot)
            self._answers.take(slot, messages)

    def _welcome(self, slot: Slot) -> None:
        """A worker is ready."""
        if not slot.flush():
            self._crew.listen(slot, writing=True)
        self._crew.starts.succeed()
        self.refused = ""
        self._limit.greet()
        self._undertaker.attribution.welcome(slot)
        if self.gate:
            self.gate.welcome(slot)

    def _explain(self, slot: Slot, message: Message) -> BaseException | None:
        return self._undertaker.explain(slot, message, self.slots)

    def _run_again(self, slot: Slot, job: Job) -> bool:
        """Whether a task runs again that lost to the kernel what it had started."""
        busy, others = len(self._crew.busy), len(self.slots) - 1
        if not self._undertaker.may_retry(slot, job, busy=busy, others=others):
            return False
        slot.ended()
        self.waiting.appendleft(job)
        return True

    # --- Deaths and ends ------------------------------------------------------

    def _bury(self, slot: Slot) -> None:
        while messages := slot.receive():
            self._answers.take(slot, messages)
        code = self._crew.remove(slot)
        if slot.unfit:  # known before, but until now it wrote its log
            self._break(f"the initializer of a worker failed:\n{slot.unfit}")
        elif not slot.ready and not slot.doomed:
            weight = self._undertaker.weight(code, alone=not self.slots)
            alone = not any(other.ready for other in self.slots)
            wait = weight >= 1 and not alone
            if self._crew.starts.fail(weight, alone=alone, wait=wait):
                why = exits.unready(code, advice=main_module.GUARD)
                self._break(f"workers end before they are ready, {why}")
        again = self._undertaker.again(
            slot, code, busy=1 + len(self._crew.busy), others=self.slots
        )
        self.waiting.extendleft(reversed(again))
        if self.setup.forks and not self.slots and not self._mailbox.closing:
            self._break("all workers that were forked have ended")
        if self.broken is not None:
            self._fail_all()

    def _look(self) -> None:
        """Time limits, and what running tasks take."""
        now = time.monotonic()
        hopeless = self._limit.look(self.slots)
        if hopeless:
            self._break(hopeless)
        if now - self._looked >= (self.gate.interval if self.gate else _LOOK):
            self._looked = now
            for slot in [slot for slot in self.slots if slot.has_ended()]:
                self._bury(slot)
            self._undertaker.look(self.slots)
            if self.gate:
                self.gate.watch(self.slots)

    def _break(self, why: str, cause: BaseException | None = None) -> None:
        self._mailbox.spoil(why, cause)
        self._fail_all()

    def _fail_all(self) -> None:
        """Nothing that waits will be started, nor what is running ended."""
        jobs = [*self.waiting, *self._mailbox.arrived]
        self.waiting.clear()
        self._mailbox.arrived.clear()
        for slot in self.slots:
            jobs += slot.running
            slot.running.clear()
            slot.kill("broken")
        for job in jobs:
            job.abandon(self._mailbox.error())

    def _interrupt_all(self) -> None:
        while self.waiting:
            self.waiting.popleft().cancel()
        for slot in self.slots:
            if not self._mailbox.interrupted:
                slot.terminate()
            elif not slot.doomed:
                slot.kill("interrupted")

    def _end(self) -> None:
        try:
            self._crew.end()
        finally:
            self._ended = True
            self._mailbox.close()
        # A ring would keep what the user gave until the garbage is collected.
        del self._crew, self._assignment, self._answers


def _finish() -> None:
    """At the end of this process: all that was submitted is done, but after Ctrl-C."""
    interrupted = exit_hooks.is_interrupted()
    dispatchers = list(_started)
    for dispatcher in dispatchers:
        if not interrupted:
            dispatcher.finish()
        dispatcher.close(interrupt=interrupted)
    for dispatcher in dispatchers:
        dispatcher.join()


# -----------------------------------------------------------------------------
# Which worker gets which of the jobs that wait.


class Assignment:
    """The jobs that wait, and who gets them.

    Args:
        setup: what bounds tasks and workers.
        gate: what lets them start by memory, or None.
        crew: the workers.
        pace: how long calls take.
        add: starts a worker for a job, or gives None where none can be started.
    """

    def __init__(
        self,
        setup: Setup,
        gate: Gate | None,
        crew: Crew,
        pace: Pace,
        add: Callable[[Job], Slot | None],
    ) -> None:
        self.waiting: deque[Job] = deque()
        self._setup = setup
        self._gate = gate
        self._crew = crew
        self._pace = pace
        self._add = add

    def go_on(self) -> bool:
        """Give what can be given; whether to go on at once with more of it."""
        starting = [slot for slot in self._crew.slots if not slot.ready]
        if not self.waiting and not starting:
            return False
        most = self._setup.max_tasks
        free = [slot for slot in self._crew.slots if slot.is_free(most)]
        idle = [slot for slot in free if not slot.running]
        self._take_back(starting, len(idle))
        idle += [slot for slot in starting if slot.may_hold]
        if self._gate:
            return self._by_memory(self._gate, idle)
        for slot in idle:
            while self.waiting and not slot.running:
                self._give(slot, [self.waiting.popleft()])
        if self.waiting and self._crew.has_room:
            added = self._add(self.waiting[0])
            if added is not None:
                self._give(added, [self.waiting.popleft()])
            return added is not None
        if self.waiting and self._setup.timeout is None:
            for slot in free:
                room = slot.room(most, MOST)
                self._give(slot, self._pace.ahead(slot.running, self.waiting, room))
        return False

    def _take_back(self, starting: list[Slot], idle: int) -> None:
        """Let idle workers have what is held by those that may never be ready."""
        back: list[Job] = []
        for slot in starting:
            if slot.doomed or len(back) < idle:
                back += slot.take_back()
        self.waiting.extendleft(reversed(back))

    def _by_memory(self, gate: Gate, idle: list[Slot]) -> bool:
        if not (self.waiting and (idle or self._crew.has_room)):
            return False
        job = gate.choose(self.waiting, self._crew.slots, must_start=not idle)
        if job is None or (job.alone and not self._crew.empty()):
            return False
        slot = next(iter(idle), None) or self._add(job)
        if slot is None:
            return False
        self.waiting.remove(job)
        self._give(slot, [job])
        return True

    def _give(self, slot: Slot, jobs: list[Job]) -> None:
        begun = [job for job in jobs if job.begin()]
        if begun and not slot.give(begun):
            self._crew.listen(slot, writing=True)


# -----------------------------------------------------------------------------
# What workers have sent, given to the jobs that it answers.


#: Seconds from which on a call is answered for itself: it may have started others.
_LONG = 0.1


class Answers:
    """The answers to the jobs of one pool.

    An answer counts where its number is that of the call which is due. Any other comes
    from a worker whose stream is confused, as by a task that writes to descriptors it
    has not opened: it is ended, and no more of it is believed.

    Args:
        setup: what bounds the tasks of a worker.
        gate: learns from what tasks took.
        pace: learns from how long calls took.
        welcome: called with each worker that is ready.
        explain: gives the error where memory ran out for what a task had started.
        run_again: whether it is to run again, and will.
    """

    def __init__(
        self,
        setup: Setup,
        gate: Gate | None,
        pace: Pace,
        welcome: Callable[[Slot], None],
        *,
        explain: Callable[[Slot, protocol.Message], BaseException | None],
        run_again: Callable[[Slot, Job], bool],
    ) -> None:
        self._most_tasks = setup.max_tasks
        self._gate = gate
        self._pace = pace
        self._welcome = welcome
        self._explain = explain
        self._run_again = run_again
        self._answered: set[Job] = set()

    def ring(self) -> None:
        """Wake whoever waits for what has been answered."""
        for job in self._answered:
            job.ring()
        self._answered.clear()

    def take(self, slot: Slot, messages: list[protocol.Message]) -> None:
        """Understand what a worker has sent."""
        done = 0
        while done < len(messages) and slot.doomed != "confused":
            values = self._values(slot, messages, done)
            if not values:
                self._understand(slot, messages[done])
            done += values or 1
        if slot.doomed == "confused":
            self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        """Fail all that a confused worker was given: any of it may have begun."""
        jobs = list(slot.running)
        slot.running.clear()
        for job in jobs:
            job.abandon(exits.confused(job.attempts))

    def _values(self, slot: Slot, messages: list[protocol.Message], first: int) -> int:
        """Take the values of calls of one map together, but the last; how many.

        There are thousands of them, and what is done once for all is not done for each.
        """
        if self._gate or not slot.running or slot.running[0].kind != protocol.CALLS:
            return 0
        job, seconds, place, size = slot.running[0], 0.0, first, 0
        last = first + job.size - 1
        number = job.number
        for kind, told, _, took, payload in islice(messages, first, last):
            if kind != protocol.VALUE or told != number or took > _LONG:
                break
            job.take_pickled(payload)
            seconds += took
            size += len(payload)
            place += 1
            number += 1
        job.number = number
        if place > first:
            job.received(size)
            self._answered.add(job)
            self._pace.learn(job, seconds / (place - first))
        return place - first

    def _understand(self, slot: Slot, message: protocol.Message) -> None:
        kind, number, peak, _, payload = message
        if kind == protocol.READY and not slot.ready:
            slot.greet(peak, heir=payload == protocol.HEIR)
            self._welcome(slot)
        elif kind == protocol.BROKEN and not slot.ready:
            _, slot.unfit = pickle.loads(payload)  # noqa: S301 - of our own worker
        elif slot.running and slot.running[0].number == number:
            self._answer(slot, slot.running[0], message)
        else:
            slot.kill("confused")

    def _answer(self, slot: Slot, job: Job, message: protocol.Message) -> None:
        kind, _, peak, seconds, payload = message
        job.number += 1
        if self._gate:
            job.measured(max(peak, slot.base + job.seen))
        killed = self._explain(slot, message)
        if killed and self._run_again(slot, job):
            return
        if killed:
            over = job.fail(killed)
        elif kind != protocol.ERROR:
            job.received(len(payload))
            over = job.take_pickled(payload)
        else:
            error = transfer.load_error(*pickle.loads(payload))  # noqa: S301 - as above
            over = job.fail(error)
            while seconds < 0 and not over:  # none of its calls could be unpickled
                over = job.fail(error)
        self._answered.add(job)
        self._pace.learn(job, seconds)
        if over:
            slot.ended()
            if self._gate:
                self._gate.succeeded(slot, job, peak)
            if not slot.running and slot.served == self._most_tasks:
                slot.stop()
