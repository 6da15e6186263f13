"""Tasks that take longer than they may, and workers that never get ready.

A start may take longer than a task: imports, a model that is loaded, a lock that is
waited for. So it is ended only where it uses no CPU time, and what is allowed doubles
each time: who only takes long will be ready some time, and who hangs is replaced.
"""

from __future__ import annotations

import time


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from coresize.executor.pool.workers import Slot

#: Seconds between two looks, and their number within a limit that is short.
_STEP, _PARTS = 0.25, 4

#: Seconds that a start may do nothing, at first; and how often that is doubled before
#: the pool is given up, as long as no worker gets ready.
_START, _ROUNDS = 3.0, 4


class TimeLimit:
    """The time limit of a pool's tasks.

    Args:
        timeout: seconds that one may take; without it nothing is ever ended.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._step = min(_STEP, (timeout or _STEP) / _PARTS)
        self._start = max(timeout or 0.0, _START)
        self._rounds = 0
        self._allowed: dict[Slot, float] = {}
        self._due = 0.0

    def left(self) -> float:
        """Seconds until the next look is due."""
        return max(0.0, self._due - time.monotonic())

    def greet(self) -> None:
        """A worker is ready: starts do not hang for ever."""
        self._rounds = 0

    def look(self, slots: Sequence[Slot]) -> str | None:
        """End what takes too long; why the pool is to be given up, if it is."""
        now = time.monotonic()
        if self._timeout is None or now < self._due:
            return None
        lefts = [self._step]
        for slot in slots:
            if slot.ready and slot.running and not slot.doomed:
                left = self._timeout - slot.ran.look(slot.began, now, self._step)
                if left < 0:
                    slot.kill("timeout")
                lefts.append(max(left, 0.01))
        self._due = now + min(lefts)
        return self._look_at_starts(slots, now)

    def _look_at_starts(self, slots: Sequence[Slot], now: float) -> str | None:
        starting = [slot for slot in slots if not slot.ready and not slot.doomed]
        # Each keeps to what was allowed when it began, or those that began together
        # would be ended one after the other.
        allowed = {slot: self._allowed.get(slot, self._start) for slot in starting}
        self._allowed = allowed
        stuck = [slot for slot in starting if self._idle(slot, now) > allowed[slot]]
        if not stuck:
            return None
        for slot in stuck:
            slot.kill("stuck")
        longest = max(allowed[slot] for slot in stuck)
        if longest >= self._start:
            self._start = 2 * longest
            self._rounds += 1
        alive = [slot for slot in slots if not slot.doomed]
        if self._rounds < _ROUNDS or any(self._is_at_work(one, now) for one in alive):
            return None
        return (
            f"workers do not get ready: {self._rounds} times in a row one was ended "
            f"that did nothing, the last time for {longest:g} s; does the initializer "
            "or an import wait for something?"
        )

    def _idle(self, slot: Slot, now: float) -> float:
        return slot.idle.look(now, self._step)

    def _is_at_work(self, slot: Slot, now: float) -> bool:
        """Whether it is ready, or has taken long and did something all the time."""
        return slot.ready or now - slot.idle.born > self._allowed[slot]
