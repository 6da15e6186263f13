"""Admission by memory, over the workers of one pool."""

from __future__ import annotations

import logging
import time

from coresize.detection import counters
from coresize.detection.available import memory_limits
from coresize.detection.limits import memory_left
from coresize.errors import ConfigError
from coresize.executor.admission.rules import Admission, Growth
from coresize.host import Live
from coresize.processes.memory import read_proportional


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coresize.executor.admission.rules import Running
    from coresize.executor.jobs import Job
    from coresize.executor.pool.workers import Slot
    from coresize.model import MemoryLimits


# -----------------------------------------------------------------------------
# How much memory is left now.


_log = logging.getLogger("coresize")

#: What is kept free, as parts of the limit: below the second the youngest task is
#: ended; so much above it, below the first, none starts. Bytes that a process takes
#: between two looks bound it from below. Where one kill takes the whole container
#: (memory.oom.group; Kubernetes from 1.28) all is wider.
SOFT, HARD, GROUP = 0.02, 0.02, 3.0
FLOOR = 24 * 1024**2


class _Noting(Live):
    """This machine; it takes note of the variables that it told."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        self.told = super().variables(names)
        return self.told


class _Remembering(Live):
    """This machine, with variables as they were at an earlier time."""

    def __init__(self, told: dict[str, str]) -> None:
        self._told = told

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        return {name: self._told[name] for name in names.intersection(self._told)}


class Pressure:
    """The memory of this process's cgroups, asked anew each time."""

    def __init__(self) -> None:
        self._host = _Noting()
        self._complaint = ""
        memory = memory_limits(self._host)
        self._good = self._host.told
        self.limit = memory.limit or memory.total or 0
        self.group = bool(counters.oom_groups(self._host))
        wider = GROUP if self.group else 1.0
        self.hard = int(max(HARD * self.limit, min(FLOOR, 0.08 * self.limit)) * wider)
        self.soft = int(self.hard + SOFT * self.limit * wider)

    def left(self) -> int:
        """Bytes that can be taken before a limit is met, hard or soft."""
        left = memory_left(self._ask())
        return self.limit if left is None else left

    def _ask(self) -> MemoryLimits:
        """The memory now; a variable that became wrong meanwhile is as it was."""
        try:
            found = memory_limits(self._host)
        except ConfigError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.warning("%s; what was set before stays", error)
            return memory_limits(_Remembering(self._good))
        self._good = self._host.told
        return found


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
    return sum(read_proportional(pid) or 0 for pid in slot.started)
