"""Which worker gets which of the jobs that wait."""

from __future__ import annotations

from collections import deque

from coresize.executor.pace import MOST


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from coresize.executor.admission.memory import Gate
    from coresize.executor.crew import Crew
    from coresize.executor.jobs import Job
    from coresize.executor.pace import Pace
    from coresize.executor.pool.options import Setup
    from coresize.executor.pool.workers import Slot


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
