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
        buffersize: items that may be taken ahead of the reader; None for a default.
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
        self._most = buffersize or _MOST_ITEMS
        self._bounded = buffersize is not None
        self._ahead = ahead
        self._size = 1
        self._each = 1.0
        self._batches: deque[tuple[Calls, int]] = deque()
        self._taken = self._bytes = 0
        self._exhausted = False
        self._condition = threading.Condition()
        self._reading = False

    def fill(self) -> None:
        """Take from the input what may be taken."""
        with self._filling:
            self._fill(_MOST_BYTES)

    def _take_all(self) -> None:
        self._most = _ALL
        self._fill(_ALL)

    def _fill(self, most_bytes: int) -> None:
        while not self._exhausted and self._taken < self._most:
            if self._bytes > most_bytes and self._taken >= self._ahead:
                return
            size = self._next_size()
            if self._chunksize is None and size > self._most - self._taken:
                return  # batches would never grow if each took the room of one
            items = list(islice(self._items, size))
            if not items:
                self._exhausted = True
                self._let_go()
                return
            batch = Calls(self._function, items, None, self._ring)
            self._taken += batch.count
            self._bytes += len(batch.payload)
            self._each = len(batch.payload) / batch.count
            self._batches.append((batch, len(batch.payload)))
            self._submit(batch, items)

    def _submit(self, batch: Calls, items: list[tuple[Any, ...]]) -> None:
        """Hand on calls; one whose need cannot be told has failed."""
        try:
            batch.need = self._need(items[0]) if len(items) == 1 else None
        except Exception as error:  # noqa: BLE001 - a callable of the user's
            batch.abandon(error)
        else:
            self._dispatcher.submit(batch)

    def _next_size(self) -> int:
        """Calls of the next batch."""
        room = self._most - self._taken
        if self._chunksize is not None:
            return min(self._chunksize, room) if self._bounded else self._chunksize
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
                for _ in range(batch.count):
                    if not results:
                        self._wait(batch, end)
                    if type(results[0]) is Failed:
                        raise results.popleft().error
                    yield results.popleft()  # nobody but the reader holds it
                self._batches.popleft()
                self._taken -= batch.count
                self._bytes -= size
                self.fill()
        finally:
            for batch, _ in self._batches:
                batch.cancelled = True
            self._batches.clear()
            self._exhausted = True  # nobody wants more
            self._let_go()

    def _wait(self, batch: Calls, end: float | None) -> None:
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
