"""How long calls of a function take, and how many to give a worker ahead."""

from __future__ import annotations

from coresize.executor import protocol


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Hashable, Iterable

    from coresize.executor.jobs import Job

#: Seconds of work that a worker is given ahead, so that it need not wait for more: of
#: single calls, and of calls that are one message.
_AHEAD = {protocol.CALL: 0.002, protocol.CALLS: 0.05}
_MOST_BYTES = 32 * 1024

#: Jobs that a worker has at most.
MOST = 64

#: What it costs to call anything at all.
_LEAST = 1e-5


class Pace:
    """Seconds of a call, by function."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def learn(self, job: Job, seconds: float) -> None:
        """A call took so long. Slower counts at once, quicker by and by."""
        seconds = max(seconds, _LEAST)
        before = self._seconds.get(job.key, seconds)
        share = 0.5 if seconds > before else 0.1
        self._seconds[job.key] = before + share * (seconds - before)

    def of(self, key: Hashable) -> float | None:
        """Seconds of one call; None where nobody knows."""
        return self._seconds.get(key)

    def ahead(
        self, running: Iterable[Job], waiting: deque[Job], room: int
    ) -> list[Job]:
        """Take from those that wait what a worker may have beside what it runs.

        Only such as are short: what it was given no other worker will do.
        """
        jobs: list[Job] = []
        planned = sum(self._of_all(job) for job in running)
        size = 0
        while waiting and len(jobs) < room:
            job = waiting[0]
            planned += self._of_all(job)
            size += job.waiting_bytes
            large = job.payload is None or size > _MOST_BYTES
            if planned > _AHEAD[job.kind] or large:
                break
            jobs.append(waiting.popleft())
        return jobs

    def _of_all(self, job: Job) -> float:
        """Seconds of all calls of a job; for ever where nobody knows."""
        return self._seconds.get(job.key, float("inf")) * job.size
