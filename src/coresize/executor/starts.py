"""When another worker may be started, after some could not be.

The kernel refuses a process or a file for a moment (EAGAIN, EMFILE, ENOMEM), a fork
server is killed, a worker ends while it imports. Rule 1: while one worker is ready the
pool goes on with what it has, and tries again later, later each time. Rule 2: where
none is, failures in a row add up until the pool is given up. Rule 3: what can never go
away, as arguments that cannot be pickled, is none of this: it ends the pool at once.
"""

from __future__ import annotations

import time


#: Failures in a row, without a worker that is ready, after which no more are tried.
_MOST = 3.0

#: What each counts where the kernel refuses, so that seven are tried within 6 s.
REFUSED = _MOST / 7

#: Seconds until the next try: at first, and at most.
_FIRST, _LONGEST = 0.1, 2.0


class Starts:
    """The failed starts of one pool's workers since the last that succeeded."""

    def __init__(self) -> None:
        self._failures = self._wait = self._due = 0.0

    @property
    def may_try(self) -> bool:
        """Whether a worker may be started now."""
        return time.monotonic() >= self._due

    def succeed(self) -> None:
        """A worker is ready."""
        self._failures = self._wait = self._due = 0.0

    def fail(self, weight: float, *, alone: bool, wait: bool) -> bool:
        """A worker could not be started, or has ended before it was ready.

        Args:
            weight: how much that counts.
            alone: no worker is ready, nor may become so.
            wait: the next must not be tried at once: it would fail as well. A kill is
                bad luck, and who waits after one loses workers to the next.

        Returns:
            Whether the pool is to be given up.
        """
        if wait:
            self._wait = min(_LONGEST, 2 * self._wait or _FIRST)
            self._due = time.monotonic() + self._wait
        if not alone:
            return False
        self._failures += weight
        return self._failures > _MOST - 0.001  # sums of parts are not exact


def may_go_away(error: BaseException) -> bool:
    """Whether a start that failed so may succeed later.

    EOFError comes from a fork server that ended meanwhile, and RuntimeError from a
    thread that cannot be started; but it has other causes as well.

    >>> may_go_away(BlockingIOError(11, "try again")), may_go_away(TypeError())
    (True, False)
    """
    if isinstance(error, RuntimeError):
        return "new thread" in str(error)
    return isinstance(error, (OSError, EOFError, MemoryError))
