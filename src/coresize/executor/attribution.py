"""Whose process each kill for memory was: one kill, one verdict.

The kernel says how many processes of a cgroup it has killed for memory, and not which.
But who was killed is dying: SIGKILL is pending, its memory or all of it is gone. So
each time the count has moved, the processes are looked at, and the kill is spent on

1. a worker that is dying, though we have not ended it: its task is the victim;
2. else a task of which a process is dying or has vanished since the last look;
3. else, when a task ends, on that, if its worker has waited for a child meanwhile.

What explains nothing at the next look is dropped: it was a process of others, or of a
task that has ended well, and must not blame the next worker that dies by other means.
One look's grace, as the kernel counts first and sends the signal then. Where more are
concerned than were killed the verdict is "probably".
"""

from __future__ import annotations

from coresize import processes
from coresize.kills import Kills


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from coresize.executor.slot import Slot
    from coresize.model import OutOfMemory


class Attribution:
    """The kills for memory where the workers of one pool run."""

    def __init__(self) -> None:
        self._counts: dict[str, Kills] = {}
        #: Kills that were seen once, and are nobody's yet.
        self._unexplained: dict[Kills, int] = {}

    def welcome(self, slot: Slot) -> None:
        """Take note of where a worker's kills are counted."""
        cgroup = processes.read(slot.pid, "cgroup")
        if cgroup not in self._counts:
            self._counts[cgroup] = Kills(slot.pid)
        slot.kills = self._counts[cgroup]
        slot.has_reaped()  # what its main module and its initializer have started

    def look(self, slots: Iterable[Slot]) -> None:
        """Spend what is new on those that are concerned, where something runs."""
        slots = list(slots)
        for kills in self._counts.values():
            new, old = kills.take(), self._unexplained.pop(kills, 0)
            if new + old and any(slot.running for slot in slots):
                left = new + old - _spend(kills, new + old, slots)
                self._unexplained[kills] = min(left, new)

    def of_worker(self, slot: Slot, others: Iterable[Slot]) -> OutOfMemory:
        """Whether a worker that has ended by SIGKILL was killed for memory."""
        self.look([slot, *others])
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
            self._unexplained[kills] -= 1
            others = any(other.started for other in slots if other is not slot)
            return "probably" if others or kills.is_of_all else "yes"
        return lost


def _spend(kills: Kills, count: int, slots: list[Slot]) -> int:
    """Tell those that are concerned, workers first; returns how many."""
    here = [slot for slot in slots if slot.kills in {kills, None} and not slot.doomed]
    dying = {slot for slot in here if processes.is_dying(slot.pid)}
    killed = [slot for slot in here if slot in dying and slot.killed == "no"]
    losing = [slot for slot in here if slot not in dying and slot.loses()]
    more = len(killed) + len(losing) > count
    verdict: OutOfMemory = "probably" if more or kills.is_of_all else "yes"
    for slot in killed[:count]:
        slot.killed = verdict
    for slot in losing[: max(0, count - len(killed))]:
        slot.lost = verdict
    return min(count, len(killed) + len(losing))
