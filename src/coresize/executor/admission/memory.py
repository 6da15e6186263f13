"""Admission by memory, over the workers of one pool."""

from __future__ import annotations

import logging
import time

from coresize import footprint
from coresize.executor.admission.rules import Admission
from coresize.executor.growth import Growth
from coresize.executor.pressure import Pressure


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coresize.executor.admission.rules import Running
    from coresize.executor.jobs import Job
    from coresize.executor.pool.workers import Slot

_log = logging.getLogger("coresize")


class Gate:
    """Lets tasks start while they fit, and ends the youngest before the kernel chooses.

    Args:
        most: workers that the pool may have.
        learns: the needs of tasks are not declared.
        oom_retries: how often a task that was killed for memory is run again.
    """

    #: Seconds between two looks.
    interval = 0.02

    def __init__(self, most: int, *, learns: bool, oom_retries: int) -> None:
        self.oom_retries = oom_retries
        self.pressure = Pressure()
        bold = oom_retries > 0 and not self.pressure.group
        self.admission = Admission(most, learns=learns, bold=bold)
        if self.pressure.group:
            _log.warning(
                "memory.oom.group is set: one kill takes all of this container, so "
                "more memory is kept free"
            )
        self._worker: int | None = None
        self._growth: dict[Job, Growth] = {}

    def choose(
        self, waiting: Iterable[Job], slots: Sequence[Slot], *, must_start: bool
    ) -> Job | None:
        """The job that may start now, or None.

        A worker takes memory before its first task: its interpreter, what the main
        module and the initializer load. How much the first one tells, so the others are
        started after it; and what those that are starting will take is kept for them.
        """
        now = time.monotonic()
        running = [self._look(slot, now) for slot in slots if slot.running]
        if not running:
            return self.admission.choose(waiting, running, 0)
        if must_start and self._worker is None:
            return None
        worker = self._worker or 0
        more = worker if must_start else 0
        more += sum(max(0, worker - _held(slot)) for slot in slots if not slot.ready)
        left = self.pressure.left() - self.pressure.soft
        return self.admission.choose(waiting, running, left, more)

    def welcome(self, slot: Slot) -> None:
        """Learn what a worker takes before its first task."""
        self._worker = max(slot.base, self._worker or 0)

    def succeeded(self, slot: Slot, job: Job, peak: int) -> None:
        """Learn from a task that has ended."""
        peak = max(peak - slot.base, job.seen)
        now = time.monotonic()
        growth = self._growth.pop(job, None) or Growth(slot.began)
        self.admission.succeeded(job, peak, growth.longest_rest(peak, now))

    def may_retry(self, job: Job, *, had_all: bool) -> bool:
        """Whether a task that was killed is run again: alone, then.

        Args:
            job: the task.
            had_all: no other worker was there, and its own was a fresh one.
        """
        job.kills += 1
        return not had_all and job.kills <= self.oom_retries and not job.alone

    def watch(self, slots: Sequence[Slot]) -> None:
        """Count what tasks have started; end the youngest when it gets tight."""
        busy = [slot for slot in slots if slot.running and slot.ready]
        now = time.monotonic()
        self._growth = {slot.running[0]: self._grown(slot, now) for slot in busy}
        if len(busy) < 2 or not self.oom_retries or any(s.doomed for s in busy):
            return
        if self.pressure.left() < self.pressure.hard:
            youngest = max(busy, key=lambda slot: slot.began)
            youngest.kill("evicted")

    def _look(self, slot: Slot, now: float) -> Running:
        """What a worker's task has taken by now, as far as is known."""
        job = slot.running[0]
        growth = self._growth.get(job)
        if growth is None:
            return job, _used(slot), 0.0
        return job, _used(slot) + growth.children, growth.rested(now)

    def _grown(self, slot: Slot, now: float) -> Growth:
        """What a worker's task has taken, looked at again."""
        job = slot.running[0]
        growth = self._growth.get(job) or Growth(slot.began)
        used, children = _used(slot), _of_children(slot)
        growth.look(used, children, now)
        if children:
            job.seen = max(job.seen, used + children)
        return growth


def _used(slot: Slot) -> int:
    """Bytes that a worker's task has taken so far."""
    return max(0, _held(slot) - slot.base) if slot.ready else 0


def _held(slot: Slot) -> int:
    """Bytes that a worker has taken so far."""
    memory = slot.memory()
    return memory.private if memory else 0


def _of_children(slot: Slot) -> int:
    """Bytes of what a task has started."""
    return sum(footprint.proportional(pid) or 0 for pid in slot.started)
