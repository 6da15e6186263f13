"""Admission by memory: the bound that measures the workers of one pool.

This module measures, `coresize.executor.admission.rules` decides. The dispatcher's
thread calls the methods of `MemoryBound` at four events:

- A worker is ready (`on_ready`): its memory before the first task is the *base*. Until
  the base is known, no worker is started beside a worker that has a task.
- A task may start (`choose`): the rules get the bytes that each running task has taken
  so far, and the bytes that are left in the tightest cgroup of this process, minus the
  soft margin, minus the part of the base that starting workers have yet to take, and
  minus the large arguments of given tasks that are not copied yet.
- 20 ms have passed (`look`): each busy worker and its descendants are measured. If less
  than the hard margin is left, and at least two workers are busy, the worker of the
  youngest task is killed ("evicted") before the kernel kills one of its own choice.
  There is one eviction at a time. Without retries, there is none.
- A task has ended (`on_end`): the rules learn its peak.

When such a worker has ended, `coresize.executor.pool.exits` settles its task. After an
eviction the task is run again in any case. After a kill by the kernel it is run again
if `may_retry` allows that.
"""

from __future__ import annotations

import logging
import time
from itertools import islice

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
# The memory that is left now.


_log = logging.getLogger("coresize")

#: The memory that is kept free, as parts of the limit. With less than HARD left, the
#: youngest task is evicted; with less than HARD + SOFT left, no task starts. FLOOR is
#: the least for HARD in bytes: a process may take them between two looks. GROUP widens
#: both where one kill takes the whole container (memory.oom.group; Kubernetes from
#: 1.28).
SOFT, HARD, GROUP = 0.02, 0.02, 3.0
FLOOR = 24 * 1024**2

#: A task that holds fewer bytes is not evicted.
_LITTLE = 1024**2

#: Seconds between two looks at the memory of tasks.
_INTERVAL = 0.02


class _Noting(Live):
    """This machine; ``told`` keeps the values of the variables that were read last."""

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
    """The memory that the cgroups of this process have left, read anew each time.

    Attributes:
        limit: bytes of the limit, or of the machine if there is no limit.
        group: whether one kill takes the whole container.
        hard: bytes; with less left, the youngest task is evicted.
        soft: bytes; with less left, no task starts.
    """

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
        """Bytes that can be taken before a limit of a cgroup is met, hard or soft."""
        left = memory_left(self._ask())
        return self.limit if left is None else left

    def _ask(self) -> MemoryLimits:
        """The memory now; a variable that became invalid keeps its last valid value."""
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
    """The `Bound` of memory: starts tasks that fit, evicts the youngest if need be.

    Args:
        most: the number of workers that the pool may have.
        learns: the needs of tasks are learned, not declared.
        oom_retries: how often a task is run again after a kill for memory.
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

        A worker takes memory before its first task: for its interpreter, its main
        module and its initializer. The first worker shows how much, so the others are
        started after it. The memory that starting workers will still take is reserved.
        """
        now = time.monotonic()
        running = [self._taken(worker, now) for worker in workers if worker.running]
        if not running:
            copies = any(job.uncopied for job in islice(waiting, 1))
            return self.rules.choose(
                waiting, running, self.headroom.left() if copies else 0
            )
        if must_start and self._base is None:
            return None
        base = self._base or 0
        more = base if must_start else 0
        more += sum(job.uncopied for worker in workers for job in worker.running)
        more += sum(
            max(0, base - _held(worker)) for worker in workers if not worker.ready
        )
        left = self.headroom.left() - self.headroom.soft
        return self.rules.choose(waiting, running, left, more)

    def on_ready(self, worker: Worker) -> None:
        """See `Bound.on_ready`: learn the memory of a worker before its first task."""
        self._base = max(worker.base, self._base or 0)

    def on_end(self, worker: Worker, job: Job, peak: int) -> None:
        """See `Bound.on_end`: learn from the peak of the task."""
        peak = max(peak - worker.base, job.seen)
        now = time.monotonic()
        trace = self._traces.pop(job, None) or MemoryTrace(worker.began)
        self.rules.succeeded(job, peak, trace.longest_stable(peak, now))

    def may_retry(self, job: Job, *, had_all: bool) -> bool:
        """Whether a task is run again after a kill: alone, from then on.

        The first time it runs again, the task has all of the memory that the other
        tasks had. Later tries, and a first one of a task that was alone already, differ
        only in what other programs leave. So none of them is made by default, and as
        many as were asked for with ``oom_retries`` of 2 or more.

        Args:
            job: the task.
            had_all: the task already had all of the memory: its worker was the only
                one of the pool, and the task was the worker's first.
        """
        job.kills += 1
        if had_all or job.alone:
            return self.oom_retries > 1 and job.kills <= self.oom_retries
        return job.kills <= self.oom_retries

    def patience(self) -> float:
        """See `Bound.patience`."""
        return _INTERVAL

    def look(self, workers: Sequence[Worker]) -> None:
        """See `Bound.look`: evict the youngest task when memory gets tight."""
        now = time.monotonic()
        if now - self._looked < _INTERVAL:
            return
        self._looked = now
        busy = [worker for worker in workers if worker.running and worker.ready]
        self._traces = {worker.running[0]: self._grown(worker, now) for worker in busy}
        if len(busy) < 2 or not self.oom_retries or any(s.kill_reason for s in busy):
            return
        if self.headroom.left() >= self.headroom.hard:
            return
        # The end of a task that holds little frees nothing: segments are the pool's.
        traces = self._traces
        held = [
            worker
            for worker in busy
            if (trace := traces[worker.running[0]]).used + trace.children > _LITTLE
        ]
        if held:
            max(held, key=lambda worker: worker.began).kill("evicted")

    def _taken(self, worker: Worker, now: float) -> Running:
        """A worker's task with its bytes now, and those of descendants as last seen."""
        job = worker.running[0]
        trace = self._traces.get(job)
        if trace is None:
            return job, _used(worker), 0.0
        return job, _used(worker) + trace.children, trace.stable_for(now)

    def _grown(self, worker: Worker, now: float) -> MemoryTrace:
        """The trace of a worker's task, after another look at its memory."""
        job = worker.running[0]
        trace = self._traces.get(job) or MemoryTrace(worker.began)
        used, children = _used(worker), _of_children(worker)
        trace.look(used, children, now)
        if children:
            job.seen = max(job.seen, used + children)
        return trace


def _used(worker: Worker) -> int:
    """Bytes that the task of a worker holds beyond the base; 0 during the start."""
    return max(0, _held(worker) - worker.base) if worker.ready else 0


def _held(worker: Worker) -> int:
    """Bytes that a worker holds now; 0 if the kernel does not tell."""
    memory = worker.memory()
    return memory.private if memory else 0


def _of_children(worker: Worker) -> int:
    """Bytes of the processes that descend from a worker, as of its last look."""
    # A fork of the worker shares the segments of its task, which are the pool's.
    mapped = worker.running[0].mapped if worker.running else 0
    return sum(read_proportional(pid, mapped) or 0 for pid in worker.started)
