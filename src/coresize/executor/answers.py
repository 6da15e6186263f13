"""What workers have sent, given to the jobs that it answers."""

from __future__ import annotations

import pickle
from itertools import islice

from coresize.executor import protocol
from coresize.executor.pool import exits
from coresize.processes import transfer


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from coresize.executor.admission.memory import Gate
    from coresize.executor.jobs import Job
    from coresize.executor.pace import Pace
    from coresize.executor.pool.options import Setup
    from coresize.executor.pool.workers import Slot


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
