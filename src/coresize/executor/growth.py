"""How the memory of one running task grows, look by look. Pure."""

from __future__ import annotations


#: What is less than this, or than this part of what was there, is no growth.
_NOISE_BYTES = 1024**2
_NOISE = 0.02

#: A peak so much above all that was seen came and went between two looks.
_UNSEEN = 1.1


class Growth:
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

    def rested(self, now: float) -> float:
        """Seconds for which it has taken no more."""
        return now - self._since

    def longest_rest(self, peak: int, now: float) -> float:
        """The longest rest of a task that has ended, and took so much at its peak.

        Where the peak was never seen it is all of its time: it may come at any.
        """
        seen = self._level + max(_NOISE_BYTES, _NOISE * self._level)
        return self.rest if peak <= seen * _UNSEEN else now - self._began
