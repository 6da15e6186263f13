"""The rules by which tasks start or wait, and what the rules learn from tasks. Pure.

Rule 1: a task starts only if its own need and the bytes that running tasks may still
take fit together into the bytes that are left; a copy of its large arguments that is
not made yet counts as well. Rule 2: if no task runs, the first waiting task whose copy
fits starts, whatever it needs; if no copy fits, the first one. Rule 3: a task whose
need is unknown runs alone, and so does a task that was killed. Rule 4: of the waiting
tasks, the largest that fits starts first; but when the first in the queue has been
passed too often, no other starts before it. Rule 5: after a kill, half as many tasks
may run, and one more after each success (AIMD: Chiu and Jain 1989). Rule 6: a learned
need of tasks that may be run again is not the largest peak that was seen, but what all
tasks together are likely to take: the mean, plus *caution* times the standard
deviation.

**How a need is learned.** Where ``memory=`` declares nothing, the first task of a
function has no known need and runs alone (rule 3). When it succeeds, its peak goes, 10%
higher, into the `PeakStats` of the function (`Rules.succeeded`). From then on the need
of this function is the largest peak of all; rule 6 refines it by the last 64 peaks. In
a pool of processes, a task that raised an error counts as well, since it ended by
itself. A killed task leaves no peak.

**What expectation and variance are for.** The peaks of one function differ. If each
task reserved the largest peak, memory would stay unused; if each reserved the mean,
about half of the tasks would exceed it. But the sum over many tasks varies less than
each task does. So the rules add up, over all running tasks and the new one, the mean of
the peaks above the present bytes of the task, minus these bytes (the expectation), and
the variance of these peaks. A running task that has not grown for longer than tasks of
its function rest (`PeakStats.rest`) counts as 0. The new task starts if the sum of the
expectations, plus caution times the root of the sum of the variances, fits. Of a
declared need, the bytes not yet taken are reserved, without variance; so is the largest
peak where a kill cannot be made good by a retry (``optimistic`` is false).

**What happens after a kill.** The need of the killed task becomes 1.5 times the larger
of its need and the bytes that were seen of it, and from now on the task runs alone. At
most half as many tasks run at a time (rule 5), and caution doubles, up to 4 standard
deviations. Each success lowers caution by 5%, down to 0.5, and lets one more task run.
An eviction, by which the pool ends a task before the kernel does, doubles caution as
well. If the task had exceeded its need, its need becomes 1.5 times the bytes seen; it
need not run alone. `coresize.executor.pool.exits` decides whether a task is run again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate, islice
from math import sqrt


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from typing import TypeAlias

    from coresize.executor.jobs import Job

    #: A task, the bytes it has taken, the seconds since it took more.
    Running: TypeAlias = tuple[Job, int, float]


# -----------------------------------------------------------------------------
# The memory that tasks of one function have taken. Pure.


#: The next task may take a little more than a peak that was seen.
HEADROOM = 1.1

#: A task rests while its memory does not grow. These seconds every task may rest before
#: it takes more; they cover several looks at it.
_REST = 0.06

#: A longer rest counts at once, and is forgotten slowly: each task leaves this part of
#: it. If all tasks rest long, each of them confirms it.
_FORGET = 0.9

_SAMPLES = 64


class PeakStats:
    """The peaks of the tasks of one function that have ended.

    Attributes:
        most: the largest peak of all tasks, in bytes, with headroom.
        rest: seconds without growth after which a task is believed to grow no more.
    """

    __slots__ = ("_last", "_sorted", "_squares", "_sums", "most", "rest")

    def __init__(self) -> None:
        self.most = 0
        self.rest = _REST
        self._last: deque[int] = deque(maxlen=_SAMPLES)
        self._sorted: list[int] = []
        self._sums: list[int] = []
        self._squares: list[int] = []

    def add(self, peak: int, rest: float) -> None:
        """Add the peak of a task in bytes, and its longest rest in seconds."""
        peak = int(peak * HEADROOM)
        self.most = max(self.most, peak)
        self.rest = max(rest, self.rest * _FORGET, _REST)
        self._last.append(peak)
        self._sorted = sorted(self._last)
        # The sums over the largest peak, over the two largest, and so on.
        self._sums = list(accumulate(reversed(self._sorted)))
        self._squares = list(accumulate(each**2 for each in reversed(self._sorted)))

    def outlook(self, used: int) -> tuple[float, float]:
        """Expectation and variance of the bytes that a task may still take.

        They are those of the remembered peaks above ``used``. The mean of a few peaks
        is uncertain, so the variance gets an extra part that shrinks as peaks are
        added.

        Args:
            used: bytes that the task has taken so far.
        """
        count = len(self._sorted) - bisect_right(self._sorted, used)
        if not count:
            return used * (HEADROOM - 1), 0.0
        mean = self._sums[count - 1] / count
        variance = self._squares[count - 1] / count - mean**2
        return mean - used, max(0.0, variance) + (mean / len(self._sorted)) ** 2


# -----------------------------------------------------------------------------
# How the memory of one running task grows, look by look. Pure.


#: Growth counts only above these bytes, and above this part of the earlier level.
_NOISE_BYTES = 1024**2
_NOISE = 0.02

#: A peak this many times above the highest level came and went between two looks.
_UNSEEN = 1.1


class MemoryTrace:
    """The memory of one running task over time.

    Args:
        now: when the task began.

    Attributes:
        used: bytes of the task's own process at the last look.
        children: bytes of the processes that the task has started, at the last look.
        rest: the most seconds that the task has rested before it took more.
    """

    __slots__ = ("_began", "_level", "_since", "children", "rest", "used")

    def __init__(self, now: float) -> None:
        self.used = self.children = self._level = 0
        self.rest = 0.0
        self._began = self._since = now

    def look(self, used: int, children: int, now: float) -> None:
        """Note the bytes that the task and its children hold now."""
        self.used, self.children = used, children
        total = used + children
        if total > self._level + max(_NOISE_BYTES, _NOISE * self._level):
            self.rest = max(self.rest, now - self._since)
            self._level, self._since = total, now

    def stable_for(self, now: float) -> float:
        """Seconds since the memory of the task has grown."""
        return now - self._since

    def longest_stable(self, peak: int, now: float) -> float:
        """The longest rest of a task that has ended, in seconds.

        If no look has seen the peak, this is the whole time of the task: the peak may
        have come at any moment.

        Args:
            peak: bytes that the task took at its peak.
            now: when the task ended.
        """
        seen = self._level + max(_NOISE_BYTES, _NOISE * self._level)
        return self.rest if peak <= seen * _UNSEEN else now - self._began


def in_turn(candidates: Sequence[Job], most: int) -> Sequence[Job]:
    """The waiting tasks that may start now: all, or the first if it was passed often.

    Args:
        candidates: the waiting tasks in order of arrival.
        most: the number of workers that the pool may have.
    """
    patient = candidates[0].passed < max(32, 8 * most)
    return candidates if patient else candidates[:1]


def first_to_fit(waiting: Iterable[Job], left: int) -> Job | None:
    """The first task of which the large arguments are copied, or can be copied.

    Args:
        waiting: the waiting tasks in order of arrival.
        left: bytes that the copy may take.
    """
    return next((job for job in waiting if job.uncopied <= max(0, left)), None)


#: After a kill, a task is believed to need this many times the bytes seen of it.
RAISE = 1.5

#: Caution: the number of standard deviations that are kept free, at first, at least and
#: at most; and the factor that each success applies.
_CAUTION, _LEAST, _MOST = 2.0, 0.5, 4.0
_EASE = 0.95

#: The number of waiting tasks that are compared, from the head of the queue.
WINDOW = 256


class Rules:
    """The rules for one pool, and what they have learned from its tasks.

    Args:
        most: the number of workers that the pool may have.
        learns: needs that are not declared are learned.
        optimistic: tasks may be run again, so rule 6 applies to learned needs.

    Attributes:
        cap: the number of tasks that may run at a time (rule 5).
        caution: the standard deviations that are kept free (rule 6).
        kills: how many tasks the kernel has killed for memory.
        evictions: how many tasks the pool has ended for memory.
    """

    def __init__(self, most: int, *, learns: bool, optimistic: bool = False) -> None:
        self.most = most
        self.cap = most
        self.learns = learns
        self.caution = _CAUTION
        self.kills = self.evictions = 0
        self._optimistic = optimistic
        self._stats: dict[Hashable, PeakStats] = {}

    def need(self, job: Job) -> int | None:
        """Bytes that a task may take: declared, else learned; None if unknown."""
        if job.need is not None:
            return job.need
        learned = self._stats.get(job.key)
        return None if learned is None else learned.most

    def learned(self) -> int | None:
        """The largest learned need of all functions, in bytes; None if unknown."""
        return max((one.most for one in self._stats.values()), default=None)

    def choose(
        self,
        waiting: Iterable[Job],
        running: Iterable[Running],
        left: int,
        more: int = 0,
    ) -> Job | None:
        """The waiting task that may start now, or None.

        Args:
            waiting: the waiting tasks in order of arrival; the first 256 are compared.
            running: the running tasks, with the bytes that each has taken so far, and
                the seconds since it took more.
            left: bytes that can still be taken, after the margin is subtracted.
            more: bytes that starting workers will take, and the worker that would have
                to be started for the task.
        """
        taken, candidates = list(running), list(islice(waiting, WINDOW))
        if not taken or not candidates:
            return first_to_fit(candidates, left) or next(iter(candidates), None)
        if len(taken) >= self.cap or any(self._is_alone(job) for job, *_ in taken):
            return None
        outlooks = [self._outlook(*each) for each in taken]
        first = candidates[0]
        chosen = self._largest(in_turn(candidates, self.most), outlooks, left - more)
        if chosen is not None and chosen is not first:
            first.passed += 1
        return chosen

    def _outlook(
        self, job: Job, used: int = 0, stable_for: float = 0.0
    ) -> tuple[float, float]:
        """Expectation and variance of the bytes that a task may still take."""
        learned = self._stats.get(job.key)
        if job.need is not None or learned is None or not self._optimistic:
            return max(0, (self.need(job) or 0) - used), 0.0
        if stable_for > learned.rest:
            return 0.0, 0.0
        return learned.outlook(used)

    def _largest(
        self, waiting: Sequence[Job], outlooks: list[tuple[float, float]], room: int
    ) -> Job | None:
        expected = sum(mean for mean, _ in outlooks)
        variance = sum(square for _, square in outlooks)
        chosen, largest = None, -1
        for job in waiting:
            need = self.need(job)
            if need is None or need <= largest or job.alone:
                continue
            mean, square = self._outlook(job)
            mean += job.uncopied
            if expected + mean + self.caution * sqrt(variance + square) <= room:
                chosen, largest = job, need
        return chosen

    def _is_alone(self, job: Job) -> bool:
        return job.alone or self.need(job) is None

    def succeeded(self, job: Job, peak: int, rest: float = 0.0) -> None:
        """Learn from a task that has ended by itself.

        Args:
            job: the task.
            peak: the most bytes that the task took.
            rest: the most seconds that the task has rested before it took more.
        """
        self.cap = min(self.most, self.cap + 1)
        self.caution = max(_LEAST, self.caution * _EASE)
        if self.learns and job.need is None:
            self._stats.setdefault(job.key, PeakStats()).add(peak, rest)

    def killed(self, job: Job, seen: int, running: int) -> None:
        """Learn from a task that was killed for memory.

        Args:
            job: the task.
            seen: the most bytes that were seen of the task.
            running: the number of tasks that were running, this one included.
        """
        self.kills += 1
        self.cap = max(1, min(self.cap, running) // 2)
        self.caution = min(_MOST, 2 * self.caution)
        job.need = int(max(self.need(job) or 0, seen) * RAISE)
        job.alone = True

    def evicted(self, job: Job, seen: int) -> None:
        """Learn from a task that the pool has ended before the kernel would kill one.

        Args:
            job: the task.
            seen: the most bytes that were seen of the task.
        """
        self.evictions += 1
        self.caution = min(_MOST, 2 * self.caution)
        if seen > (self.need(job) or 0):  # else another task has exceeded its need
            job.need = int(seen * RAISE)
