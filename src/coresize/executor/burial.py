"""What becomes of the jobs of a worker that has ended."""

from __future__ import annotations

import os
import pickle

from coresize import processes
from coresize.cli import report
from coresize.detection.available import detect
from coresize.errors import TaskKilledError, TaskOutOfMemoryError
from coresize.executor import protocol
from coresize.executor.attribution import Attribution
from coresize.executor.pool import exits
from coresize.host import LiveFor
from coresize.processes import exits, transfer
from coresize.processes.oom import Kills


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.admission.memory import Gate
    from coresize.executor.jobs import Job
    from coresize.executor.pool.options import Setup
    from coresize.executor.pool.workers import Slot
    from coresize.executor.protocol import Message
    from coresize.model import OutOfMemory


#: Seconds in which no process is started and killed for memory: of a task that fails,
#: and of one that does not, where it would only be left unsaid of whom it was.
_INSTANT, _QUICK = 0.001, 0.1


class Undertaker:
    """Tells the first job of a dead worker why, and which are to be run again."""

    def __init__(self, setup: Setup, gate: Gate | None) -> None:
        self._setup = setup
        self._gate = gate
        self.attribution = Attribution()
        # Workers start where this process is, whoever starts them for it.
        self._starts = Kills(processes.own())

    def weight(self, code: int | None, *, alone: bool) -> float:
        """How much the end of a worker that was not ready counts as a failure."""
        memory = exits.was_killed(code) and self._starts.moved() != "no"
        return exits.weight(code, alone=alone, memory=memory)

    def look(self, slots: list[Slot]) -> None:
        """See what was killed, and what running tasks take."""
        self.attribution.look(slots)
        for slot in slots:
            if not (slot.running and slot.ready):
                continue
            slot.look()
            memory = slot.memory()
            if memory:
                job = slot.running[0]
                job.seen = max(job.seen, memory.anonymous_peak - slot.base)

    def explain(
        self, slot: Slot, message: Message, slots: list[Slot]
    ) -> TaskOutOfMemoryError | None:
        """What an answer becomes where memory ran out for what the task had started.

        Args:
            slot: the worker, whose first job is answered.
            message: the answer.
            slots: all workers.
        """
        kind, _, _, seconds, payload = message
        if seconds < (_QUICK if kind == protocol.VALUE else _INSTANT):
            return None
        moved = self.attribution.of_task(slot, slots)
        if moved == "no" or kind == protocol.VALUE:  # it has done without
            return None
        job = slot.running[0]
        failed = pickle.loads(payload)  # noqa: S301 - of our own worker
        error = (
            failed.error if kind == protocol.FAILED else transfer.load_error(*failed)
        )
        killed = exits.lost(
            error,
            peak=job.seen,
            attempts=job.attempts,
            out_of_memory=moved,
            limit=_memory_limit(),
        )
        killed.__cause__ = error
        return killed

    def again(
        self, slot: Slot, code: int | None, *, busy: int, others: list[Slot]
    ) -> list[Job]:
        """The jobs to be run again, after the first has got its verdict.

        Args:
            slot: the worker.
            code: its exit code.
            busy: how many were at work, this one included.
            others: all workers but this one.
        """
        jobs = list(slot.running)
        slot.running.clear()
        if not jobs:
            return []
        if not slot.ready:  # it has begun none
            for job in jobs:
                job.attempts -= 1
            return jobs
        first, *rest = jobs
        if first.seen:
            first.measured(slot.base + first.seen)
        for job in rest:
            job.attempts -= 1
        if slot.doomed == "evicted" and self._gate:
            self._gate.admission.evicted(first, first.seen)
            return jobs
        error = self._verdict(slot, first, code, others)
        is_oom = isinstance(error, TaskOutOfMemoryError)
        if is_oom and self.may_retry(slot, first, busy=busy, others=len(others)):
            return jobs
        is_over = first.fail(error)
        first.ring()  # no other answer may come that would
        # Else calls of a map: those after the one that it died of.
        return rest if is_over else jobs

    def may_retry(self, slot: Slot, job: Job, *, busy: int, others: int) -> bool:
        """Whether a task for which memory ran out is run again; as `again`."""
        if self._gate is None:
            return False
        had_all = not others and not slot.served
        retry = self._gate.may_retry(job, had_all=had_all)
        self._gate.admission.killed(job, job.seen, busy)
        return retry

    def _verdict(
        self, slot: Slot, job: Job, code: int | None, others: list[Slot]
    ) -> TaskKilledError:
        if slot.doomed == "timeout":
            seconds = self._setup.timeout or 0.0
            return exits.overdue(seconds, peak=job.seen, attempts=job.attempts)
        moved: OutOfMemory = "no"
        if exits.was_killed(code) and not slot.doomed:
            moved = self.attribution.of_worker(slot, others)
        return exits.verdict(
            code,
            peak=job.seen,
            attempts=job.attempts,
            out_of_memory=moved,
            limit=_memory_limit() if moved != "no" else "",
            shared_memory=_shared_memory(),
        )


def _memory_limit() -> str:
    """The kernel's limit: what the environment says, right or wrong, kills nobody."""
    return report.memory_limit(detect(LiveFor(processes.own())))


def _shared_memory() -> int | None:
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - its size, not a file in it
    except (AttributeError, OSError):
        return None
    return shm.f_frsize * shm.f_blocks
