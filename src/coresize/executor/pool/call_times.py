"""How long the calls of a function take, and how many a worker is given ahead."""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Hashable, Iterable

    from coresize.executor.jobs import Job


#: Seconds of work that a worker is given ahead, so that it does not wait for jobs: for
#: single calls, and for chunks.
_AHEAD = {False: 0.002, True: 0.05}
_MOST_BYTES = 32 * 1024

#: The most jobs that a worker has at a time.
MOST = 64

#: The least seconds that a call counts, for the cost of a call itself.
_LEAST = 1e-5


class CallTimes:
    """The seconds that a call takes, by function."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def learn(self, job: Job, seconds: float) -> None:
        """Learn from the seconds of a call; a rise counts faster than a fall."""
        seconds = max(seconds, _LEAST)
        before = self._seconds.get(job.key, seconds)
        share = 0.5 if seconds > before else 0.1
        self._seconds[job.key] = before + share * (seconds - before)

    def of(self, key: Hashable) -> float | None:
        """The seconds of one call; None if unknown."""
        return self._seconds.get(key)

    def ahead(
        self, running: Iterable[Job], waiting: deque[Job], room: int
    ) -> list[Job]:
        """Take waiting jobs that a worker may have besides the jobs that it runs.

        Only short jobs are taken: another worker takes them only when this one is late.

        Args:
            running: the jobs of the worker.
            waiting: the waiting jobs, from which the result is removed.
            room: the most jobs to take.
        """
        jobs: list[Job] = []
        planned = sum(self._of_all(job) for job in running)
        size = 0
        while waiting and len(jobs) < room:
            job = waiting[0]
            planned += self._of_all(job)
            size += job.waiting_bytes
            large = job.payload is None or size > _MOST_BYTES
            if planned > _AHEAD[job.is_chunk] or large:
                break
            jobs.append(waiting.popleft())
        return jobs

    def _of_all(self, job: Job) -> float:
        """The seconds of all calls of a job; infinite if unknown."""
        return self._seconds.get(job.key, float("inf")) * job.size
