"""What becomes of the jobs of a worker that has ended."""

from __future__ import annotations

import os

from coresize import processes, report
from coresize.available import detect
from coresize.errors import TaskKilledError, TaskOutOfMemoryError
from coresize.executor import verdicts
from coresize.host import Live
from coresize.kills import Kills


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.gate import Gate
    from coresize.executor.jobs import Job
    from coresize.executor.setup import Setup
    from coresize.executor.slot import Slot
    from coresize.model import OutOfMemory


class Undertaker:
    """Tells the first job of a dead worker why, and which are to be run again."""

    def __init__(self, setup: Setup, gate: Gate | None) -> None:
        self._setup = setup
        self._gate = gate
        self._kills: dict[str, Kills] = {}

    def welcome(self, slot: Slot) -> None:
        """Take note of where a worker's kills are counted."""
        cgroup = processes.read(slot.pid, "cgroup")
        if cgroup not in self._kills:
            self._kills[cgroup] = Kills(slot.pid)
        slot.kills = self._kills[cgroup]

    def look(self, slots: list[Slot]) -> None:
        """See what running tasks take, and what was killed."""
        for slot in slots:
            if not (slot.running and slot.ready):
                continue
            slot.look()
            memory = slot.memory()
            if memory:
                job = slot.running[0]
                job.seen = max(job.seen, memory.anonymous_peak - slot.base)
        for kills in self._kills.values():
            kills.note()

    def again(
        self, slot: Slot, code: int | None, *, busy: int, others: int
    ) -> list[Job]:
        """The jobs to be run again, after the first has got its verdict.

        Args:
            slot: the worker.
            code: its exit code.
            busy: how many were at work, this one included.
            others: how many there are, without this one.
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
        error = self._verdict(slot, first, code)
        if isinstance(error, TaskOutOfMemoryError) and self._gate:
            had_all = not others and not slot.served
            retry = self._gate.may_retry(first, had_all=had_all)
            self._gate.admission.killed(first, first.seen, busy)
            if retry:
                return jobs
        is_over = first.fail(error)
        first.ring()  # no other answer may come that would
        # Else calls of a map: those after the one that it died of.
        return rest if is_over else jobs

    def _verdict(self, slot: Slot, job: Job, code: int | None) -> TaskKilledError:
        if slot.doomed == "timeout":
            seconds = self._setup.timeout or 0.0
            return verdicts.overdue(seconds, peak=job.seen, attempts=job.attempts)
        moved: OutOfMemory = "no"
        if slot.kills and not slot.doomed:
            moved = slot.kills.moved()
        return verdicts.verdict(
            code,
            peak=job.seen,
            attempts=job.attempts,
            out_of_memory=moved,
            limit=report.memory_limit(detect(Live())) if moved != "no" else "",
            shared_memory=_shared_memory(),
        )


def _shared_memory() -> int | None:
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - its size, not a file in it
    except (AttributeError, OSError):
        return None
    return shm.f_frsize * shm.f_blocks
