"""A map: calls of one function over items, in batches, never far ahead of the reader.

Batches are as large as takes about the same time, learned from those that have ended;
each call in one is answered for itself. So many items and bytes are taken from the
input ahead of what is read, and no more: an endless input is no danger.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import islice

from coresize.executor.jobs import Calls, Failed, key_of
from coresize.executor.unfinished import Unfinished


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from coresize.executor.dispatcher import Dispatcher

#: Seconds that a batch should take: long beside the cost of sending it, short beside
#: the time that a person waits.
_TARGET = 0.02
_LARGEST = 512

#: Bytes of a batch of several calls: to send more at once saves nothing.
_BATCH_BYTES = 1024**2

#: What may be taken ahead is so many batches at least.
_PARTS = 8

#: What may be taken from the input ahead of the reader, where nobody said.
_MOST_ITEMS = 4096
_MOST_BYTES = 32 * 1024**2

#: More than any input has.
_ALL = 1 << 62


class Stream(Unfinished):
    """The calls of one map.

    Args:
        dispatcher: who runs them.
        function: what is called.
        items: the arguments of each call.
        need: bytes that a call needs, by its arguments.
        owner: ends the dispatcher when nobody holds it any more.
        sized: the input has a length, so it is not endless.
        chunksize: calls in a batch; None learns it.
        buffersize: items, or chunks where their size is given, that may be taken ahead
            of the reader; None for a default.
        ahead: items that are needed to keep all workers busy.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        function: Callable[..., Any],
        items: Iterator[tuple[Any, ...]],
        need: Callable[[tuple[Any, ...]], int | None],
        owner: object,
        *,
        sized: bool,
        chunksize: int | None,
        buffersize: int | None,
        ahead: int,
    ) -> None:
        super().__init__(owner, dispatcher.unfinished, sized=sized)
        self._dispatcher = dispatcher
        self._function = function
        self._key = key_of(function)
        self._items = items
        self._need = need
        self._chunksize = chunksize
        self._most = (buffersize or 0) * (chunksize or 1) or _MOST_ITEMS
        self._bounded = buffersize is not None
        self._ahead = ahead
        self._size = self._goal = 1
        self._each = 1.0
        self._batches: deque[tuple[Calls, int]] = deque()
        #: What was taken and is not yet enough for a batch.
        self._gathered: list[tuple[Any, ...]] = []
        self._taken = self._bytes = 0
        self._exhausted = False
        self._condition = threading.Condition()
        self._reading = False

    def fill(self) -> None:
        """Take from the input what may be taken."""
        with self._filling:
            self._fill(_ALL if self._bounded else _MOST_BYTES)

    def _take_all(self) -> None:
        if self._dispatcher.is_inherited:
            return
        self._most = _ALL
        self._fill(_ALL)

    def _fill(self, most_bytes: int) -> None:
        while not self._exhausted and self._taken < self._most:
            if self._bytes > most_bytes and self._taken >= self._ahead:
                return
            size = self._goal = self._next_size()
            room = self._most - self._taken
            if size > room and not self._bounded:
                return  # batches would never grow if each took the room of one
            wanted = min(max(0, size - len(self._gathered)), room)
            items = list(islice(self._items, wanted))
            self._taken += len(items)
            self._gathered += items
            self._exhausted = len(items) < wanted
            if self._gathered and (self._exhausted or len(self._gathered) >= size):
                self._send()
            if self._exhausted:
                self._goal = 0
                self._let_go()

    def _send(self) -> None:
        """Let what was taken be done, as one batch."""
        items, self._gathered = self._gathered, []
        need = self._need(items[0]) if len(items) == 1 else None
        batch = Calls(self._function, items, need, self._ring)
        self._bytes += len(batch.payload)
        self._each = len(batch.payload) / batch.count
        self._batches.append((batch, len(batch.payload)))
        self._dispatcher.submit(batch)

    def _next_size(self) -> int:
        """Calls of the next batch."""
        if self._chunksize is not None:
            return self._chunksize
        pace = self._dispatcher.pace.of(self._key)
        if pace is not None:
            most = min(_LARGEST, self._most // _PARTS, 2 * self._size)
            self._size = max(1, min(int(_TARGET / pace), most))
        return min(self._size, max(1, int(_BATCH_BYTES / self._each)))

    def _values(self, end: float | None) -> Iterator[Any]:
        self._read = True
        try:
            self.fill()
            while self._batches:
                batch, size = self._batches[0]
                results = batch.results
                for place in range(batch.count):
                    self._refill(batch, place)
                    if not results:
                        self._wait(batch, end)
                    if type(results[0]) is Failed:
                        raise results.popleft().error
                    yield results.popleft()  # nobody but the reader holds it
                self._batches.popleft()
                self._bytes -= size
                if not self._bounded:
                    self._taken -= batch.count
                    self.fill()
        finally:
            for batch, _ in self._batches:
                batch.cancelled = True
            self._batches.clear()
            self._exhausted = True  # nobody wants more
            self._let_go()

    def _refill(self, batch: Calls, place: int) -> None:
        """Take the next of the input before one value is waited for, if bounded.

        As CPython 3.14 does it: one item for each value, or one chunk for each where
        their size was given. Batches whose size is learned are sent when full.
        """
        if not self._bounded or (self._chunksize is not None and place):
            return
        with self._filling:
            if self._chunksize is None and len(self._gathered) + 1 < self._goal:
                before = len(self._gathered)
                self._gathered += islice(self._items, 1)
                if len(self._gathered) > before:
                    return
            self._taken -= 1 if self._chunksize is None else batch.count
            self.fill()

    def _wait(self, batch: Calls, end: float | None) -> None:
        self._dispatcher.refuse_inherited()
        with self._condition:
            self._reading = True
            while not batch.results:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._condition.wait(left)
            self._reading = False

    def _ring(self) -> None:
        """Wake the reader, if it waits."""
        if self._reading:
            with self._condition:
                self._condition.notify()
