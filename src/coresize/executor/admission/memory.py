"""Admission by memory, over the workers of one pool."""

from __future__ import annotations

import logging
import time

from coresize.detection import counters
from coresize.detection.available import memory_limits
from coresize.detection.limits import memory_left
from coresize.errors import ConfigError
from coresize.executor.admission.rules import MemoryTrace, Rules
from coresize.host import Live
from coresize.processes.memory import read_proportional


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coresize.executor.admission.bounds import Worker
    from coresize.executor.admission.rules import Running
    from coresize.executor.jobs import Job
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

#: Seconds between two looks at what tasks take.
_INTERVAL = 0.02


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


class Headroom:
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


class MemoryBound:
    """Lets tasks start while they fit, and ends the youngest before the kernel chooses.

    A `Bound`. The rules are those of `coresize.executor.admission.rules`.

    Args:
        most: workers that the pool may have.
        learns: the needs of tasks are not declared.
        oom_retries: how often a task that was killed for memory is run again.
    """

    chooses = True

    def __init__(self, most: int, *, learns: bool, oom_retries: int) -> None:
        self.oom_retries = oom_retries
        self.headroom = Headroom()
        optimistic = oom_retries > 0 and not self.headroom.group
        self.rules = Rules(most, learns=learns, optimistic=optimistic)
        if self.headroom.group:
            _log.warning(
                "memory.oom.group is set: one kill takes all of this container, so "
                "more memory is kept free"
            )
        self._base: int | None = None
        self._looked = 0.0
        self._traces: dict[Job, MemoryTrace] = {}

    def choose(
        self,
        waiting: Iterable[Job],
        workers: Sequence[Worker],
        *,
        must_start: bool,
    ) -> Job | None:
        """See `Bound.choose`.

        A worker takes memory before its first task: its interpreter, what the main
        module and the initializer load. How much the first one tells, so the others are
        started after it; and what those that are starting will take is kept for them.
        """
        now = time.monotonic()
        running = [self._taken(worker, now) for worker in workers if worker.running]
        if not running:
            return self.rules.choose(waiting, running, 0)
        if must_start and self._base is None:
            return None
        base = self._base or 0
        more = base if must_start else 0
        more += sum(
            max(0, base - _held(worker)) for worker in workers if not worker.ready
        )
        left = self.headroom.left() - self.headroom.soft
        return self.rules.choose(waiting, running, left, more)

    def on_ready(self, worker: Worker) -> None:
        """See `Bound.on_ready`: learn what a worker takes before its first task."""
        self._base = max(worker.base, self._base or 0)

    def on_end(self, worker: Worker, job: Job, peak: int) -> None:
        """See `Bound.on_end`: learn from what the task took."""
        peak = max(peak - worker.base, job.seen)
        now = time.monotonic()
        trace = self._traces.pop(job, None) or MemoryTrace(worker.began)
        self.rules.succeeded(job, peak, trace.longest_stable(peak, now))

    def may_retry(self, job: Job, *, had_all: bool) -> bool:
        """Whether a task that was killed is run again: alone, then.

        Args:
            job: the task.
            had_all: no other worker was there, and its own was a fresh one.
        """
        job.kills += 1
        return not had_all and job.kills <= self.oom_retries and not job.alone

    def patience(self) -> float:
        """See `Bound.patience`."""
        return _INTERVAL

    def look(self, workers: Sequence[Worker]) -> None:
        """See `Bound.look`: end the youngest task when memory gets tight."""
        now = time.monotonic()
        if now - self._looked < _INTERVAL:
            return
        self._looked = now
        busy = [worker for worker in workers if worker.running and worker.ready]
        self._traces = {worker.running[0]: self._grown(worker, now) for worker in busy}
        if len(busy) < 2 or not self.oom_retries or any(s.kill_reason for s in busy):
            return
        if self.headroom.left() < self.headroom.hard:
            youngest = max(busy, key=lambda worker: worker.began)
            youngest.kill("evicted")

    def _taken(self, worker: Worker, now: float) -> Running:
        """What a worker's task has taken by now, as far as is known."""
        job = worker.running[0]
        trace = self._traces.get(job)
        if trace is None:
            return job, _used(worker), 0.0
        return job, _used(worker) + trace.children, trace.stable_for(now)

    def _grown(self, worker: Worker, now: float) -> MemoryTrace:
        """What a worker's task has taken, looked at again."""
        job = worker.running[0]
        trace = self._traces.get(job) or MemoryTrace(worker.began)
        used, children = _used(worker), _of_children(worker)
        trace.look(used, children, now)
        if children:
            job.seen = max(job.seen, used + children)
        return trace


def _used(worker: Worker) -> int:
    """Bytes that a worker's task has taken so far."""
    return max(0, _held(worker) - worker.base) if worker.ready else 0


def _held(worker: Worker) -> int:
    """Bytes that a worker has taken so far."""
    memory = worker.memory()
    return memory.private if memory else 0


def _of_children(worker: Worker) -> int:
    """Bytes of what a task has started."""
    return sum(read_proportional(pid) or 0 for pid in worker.started)
