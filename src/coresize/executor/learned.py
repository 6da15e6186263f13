"""What is known of the memory that tasks of one function take. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate


#: What was seen once may be a little more the next time.
HEADROOM = 1.1

#: Seconds for which every task may rest before it takes more; several looks at it.
_REST = 0.06

#: A long rest counts at once, and is forgotten by and by: each task takes so much of
#: it. Tasks that all rest long say so anew each time.
_FORGET = 0.9

_SAMPLES = 64


class Learned:
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
