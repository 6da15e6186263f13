"""Maps whose input is not all taken: what becomes of the rest.

Who shuts a pool down, or drops what a map returned without reading any of it, wants
all of its calls, as with the standard library, which takes the whole input at once.
Who stops in the middle of an input that may be endless has seen enough.
"""

from __future__ import annotations

import contextlib
import threading
import weakref

from coresize.executor import finalizing


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Unfinished:
    """What the maps of all pools have in common.

    Args:
        owner: ends its workers when nobody holds it any more; so it is held until all
            of the input is taken.
        maps: the ways to finish the maps of one pool, of which this becomes one.
        sized: the input has a length, so it is not endless.
    """

    def __init__(
        self, owner: Any, maps: set[Callable[[], None]], *, sized: bool
    ) -> None:
        self._owner = owner
        self._maps = maps
        self._sized = sized
        # Whoever collects garbage may finish a map, the thread that fills it as well.
        self._filling = threading.RLock()
        self._read = self._finishing = False
        maps.add(self.finish)

    def finish(self) -> None:
        """Take all of the input, but of one that may be endless and was read.

        Raises:
            BaseException: what the input raises.
        """
        if self._read and not self._sized:
            self._let_go()  # without waiting for an input that another thread waits for
            return
        with self._filling:
            if not self._finishing:
                self._finishing = True
                try:
                    self._take_all()
                finally:
                    self._let_go()

    def values(self, end: float | None) -> Iterator[Any]:
        """The values in the order of the items; who drops them unread wants the calls.

        Args:
            end: when to give up (time.monotonic), or None.

        Raises:
            TimeoutError: a value is not there in time.
            BaseException: what a call raised.
        """
        values = self._values(end)
        weakref.finalize(values, self._dropped).atexit = False
        return values

    def _dropped(self) -> None:
        """Nobody holds the values any more: of the garbage collector, so at once.

        To take the rest of the input may take long, and waits for whoever takes it now.
        """
        if self._read or self._owner is None:
            self._let_go()
        else:
            finalizing.later(self._finish_alone)

    def _finish_alone(self) -> None:
        with contextlib.suppress(RuntimeError):  # the pool was shut down meanwhile
            self.finish()

    def _let_go(self) -> None:
        self._maps.discard(self.finish)
        self._owner = None

    def _take_all(self) -> None:
        raise NotImplementedError

    def _values(self, end: float | None) -> Iterator[Any]:
        raise NotImplementedError
