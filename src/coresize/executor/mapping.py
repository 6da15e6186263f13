"""Maps: calls of one function over items, in order, never far ahead of the reader.

A map takes items from its input and makes *chunks* of calls of them. A chunk is *held*
until there is room for its results; then it is *started*, which submits it to the
executor. What differs between executors is in `Source` and `MapCalls`.

**Bounds.** Three bounds keep a map from filling memory, whatever its input and results.
At most 4096 items are taken ahead of the reader, and none while the arguments that are
ahead take more than 32 MiB. No chunk is started while unread results would take more
than 32 MiB: those that have arrived, and those that running calls will bring, estimated
by the size of earlier results. The bounds of bytes do not apply to as many chunks as
keep all workers busy (`Source.ahead`), nor to a map with ``buffersize=``.

**Who touches what.** The thread that makes, reads or finishes the map takes items. It
does so under `_filling`, since the input is the user's code and may wait. That thread
starts held chunks, and so does each thread in which results arrive, such as that of a
dispatcher. So counts and queues change under `_changed`, and no other code is called
under that lock. `_starting` names the threads that are starting chunks.

**Why a reader never waits for a held chunk.** When all chunks before it are read, no
started chunk is ahead, so it is started before the reader waits. Nor does a map need
its pool to live on: a dropped pool of processes starts all held chunks at once. The
threads of a dropped pool are gone: the thread that would start a call makes it.

**How a map ends.** After a shutdown of the pool, or if the values are dropped before
the first is read, the map takes the whole input and starts all calls, as in the
standard library. If the reader stops later, calls that have not begun are dropped, and
the input is left. A shutdown after the first read takes only an input with a length;
with ``cancel_futures=`` it cancels held chunks, and a reader gets a CancelledError.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Sized
from concurrent.futures import CancelledError, Executor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from coresize.arguments import check_count, check_sync
from coresize.executor.jobs import Failed
from coresize.processes import exit_hooks
from coresize.processes.ownership import Owner
from coresize.units import expect


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

    #: The arguments of one call.
    Args = tuple[Any, ...]

#: The most items that are taken ahead of the reader without ``buffersize=``.
MOST_ITEMS = 4096

#: The most bytes of arguments, and of results, that are ahead of the reader.
MOST_BYTES = 32 * 1024**2

#: What to do where a child reads a map of its parent.
_ADVICE = "read it before the fork, or make another pool in the child"

#: More than any input has.
_ALL = 1 << 62


class MapCalls(Protocol):
    """The calls of a chunk, as an executor makes them.

    Attributes:
        results: the unread results in order: a value, or an error as `Failed`.
        answered: the number of calls that have ended.
        result_bytes: bytes of their values.
        wanted: a reader may yet read the results.
    """

    results: deque[Any]
    answered: int
    result_bytes: int
    wanted: bool

    def start(self) -> None:
        """Give the calls to the executor.

        Raises:
            Exception: the executor takes no calls.
        """

    def drop(self) -> None:
        """Cancel the calls that have not begun, since no reader waits for them."""

    def refuse(self, error: Exception) -> None:
        """End all calls with an error, since the executor did not take them."""


class Source(Protocol):
    """How the calls of a map are made: what differs between executors.

    Attributes:
        ahead: the number of chunks that keep all workers busy.
        most_running: the most calls that may be under way; None for any number.
        chunksize: calls in a chunk, as the caller said; None if the number is learned.
        lazy: each call is made by the reader, when it asks for the value.
    """

    lazy: bool
    chunksize: int | None
    ahead: int
    most_running: int | None

    def size(self, each: float) -> int:
        """The calls of the next chunk, if a result is expected to have these bytes."""

    def make(
        self, items: list[Args], notify: Callable[[], None]
    ) -> tuple[MapCalls, int, int]:
        """A chunk of the first items: calls, their number, bytes of their arguments."""


class _Chunk:
    """A chunk, and the part of its progress that the map has counted.

    Attributes:
        calls: the calls.
        count: the number of calls.
        size: bytes of their arguments; 0 once all calls are answered.
        answered: the number of calls that have ended, as counted.
        result_bytes: bytes of their values, as counted.
    """

    __slots__ = ("answered", "calls", "count", "result_bytes", "size")

    calls: MapCalls

    def __init__(self) -> None:
        self.count = self.size = self.answered = self.result_bytes = 0


#: The maps that still have calls to start.
_unfinished: weakref.WeakSet[Map] = weakref.WeakSet()


class Map:
    """The calls of one map.

    Args:
        owner: the executor, which ends its workers when no reference to it is left; so
            the map keeps one until all of the input is taken.
        maps: the maps of one pool that still have calls to start; this map is added.
        items: the arguments of each call.
        source: how calls are made.
        sized: the input has a length, so it is not endless.
        buffersize: items, or chunks if their size is given, that may be taken ahead of
            the reader; None for a default.
    """

    def __init__(
        self,
        owner: object,
        maps: set[exit_hooks.Unfinished],
        items: Iterator[Args],
        source: Source,
        *,
        sized: bool,
        buffersize: int | None,
    ) -> None:
        self._owner = owner
        self._maps = maps
        self._items = items
        self._source: Source | None = source
        self._sized = sized
        self._lazy = source.lazy
        self._most = (buffersize or 0) * (source.chunksize or 1) or MOST_ITEMS
        if self._lazy:
            self._most = 1
        # With buffersize=, the bounds of bytes do not apply.
        self._bounded = buffersize is not None and not self._lazy
        self._most_bytes = _ALL if self._bounded else MOST_BYTES
        # Garbage collection may finish a map in the very thread that is filling it.
        self._filling = threading.RLock()
        self._changed = threading.Condition()
        self._unread: deque[_Chunk] = deque()
        self._held: deque[_Chunk] = deque()
        #: Items that were taken and are not enough for a chunk yet.
        self._gathered: list[Args] = []
        self._taken = self._bytes = 0
        #: The calls that are under way, and the started chunks that are not all read.
        self._running = self._ahead = 0
        self._result_bytes = 0
        self._each: float | None = None
        self._begun = self._lazy
        self._read = self._finishing = False
        self._exhausted = self._reading = self._cancelled = False
        self._wanted = True
        #: The threads that are starting chunks.
        self._starting: set[int] = set()
        self._process, self._thread = Owner(), threading.get_ident()
        maps.add(self)
        _unfinished.add(self)
        exit_hooks.register(_finish_all, exit_hooks.MAPS)

    def begin(self) -> None:
        """Take items and start chunks, as far as the bounds allow.

        Raises:
            RuntimeError: the executor is shut down, or broken.
            BaseException: an error that the input raises.
        """
        if self._lazy:
            return
        try:
            self._fill()
        except BaseException:
            self._leave()
            raise
        self._wait_for_others()
        self._begun = True

    # --- From the input -----------------------------------------------------------

    def _fill(self) -> None:
        with self._filling:
            while (source := self._source) and self._may_take(source):
                size, room = source.size(self._each or 0.0), self._most - self._taken
                if size > room and not self._bounded:
                    break  # else each chunk would be as small as the one just read
                wanted = min(max(0, size - len(self._gathered)), room)
                items = list(islice(self._items, wanted))
                self._taken += len(items)
                self._gathered += items
                if len(items) < wanted:
                    self._exhausted = True
                    self._owner = None
                if self._exhausted or len(self._gathered) >= size:
                    self._hold(source)
                    if self._lazy:
                        self._release()
        self._release()

    def _may_take(self, source: Source) -> bool:
        if self._exhausted or self._taken >= self._most:
            return False
        return self._bytes <= self._most_bytes or len(self._unread) < source.ahead

    def _hold(self, source: Source) -> None:
        """Make chunks of the gathered items, and hold them until there is room."""
        items, self._gathered = self._gathered, []
        while items:
            chunk = _Chunk()
            chunk.calls, chunk.count, chunk.size = source.make(
                items, partial(self._note, chunk)
            )
            del items[: chunk.count]
            with self._changed:
                chunk.calls.wanted = self._wanted
                self._bytes += chunk.size
                self._unread.append(chunk)
                self._held.append(chunk)

    # --- To the executor ----------------------------------------------------------

    def _release(self) -> None:
        """Start held chunks, as far as there is room for their results."""
        here = threading.get_ident()
        with self._changed:
            if here in self._starting:  # results arrive while their chunk is started
                return
            self._starting.add(here)
        try:
            while (chunk := self._next()) is not None:
                self._start(chunk)
        finally:
            with self._changed:
                self._starting.discard(here)
                self._changed.notify_all()
                # While another thread starts chunks, a shutdown has to wait for it.
                over = self._exhausted and not self._held and not self._starting
        if over:
            self._let_go()

    def _next(self) -> _Chunk | None:
        """Remove and return the held chunk that may start now, or None."""
        with self._changed:
            if not self._held or not self._has_room(self._held[0].count):
                return None
            chunk = self._held.popleft()
            self._running += chunk.count
            self._ahead += 1
            return chunk

    def _has_room(self, count: int) -> bool:
        source = self._source
        if self._finishing or source is None:
            return True
        if source.most_running is not None and self._running >= source.most_running:
            return False
        if self._bounded or self._ahead < source.ahead:
            return True
        if self._each is None:
            return False
        expected = self._result_bytes + (self._running + count) * self._each
        return expected <= self._most_bytes

    def _start(self, chunk: _Chunk) -> None:
        try:
            chunk.calls.start()
        except Exception as error:
            if not self._begun:
                raise
            chunk.calls.refuse(error)

    def _note(self, chunk: _Chunk) -> None:
        """Count the results of a chunk that have arrived."""
        calls = chunk.calls
        with self._changed:
            answered = calls.answered - chunk.answered
            size = calls.result_bytes - chunk.result_bytes
            chunk.answered += answered
            chunk.result_bytes += size
            self._running -= answered
            self._result_bytes += size
            if answered:
                self._each = expect(self._each or 0.0, size / answered)
            if chunk.answered == chunk.count:  # its arguments are dropped
                self._bytes -= chunk.size
                chunk.size = 0
            if self._reading:
                self._changed.notify_all()
            held = bool(self._held)
        if held:
            self._release()

    # --- To the reader --------------------------------------------------------------

    def values(self, end: float | None) -> Iterator[Any]:
        """The values in the order of the items; dropped unread, they finish the map.

        Args:
            end: when to give up (time.monotonic), or None.

        Raises:
            InheritedError: this is a fork of the process that has made the map.
            TimeoutError: a value has not arrived in time.
            BaseException: an error that a call raised.
        """
        values = self._values(end)
        weakref.finalize(values, self._dropped).atexit = False
        return values

    def _values(self, end: float | None) -> Iterator[Any]:
        self._process.check("map", _ADVICE)
        self._read = True
        try:
            self._fill()
            while self._unread:
                chunk = self._unread[0]
                results = chunk.calls.results
                for place in range(chunk.count):
                    if self._bounded:
                        self._refill(chunk.count, place)
                    if not results:
                        self._wait(chunk.calls, end)
                    if type(results[0]) is Failed:
                        raise results.popleft().error
                    yield results.popleft()  # only the reader keeps a reference
                    self._process.check("map", _ADVICE)
                self._pass(chunk)
                self._fill()
            if self._cancelled:
                raise CancelledError
        finally:
            self._leave()

    def _refill(self, count: int, place: int) -> None:
        """Take more items before waiting for a value.

        As in CPython 3.14, one item is taken for each value, or one chunk for each
        chunk if their size is given.
        """
        source = self._source
        if source is None or source.chunksize is None:
            self._taken -= 1
        elif place == 0:
            self._taken -= count
        self._fill()

    def _wait(self, calls: MapCalls, end: float | None) -> None:
        with self._changed:
            self._reading = True
            try:
                while not calls.results:
                    left = None if end is None else end - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError
                    self._changed.wait(left)
            finally:
                self._reading = False

    def _pass(self, chunk: _Chunk) -> None:
        """Remove a chunk whose values are all read."""
        with self._changed:
            self._unread.popleft()
            self._ahead -= 1
            self._result_bytes -= chunk.result_bytes
            if not self._bounded:
                self._taken -= chunk.count

    def _leave(self) -> None:
        """Stop the map when reading ends: drop calls that have not begun."""
        if not self._process.is_here:
            return
        with self._changed:
            chunks = list(self._unread)
            self._unread.clear()
            self._held.clear()
            self._exhausted = True
        for chunk in chunks:
            chunk.calls.drop()
        self._let_go()

    # --- Its end --------------------------------------------------------------------

    def finish(self) -> None:
        """Start all calls; a partly read input that may be endless is left.

        A copy in a forked child starts none: its parent does.

        Raises:
            BaseException: an error that the input raises.
        """
        if not self._process.is_here:
            return
        if self._read and not self._sized:
            self._exhausted = True
            self.start_all()  # another thread may be waiting for the input
            return
        with self._filling:
            self._finishing = True
            self._most = self._most_bytes = _ALL
            try:
                self._fill()
            finally:
                self._wait_for_others()
                self._let_go()

    def cancel(self) -> None:
        """Start no more calls; a reader that goes on gets a CancelledError."""
        if not self._process.is_here:
            return
        with self._changed:
            self._cancelled = self._exhausted = True
            held = list(self._held)
            self._held.clear()
        for chunk in held:
            chunk.calls.refuse(RuntimeError("the executor was shut down"))
        self._let_go()

    def start_all(self) -> None:
        """Start all held chunks, whatever their results need; this takes no input."""
        if not self._process.is_here:
            return
        self._finishing = True
        self._release()
        self._wait_for_others()

    def _wait_for_others(self) -> None:
        """Return when no other thread is starting chunks."""
        here = {threading.get_ident()}
        with self._changed:
            while self._starting - here:
                self._changed.wait()

    def _dropped(self) -> None:
        """Finish the map in another thread, since its values can be read no more.

        A finalizer never waits. But the calls of a lazy map are made here, if the
        thread that made the map drops it.
        """
        if self._source is None or not self._process.is_here:
            return
        here = self._thread == threading.get_ident()
        if self._lazy and here and not exit_hooks.is_collecting():
            self._finish_unread()
        else:
            exit_hooks.later(self._finish_unread)

    def _finish_unread(self) -> None:
        with self._changed:
            self._wanted = False
            for chunk in self._unread:
                chunk.calls.wanted = False
                chunk.calls.results.clear()
        with contextlib.suppress(Exception):  # no reader is left for an input's error
            self.finish()

    def _let_go(self) -> None:
        self._maps.discard(self)
        _unfinished.discard(self)
        self._owner = self._source = None


class MapExecutor(Executor):
    """An executor whose maps use bounded memory, whatever their input and results."""

    @property
    def _unfinished(self) -> set[exit_hooks.Unfinished]:
        """The maps that still have calls to start."""
        raise NotImplementedError

    def _calls(
        self, fn: Callable[..., Any], *, chunksize: int | None, buffersize: int | None
    ) -> Source:
        """How the calls of a map are made.

        Raises:
            RuntimeError: the executor is shut down, or broken.
        """
        raise NotImplementedError

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The values of a function over items, in the order of the items.

        The input may be endless and the reader slow: the map takes no more items, and
        makes no more results, than keep the workers busy or take 32 MiB. A pool of
        processes sends calls in chunks whose size it learns; each call has its own
        answer. If calls are serial, each is made when its value is asked for.

        Args:
            fn: the function.
            iterables: the arguments, taken side by side.
            timeout: seconds from now for which the reader waits for values.
            chunksize: calls in a chunk, for a pool of processes; None learns the
                number. If the pool has ``memory=`` or ``timeout=``, it is 1.
            buffersize: items that may be taken ahead of the reader, or chunks of items
                if ``chunksize`` is given. As in CPython 3.14, one more is taken as each
                value is asked for. None takes up to 4096 items, or 32 MiB.

        Raises:
            BrokenExecutor: no worker can start.
            ConfigError: chunksize or buffersize is no whole number above 0.
            RuntimeError: the executor is shut down.
            TimeoutError: a value has not arrived in time.
            TypeError: the function is ``async def``.
            BaseException: an error that the input or a call raises.
        """
        check_sync(fn)
        for name, number in (("chunksize", chunksize), ("buffersize", buffersize)):
            if number is not None:
                check_count(name, number, 1, f": {name} must be >= 1, or None")
        end = None if timeout is None else time.monotonic() + timeout
        calls = Map(
            self,
            self._unfinished,
            zip(*iterables, strict=False),
            self._calls(fn, chunksize=chunksize, buffersize=buffersize),
            sized=all(isinstance(items, Sized) for items in iterables),
            buffersize=buffersize,
        )
        calls.begin()
        return calls.values(end)

    def _end_maps(self, *, cancel: bool) -> None:
        """Start all calls of all maps, or cancel those that are not started.

        This must come before the shutdown of the executor: each call that it cancels
        would let a map start another one, while the executor holds its lock.
        """
        for unfinished in list(self._unfinished):
            if cancel:
                unfinished.cancel()
            else:
                unfinished.finish()


def _finish_all() -> None:
    """Start all remaining calls of maps at the end of the program."""
    if exit_hooks.is_interrupted():
        return
    for unfinished in list(_unfinished):
        unfinished.finish()


# This hook runs before those that end the standard library's pools, which have been
# registered by now: the last hook runs first.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]  # noqa: SLF001
