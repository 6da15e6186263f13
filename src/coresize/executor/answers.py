"""What workers have sent, given to the jobs that it answers."""

from __future__ import annotations

import pickle
from itertools import islice

from coresize import transfer
from coresize.executor import frames


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from coresize.executor.gate import Gate
    from coresize.executor.jobs import Job
    from coresize.executor.pace import Pace
    from coresize.executor.setup import Setup
    from coresize.executor.slot import Slot


#: Seconds from which on a call is answered for itself: it may have started others.
_LONG = 0.1


class Answers:
    """The answers to the jobs of one pool.

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
        explain: Callable[[Slot, frames.Message], BaseException | None],
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

    def take(self, slot: Slot, messages: list[frames.Message]) -> None:
        """Understand what a worker has sent."""
        done = 0
        while done < len(messages):
            values = self._values(slot, messages, done)
            if not values:
                self._understand(slot, messages[done])
            done += values or 1

    def _values(self, slot: Slot, messages: list[frames.Message], first: int) -> int:
        """Take the values of calls of one map together, but the last; how many.

        There are thousands of them, and what is done once for all is not done for each.
        """
        if self._gate or not slot.running or slot.running[0].kind != frames.CALLS:
            return 0
        job, seconds, place = slot.running[0], 0.0, first
        last = first + job.size - 1
        for kind, _, took, payload in islice(messages, first, last):
            if kind != frames.VALUE or took > _LONG:
                break
            job.take_pickled(payload)
            seconds += took
            place += 1
        if place > first:
            self._answered.add(job)
            self._pace.learn(job, seconds / (place - first))
        return place - first

    def _understand(self, slot: Slot, message: frames.Message) -> None:
        kind, peak, _, payload = message
        if kind == frames.READY:
            slot.greet(peak, heir=payload == frames.HEIR)
            self._welcome(slot)
        elif kind == frames.BROKEN:
            _, slot.unfit = pickle.loads(payload)  # noqa: S301 - of our own worker
        elif slot.running:
            self._answer(slot, slot.running[0], message)

    def _answer(self, slot: Slot, job: Job, message: frames.Message) -> None:
        kind, peak, seconds, payload = message
        if self._gate:
            job.measured(max(peak, slot.base + job.seen))
        killed = self._explain(slot, message)
        if killed and self._run_again(slot, job):
            return
        if killed:
            over = job.fail(killed)
        elif kind != frames.ERROR:
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
