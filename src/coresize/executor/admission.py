"""Which task may start: a rule of memory, and what is learned from tasks. Pure.

Rule 1: a task starts only while what running tasks may still take, and its own need,
fit into what is left. Rule 2: one runs where nothing does, whatever it needs. Rule 3: a
task of which nothing is known, and one that was killed, runs alone. Rule 4: among those
that wait the largest that fits goes first, but none is passed for ever. Rule 5: after a
kill half as many may run, and one more after each success (AIMD: Chiu and Jain 1989).
"""

from __future__ import annotations

from itertools import islice


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from coresize.executor.jobs import Job

#: What was seen once may be a little more the next time.
HEADROOM = 1.1

#: After a kill a task is believed to need so much more than what was seen of it.
RAISE = 1.5

_WINDOW = 256


class Admission:
    """The state of one pool.

    Args:
        most: workers that it may have.
        learns: needs that are not declared are learned.
    """

    def __init__(self, most: int, *, learns: bool) -> None:
        self.most = most
        self.cap = most
        self.learns = learns
        self.kills = self.evictions = 0
        self._peaks: dict[Hashable, int] = {}

    def need(self, job: Job) -> int | None:
        """Bytes that a task may take; None where nothing is known."""
        if job.need is not None:
            return job.need
        peak = self._peaks.get(job.key)
        return None if peak is None else int(peak * HEADROOM)

    def learned(self) -> int | None:
        """Bytes that a task may take, the most of all functions; None for unknown."""
        peak = max(self._peaks.values(), default=None)
        return None if peak is None else int(peak * HEADROOM)

    def choose(
        self,
        waiting: Iterable[Job],
        running: Iterable[tuple[Job, int]],
        left: int,
        more: int = 0,
    ) -> Job | None:
        """The one of those that wait that may start now, or None.

        Args:
            waiting: in the order they came; so many of the first are looked at.
            running: with the bytes that each has taken so far.
            left: bytes that can still be taken, margin taken off.
            more: bytes that workers take which are starting or would have to be.
        """
        taken, candidates = list(running), list(islice(waiting, _WINDOW))
        if not taken or not candidates:
            return candidates[0] if candidates else None
        if len(taken) >= self.cap or any(self._is_alone(job) for job, _ in taken):
            return None
        reserved = sum(max(0, (self.need(job) or 0) - used) for job, used in taken)
        first = candidates[0]
        patient = first.passed < max(32, 8 * self.most)
        chosen = self._largest(
            candidates if patient else candidates[:1], left - reserved - more
        )
        if chosen is not None and chosen is not first:
            first.passed += 1
        return chosen

    def _largest(self, waiting: Sequence[Job], room: int) -> Job | None:
        chosen, largest = None, -1
        for job in waiting:
            need = self.need(job)
            if need is not None and largest < need <= room and not job.alone:
                chosen, largest = job, need
        return chosen

    def _is_alone(self, job: Job) -> bool:
        return job.alone or self.need(job) is None

    def succeeded(self, job: Job, peak: int) -> None:
        """A task has ended by itself, and took so many bytes at its peak."""
        self.cap = min(self.most, self.cap + 1)
        if self.learns and job.need is None:
            self._peaks[job.key] = max(peak, self._peaks.get(job.key, 0))

    def killed(self, job: Job, seen: int, running: int) -> None:
        """A task was killed for memory while so many were running, itself included."""
        self.kills += 1
        self.cap = max(1, min(self.cap, running) // 2)
        job.need = int(max(self.need(job) or 0, seen) * RAISE)
        job.alone = True

    def evicted(self, job: Job, seen: int) -> None:
        """A task was ended before the kernel would have chosen one."""
        self.evictions += 1
        job.need = int(max((self.need(job) or 0) * HEADROOM, seen * RAISE))
