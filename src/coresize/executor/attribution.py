"""Whose process each kill for memory was: one kill, one verdict.

The kernel says how many processes of a cgroup it has killed for memory, and not which.
But who was killed can be seen: SIGKILL is pending, or it is on its way out, or gone. So
each time the count has moved, all are looked at, and the kill is spent on

1. a worker that was killed, and not by us: its task is the victim;
2. else a task of which a process was killed; else one of which a process is there no
   more since the last look;
3. else, when a task ends, on that, if its worker has waited for a child meanwhile.

What explains nothing for a moment is dropped: it was a process of others, and must not
blame the next worker that dies by other means. A moment, as the kernel counts first and
sends the signal then. Where more are concerned than were killed the verdict is
"probably".
"""

from __future__ import annotations

import time

from coresize import processes
from coresize.processes.oom import Kills


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from coresize.executor.pool.workers import Slot
    from coresize.model import OutOfMemory


#: Seconds for which a kill waits for who is concerned.
_MOMENT = 0.5


class Attribution:
    """The kills for memory where the workers of one pool run."""

    def __init__(self) -> None:
        self._counts: dict[str, Kills] = {}
        #: When kills were seen that are nobody's yet, the latest last.
        self._unexplained: dict[Kills, list[float]] = {}

    def welcome(self, slot: Slot) -> None:
        """Take note of where a worker's kills are counted."""
        cgroup = processes.read(slot.pid, "cgroup")
        if cgroup not in self._counts:
            self._counts[cgroup] = Kills(slot.pid)
        slot.kills = self._counts[cgroup]
        slot.has_reaped()  # what its main module and its initializer have started

    def look(self, slots: Iterable[Slot], dead: Slot | None = None) -> None:
        """Spend what is new on those that are concerned, where something runs.

        Args:
            slots: the workers.
            dead: one more, which has ended by SIGKILL.
        """
        now = time.monotonic()
        every = [dead, *slots] if dead else list(slots)
        for kills in self._counts.values():
            seen = self._unexplained.pop(kills, [])
            seen = [one for one in seen if now - one < _MOMENT] + [now] * kills.take()
            if seen and (dead or any(slot.running for slot in every)):
                spent = _spend(kills, len(seen), every)
                self._unexplained[kills] = seen[spent:]

    def of_worker(self, slot: Slot, others: Iterable[Slot]) -> OutOfMemory:
        """Whether a worker that has ended by SIGKILL was killed for memory."""
        self.look(others, dead=slot)
        return slot.killed

    def of_task(self, slot: Slot, slots: Iterable[Slot]) -> OutOfMemory:
        """Whether a process was killed for memory that a task has started.

        Args:
            slot: its worker, which has just answered; it is asked once for each answer.
            slots: all workers.
        """
        self.look(slots)
        lost, slot.lost = slot.lost, "no"
        reaped, kills = slot.has_reaped(), slot.kills
        if lost == "no" and reaped and kills and self._unexplained.get(kills):
            self._unexplained[kills].pop(0)
            others = any(other.started for other in slots if other is not slot)
            return "probably" if others or kills.is_of_all else "yes"
        return lost


def _spend(kills: Kills, count: int, slots: list[Slot]) -> int:
    """Tell those that are concerned, the most probable first; returns how many."""
    here = [slot for slot in slots if slot.kills in {kills, None} and not slot.doomed]
    ended = {slot for slot in here if _has_ended(slot)}
    killed = [slot for slot in here if slot in ended and slot.killed == "no"]
    others = [slot for slot in here if slot.lost == "no" and slot not in ended]
    losses = {slot: slot.loss() for slot in others if slot.running}
    losing = sorted(filter(losses.get, losses), key=losses.__getitem__, reverse=True)
    verdict: OutOfMemory = "yes"
    if len(killed) + len(losing) > count or kills.is_of_all:
        verdict = "probably"
    for slot in killed[:count]:
        slot.killed = verdict
    for slot in losing[: max(0, count - len(killed))]:
        slot.lost = verdict
    return min(count, len(killed) + len(losing))


def _has_ended(slot: Slot) -> bool:
    """Whether a worker was killed, or is gone."""
    return processes.is_killed(slot.pid) or not processes.exists(slot.pid, "stat")
