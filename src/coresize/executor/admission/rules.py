"""Which task may start: a rule of memory, and what is learned from tasks. Pure.

Rule 1: a task starts only while what running tasks may still take, and its own need,
fit into what is left. Rule 2: one runs where nothing does, whatever it needs. Rule 3: a
task of which nothing is known, and one that was killed, runs alone. Rule 4: among those
that wait the largest that fits goes first, but none is passed for ever. Rule 5: after a
kill half as many may run, and one more after each success (AIMD: Chiu and Jain 1989).
Rule 6: needs that are learned, of tasks that may be run again, are not the largest that
was seen but what is likely of all together: the mean, and caution times the standard
deviation. Caution doubles when a task is ended for memory, and falls with each success.
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

    #: A task, the bytes it has taken, the seconds for which it has taken no more.
    Running: TypeAlias = tuple[Job, int, float]


# -----------------------------------------------------------------------------
# What is known of the memory that tasks of one function take. Pure.


#: What was seen once may be a little more the next time.
HEADROOM = 1.1

#: Seconds for which every task may rest before it takes more; several looks at it.
_REST = 0.06

#: A long rest counts at once, and is forgotten by and by: each task takes so much of
#: it. Tasks that all rest long say so anew each time.
_FORGET = 0.9

_SAMPLES = 64


class PeakStats:
    """The peaks of tasks that have ended.

    Attributes:
        most: the largest of all, in bytes, with headroom.
        rest: seconds after which a task that took no more is believed to be done.
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
        """A task took so much, and after so many seconds at rest it took more."""
        peak = int(peak * HEADROOM)
        self.most = max(self.most, peak)
        self.rest = max(rest, self.rest * _FORGET, _REST)
        self._last.append(peak)
        self._sorted = sorted(self._last)
        # Of the largest, of the two largest, and so on.
        self._sums = list(accumulate(reversed(self._sorted)))
        self._squares = list(accumulate(each**2 for each in reversed(self._sorted)))

    def outlook(self, used: int) -> tuple[float, float]:
        """What a task that has taken so much may still take: expectation and variance.

        As those did that took more. Of the few that were seen when tasks are new, one
        may be far from the mean; so the fewer, the larger the variance.
        """
        count = len(self._sorted) - bisect_right(self._sorted, used)
        if not count:
            return used * (HEADROOM - 1), 0.0
        mean = self._sums[count - 1] / count
        variance = self._squares[count - 1] / count - mean**2
        return mean - used, max(0.0, variance) + (mean / len(self._sorted)) ** 2


# -----------------------------------------------------------------------------
# How the memory of one running task grows, look by look. Pure.


#: What is less than this, or than this part of what was there, is no trace.
_NOISE_BYTES = 1024**2
_NOISE = 0.02

#: A peak so much above all that was seen came and went between two looks.
_UNSEEN = 1.1


class MemoryTrace:
    """What was seen of one task.

    Args:
        now: when it began.

    Attributes:
        used: bytes, of its own process, when it was last seen.
        children: of what it has started.
        rest: the most seconds for which it took no more, and then did.
    """

    __slots__ = ("_began", "_level", "_since", "children", "rest", "used")

    def __init__(self, now: float) -> None:
        self.used = self.children = self._level = 0
        self.rest = 0.0
        self._began = self._since = now

    def look(self, used: int, children: int, now: float) -> None:
        """It holds so much now."""
        self.used, self.children = used, children
        total = used + children
        if total > self._level + max(_NOISE_BYTES, _NOISE * self._level):
            self.rest = max(self.rest, now - self._since)
            self._level, self._since = total, now

    def stable_for(self, now: float) -> float:
        """Seconds for which it has taken no more."""
        return now - self._since

    def longest_stable(self, peak: int, now: float) -> float:
        """The longest rest of a task that has ended, and took so much at its peak.

        Where the peak was never seen it is all of its time: it may come at any.
        """
        seen = self._level + max(_NOISE_BYTES, _NOISE * self._level)
        return self.rest if peak <= seen * _UNSEEN else now - self._began


#: After a kill a task is believed to need so much more than what was seen of it.
RAISE = 1.5

#: Standard deviations, of what all together may still take, that are kept free: at
#: first, at least, at most; and what each success makes of them.
_CAUTION, _LEAST, _MOST = 2.0, 0.5, 4.0
_EASE = 0.95

_WINDOW = 256


class Rules:
    """The rules for one pool, and what was learned from its tasks.

    Args:
        most: workers that it may have.
        learns: needs that are not declared are learned.
        optimistic: tasks may be run again, so that it may be tried whether they fit.
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
        """Bytes that a task may take; None where nothing is known."""
        if job.need is not None:
            return job.need
        learned = self._stats.get(job.key)
        return None if learned is None else learned.most

    def learned(self) -> int | None:
        """Bytes that a task may take, the most of all functions; None for unknown."""
        return max((one.most for one in self._stats.values()), default=None)

    def choose(
        self,
        waiting: Iterable[Job],
        running: Iterable[Running],
        left: int,
        more: int = 0,
    ) -> Job | None:
        """The one of those that wait that may start now, or None.

        Args:
            waiting: in the order they came; so many of the first are looked at.
            running: with the bytes that each has taken so far, and the seconds for
                which it has taken no more.
            left: bytes that can still be taken, margin taken off.
            more: bytes that workers take which are starting or would have to be.
        """
        taken, candidates = list(running), list(islice(waiting, _WINDOW))
        if not taken or not candidates:
            return candidates[0] if candidates else None
        if len(taken) >= self.cap or any(self._is_alone(job) for job, *_ in taken):
            return None
        outlooks = [self._outlook(*each) for each in taken]
        first = candidates[0]
        patient = first.passed < max(32, 8 * self.most)
        chosen = self._largest(
            candidates if patient else candidates[:1], outlooks, left - more
        )
        if chosen is not None and chosen is not first:
            first.passed += 1
        return chosen

    def _outlook(
        self, job: Job, used: int = 0, stable_for: float = 0.0
    ) -> tuple[float, float]:
        """Bytes that a task may take beside what it has: expectation and variance."""
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
            if expected + mean + self.caution * sqrt(variance + square) <= room:
                chosen, largest = job, need
        return chosen

    def _is_alone(self, job: Job) -> bool:
        return job.alone or self.need(job) is None

    def succeeded(self, job: Job, peak: int, rest: float = 0.0) -> None:
        """A task has ended by itself.

        Args:
            job: the task.
            peak: the most bytes that it took.
            rest: the most seconds for which it took no more, and then did.
        """
        self.cap = min(self.most, self.cap + 1)
        self.caution = max(_LEAST, self.caution * _EASE)
        if self.learns and job.need is None:
            self._stats.setdefault(job.key, PeakStats()).add(peak, rest)

    def killed(self, job: Job, seen: int, running: int) -> None:
        """A task was killed for memory while so many were running, itself included."""
        self.kills += 1
        self.cap = max(1, min(self.cap, running) // 2)
        self.caution = min(_MOST, 2 * self.caution)
        job.need = int(max(self.need(job) or 0, seen) * RAISE)
        job.alone = True

    def evicted(self, job: Job, seen: int) -> None:
        """A task was ended before the kernel would have chosen one."""
        self.evictions += 1
        self.caution = min(_MOST, 2 * self.caution)
        if seen > (self.need(job) or 0):  # or another did not keep to its own
            job.need = int(seen * RAISE)
