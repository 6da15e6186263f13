"""Attributing kills for memory to workers and tasks: each kill explains one end.

The kernel counts the processes of a cgroup that it has killed for memory, but does
not name them. The victim shows, though: it has a pending SIGKILL, is exiting, or is
gone. So each time the count has risen, all workers of the cgroup and their
descendants are looked at, and each kill is attributed to

1. a worker that was killed, but not by the pool;
2. else a task with a descendant that was killed, else a task with a descendant that
   is gone since the last look;
3. else the task that ends next, if its worker has waited for a child meanwhile.

The kernel counts a kill before it sends the signal, so a kill waits 0.5 s for its
victim. Then the victim was probably a process of another program, and the kill must
not explain the next death of a worker. If there are more possible victims than kills,
or the count is that of the whole machine, the verdict is "probably".

A task whose error shows that SIGKILL has ended a child is better evidence than a
descendant that is gone, which may have ended well. Such a task takes over the kill of
a task that is only suspected, or a kill that has waited for up to 5 s: where memory
is short, a task may need so long to see the end of its child. If a suspected task
succeeds, its kill waits again.
"""

from __future__ import annotations

import time

from coresize import processes
from coresize.processes.oom import EXPLAINS, OomCounter


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from coresize.executor.pool.handle import WorkerHandle
    from coresize.model import OutOfMemory


#: Seconds for which a kill waits for its victim.
_MOMENT = 0.5


class Attribution:
    """Attributes kills for memory in the cgroups of one pool's workers."""

    def __init__(self) -> None:
        self._counts: dict[str, OomCounter] = {}
        #: The times of kills that are not attributed, the latest last: of those that
        #: wait for their victims, and of those that have waited too long.
        self._waiting: dict[OomCounter, list[float]] = {}
        self._late: dict[OomCounter, list[float]] = {}

    def on_ready(self, worker: WorkerHandle) -> None:
        """Note the counter of the worker's cgroup."""
        cgroup = processes.read(worker.pid, "cgroup")
        if cgroup not in self._counts:
            self._counts[cgroup] = OomCounter(worker.pid)
        worker.kills = self._counts[cgroup]
        worker.has_reaped()  # forget children of the main module and the initializer

    def look(
        self, workers: Iterable[WorkerHandle], dead: WorkerHandle | None = None
    ) -> None:
        """Attribute the kills since the last look, if any task runs.

        Args:
            workers: the workers.
            dead: another worker, which SIGKILL has ended.
        """
        now = time.monotonic()
        every = [dead, *workers] if dead else list(workers)
        for kills in self._counts.values():
            seen = self._wait(kills, now)
            if not dead and not any(worker.running for worker in every):
                seen.clear()  # they were of no task
            elif seen:
                del seen[: _spend(kills, len(seen), every)]

    def of_worker(
        self, worker: WorkerHandle, others: Iterable[WorkerHandle]
    ) -> OutOfMemory:
        """Whether a worker that SIGKILL has ended was killed for memory."""
        self.look(others, dead=worker)
        return worker.killed

    def of_task(
        self, worker: WorkerHandle, workers: Iterable[WorkerHandle]
    ) -> OutOfMemory:
        """Whether a process that a task has started was killed for memory.

        Args:
            worker: the worker of the task; call this once for each of its answers.
            workers: all workers.
        """
        self.look(workers)
        return self._of_ended(worker, workers)

    def _of_ended(
        self, worker: WorkerHandle, workers: Iterable[WorkerHandle]
    ) -> OutOfMemory:
        lost, worker.lost, worker.suspected = worker.lost, "no", False
        reaped, kills = worker.has_reaped(), worker.kills
        if lost == "no" and reaped and kills and self._waiting.get(kills):
            self._waiting[kills].pop(0)
            others = any(other.started for other in workers if other is not worker)
            return "probably" if others or kills.is_of_all else "yes"
        return lost

    def of_success(
        self, worker: WorkerHandle, workers: Iterable[WorkerHandle]
    ) -> OutOfMemory:
        """As `of_task`, for a task that has succeeded.

        A suspicion was false. A kill that waits is left to the other tasks, if any.
        """
        self.look(workers)
        if worker.suspected and worker.kills:
            worker.lost, worker.suspected = "no", False
            self._waiting[worker.kills].append(time.monotonic())
        if not any(other.running for other in workers if other is not worker):
            return self._of_ended(worker, workers)
        worker.has_reaped()
        lost, worker.lost = worker.lost, "no"
        return lost

    def may_explain(
        self, worker: WorkerHandle, workers: Iterable[WorkerHandle]
    ) -> bool:
        """Whether a kill can be taken by `take_doubtful`."""
        kills = worker.kills
        return kills is not None and (
            bool(self._late.get(kills)) or _suspected(kills, workers) is not None
        )

    def take_doubtful(
        self, worker: WorkerHandle, workers: Iterable[WorkerHandle]
    ) -> OutOfMemory:
        """The verdict on a task whose error shows that SIGKILL has ended a child.

        Call this after `of_task` has found no kill.
        """
        kills = worker.kills
        if kills is None:
            return "no"
        if suspected := _suspected(kills, workers):
            suspected.lost, suspected.suspected = "no", False
        elif late := self._late.get(kills):
            late.pop(0)
        else:
            return "no"
        return "probably"

    def _wait(self, kills: OomCounter, now: float) -> list[float]:
        """The kills that wait for their victims, with those that are new."""
        waiting, late = self._waiting.get(kills, []), self._late.get(kills, [])
        late += [one for one in waiting if now - one >= _MOMENT]
        self._late[kills] = [one for one in late if now - one < EXPLAINS]
        waiting = [one for one in waiting if now - one < _MOMENT]
        self._waiting[kills] = waiting + [now] * kills.take()
        return self._waiting[kills]


def _suspected(
    kills: OomCounter, workers: Iterable[WorkerHandle]
) -> WorkerHandle | None:
    """A worker that has a kill for no other reason than that a descendant is gone."""
    return next((one for one in workers if one.suspected and one.kills is kills), None)


def _spend(kills: OomCounter, count: int, workers: list[WorkerHandle]) -> int:
    """Attribute kills to workers, the most probable first; returns how many."""
    here = [
        worker
        for worker in workers
        if worker.kills in {kills, None} and not worker.kill_reason
    ]
    ended = {worker for worker in here if _has_ended(worker)}
    killed = [worker for worker in here if worker in ended and worker.killed == "no"]
    others = [worker for worker in here if worker.lost == "no" and worker not in ended]
    losses = {worker: worker.loss() for worker in others if worker.running}
    losing = sorted(filter(losses.get, losses), key=losses.__getitem__, reverse=True)
    verdict: OutOfMemory = "yes"
    if len(killed) + len(losing) > count or kills.is_of_all:
        verdict = "probably"
    for worker in killed[:count]:
        worker.killed = verdict
    for worker in losing[: max(0, count - len(killed))]:
        worker.lost, worker.suspected = verdict, losses[worker] == 1
    return min(count, len(killed) + len(losing))


def _has_ended(worker: WorkerHandle) -> bool:
    """Whether a worker was killed by SIGKILL, or is gone."""
    return processes.is_killed(worker.pid) or not processes.exists(worker.pid, "stat")
