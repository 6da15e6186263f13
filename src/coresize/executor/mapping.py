"""A map: calls of one function over items, in order, never far ahead of the reader.

Three bounds keep a map from filling memory, whatever its input and its results. Of the
input at most 4096 items are taken ahead of the reader, and of their arguments, pickled,
32 MiB. Results that nobody has read count as well: what has arrived, and what those
calls will bring that are under way, by the size that results had so far. So what was
taken from the input may yet be *held*: it is started as results arrive and are read.
Below the calls that keep all workers busy no bound stops anything.

Who touches what: the input is read by the thread that reads the map (and by the one
that finishes it), under `_filling`, since it is the user's code and may wait. Held
chunks are started by that thread and by those in which results arrive; so what they
count is changed under `_changed`, and under that lock nothing is called.

A reader never waits for a chunk that is held: when all before it is read, nothing is
ahead, and it is started before the reader waits. Nobody is held back by a pool that is
no more: what a pool of processes has not started when it is dropped, it starts then;
threads are gone with their pool, and whoever would start a call makes it.

Who shuts a pool down, or drops what a map returned without reading any of it, wants
all of its calls, as with the standard library, which takes the whole input at once.
Who stops in the middle of an input that may be endless has seen enough.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sized
from concurrent.futures import CancelledError, Executor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from coresize.arguments import check_count
from coresize.executor.jobs import Failed
from coresize.processes import exit_hooks
from coresize.units import expect


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

    #: The arguments of one call.
    Args = tuple[Any, ...]

#: What may be taken from the input ahead of the reader, where nobody said.
MOST_ITEMS = 4096

#: Bytes of arguments, and of results, that may be ahead of the reader.
MOST_BYTES = 32 * 1024**2

#: More than any input has.
_ALL = 1 << 62


class Calls(Protocol):
    """Calls of a map that are made together.

    Attributes:
        results: what has ended and was not read: a value, or an error as `Failed`.
        answered: how many have ended.
        result_bytes: bytes of their values.
        wanted: somebody may yet read the results.
    """

    results: deque[Any]
    answered: int
    result_bytes: int
    wanted: bool

    def start(self) -> None:
        """Give them to the executor.

        Raises:
            Exception: it takes none.
        """

    def check(self) -> None:
        """See that somebody may yet answer.

        Raises:
            RuntimeError: this is a fork of the process whose workers make them.
        """

    def drop(self) -> None:
        """Nobody waits for those that have not begun."""

    def refuse(self, error: Exception) -> None:
        """They were not taken: all of them have ended with an error."""


class Source(Protocol):
    """How the calls of a map are made: what differs between executors.

    Attributes:
        ahead: chunks that keep all workers busy.
        most_running: calls that may be under way at most; None for any number.
        chunksize: calls in a chunk, as the caller said; None where that is learned.
        lazy: each call is made when its value is asked for, by who asks.
    """

    lazy: bool
    chunksize: int | None
    ahead: int
    most_running: int | None

    def size(self, each: float) -> int:
        """Calls of the next chunk, where a result is expected to have so many bytes."""

    def make(
        self, items: list[Args], notify: Callable[[], None]
    ) -> tuple[Calls, int, int]:
        """A chunk of the first items: calls, how many, bytes of their arguments."""


class _Chunk:
    """Calls that are made together, and what the map has taken note of.

    Attributes:
        calls: the calls.
        count: how many there are.
        size: bytes of their arguments, as long as these are held.
        answered: how many have ended.
        result_bytes: bytes of their values.
    """

    __slots__ = ("answered", "calls", "count", "result_bytes", "size")

    calls: Calls

    def __init__(self) -> None:
        self.count = self.size = self.answered = self.result_bytes = 0


#: Maps of which calls are still to be started.
_unfinished: weakref.WeakSet[Map] = weakref.WeakSet()


class Map:
    """The calls of one map.

    Args:
        owner: ends its workers when nobody holds it any more; so it is held until all
            of the input is taken.
        maps: the maps of one pool of which calls are still to be started; this becomes
            one of them.
        items: the arguments of each call.
        source: how calls are made.
        sized: the input has a length, so it is not endless.
        buffersize: items, or chunks where their size is given, that may be taken ahead
            of the reader; None for a default.
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
        # Who says how many does not want fewer.
        self._bounded = buffersize is not None and not self._lazy
        self._most_bytes = _ALL if self._bounded else MOST_BYTES
        # Whoever collects garbage may finish a map, the thread that fills it as well.
        self._filling = threading.RLock()
        self._changed = threading.Condition()
        self._unread: deque[_Chunk] = deque()
        self._held: deque[_Chunk] = deque()
        #: What was taken and is not yet enough for a chunk.
        self._gathered: list[Args] = []
        self._taken = self._bytes = 0
        #: Calls that are under way, and chunks that were started and are not all read.
        self._running = self._ahead = 0
        self._result_bytes = 0
        self._each: float | None = None
        self._begun = self._lazy
        self._read = self._finishing = False
        self._exhausted = self._reading = self._cancelled = False
        self._wanted = True
        #: The threads that start calls.
        self._starting: set[int] = set()
        self._pid, self._thread = os.getpid(), threading.get_ident()
        maps.add(self)
        _unfinished.add(self)
        exit_hooks.register(_finish_all, exit_hooks.MAPS)

    def begin(self) -> None:
        """Take from the input, and start, what may be.

        Raises:
            RuntimeError: the executor is shut down, or broken.
            BaseException: what the input raises.
        """
        if self._lazy:
            return
        try:
            self._fill()
        except BaseException:
            self._leave()
            raise
        self._begun = True

    # --- From the input -----------------------------------------------------------

    def _fill(self) -> None:
        with self._filling:
            while (source := self._source) and self._may_take(source):
                size, room = source.size(self._each or 0.0), self._most - self._taken
                if size > room and not self._bounded:
                    break  # chunks would never grow if each took the room of one
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
        """Make chunks of what was gathered, which are started when there is room."""
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
        """Start what is held, as far as there is room for its results."""
        here = threading.get_ident()
        with self._changed:
            if here in self._starting:  # its results arrive while it is started
                return
            self._starting.add(here)
        try:
            while (chunk := self._next()) is not None:
                self._start(chunk)
        finally:
            with self._changed:
                self._starting.discard(here)
                self._changed.notify_all()
                # While another thread starts calls, a shutdown has to wait for it.
                over = self._exhausted and not self._held and not self._starting
        if over:
            self._let_go()

    def _next(self) -> _Chunk | None:
        """The chunk that is to be started now, if there is one."""
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
        """Results have arrived."""
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
            if chunk.answered == chunk.count:  # its arguments are held no longer
                self._bytes -= chunk.size
                chunk.size = 0
            if self._reading:
                self._changed.notify_all()
            held = bool(self._held)
        if held:
            self._release()

    # --- To the reader --------------------------------------------------------------

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

    def _values(self, end: float | None) -> Iterator[Any]:
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
                    yield results.popleft()  # nobody but the reader holds it
                self._pass(chunk)
                self._fill()
            if self._cancelled:
                raise CancelledError
        finally:
            self._leave()

    def _refill(self, count: int, place: int) -> None:
        """Take the next of the input before a value is waited for.

        As CPython 3.14 does it: one item for each value, or one chunk for each where
        their size is given.
        """
        source = self._source
        if source is None or source.chunksize is None:
            self._taken -= 1
        elif place == 0:
            self._taken -= count
        self._fill()

    def _wait(self, calls: Calls, end: float | None) -> None:
        calls.check()
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
        """All of a chunk is read."""
        with self._changed:
            self._unread.popleft()
            self._ahead -= 1
            self._result_bytes -= chunk.result_bytes
            if not self._bounded:
                self._taken -= chunk.count

    def _leave(self) -> None:
        """Nobody reads on, nor waits for what has not begun."""
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
        """Start all calls; an input that may be endless, and was read, is left.

        Raises:
            BaseException: what the input raises.
        """
        if self._read and not self._sized:
            self._exhausted = True
            self.start_all()  # the input may be waited for elsewhere
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
        """Start no more calls; whoever reads on gets a CancelledError."""
        with self._changed:
            self._cancelled = self._exhausted = True
            held = list(self._held)
            self._held.clear()
        for chunk in held:
            chunk.calls.refuse(RuntimeError("the executor was shut down"))
        self._let_go()

    def finish_at_exit(self) -> None:
        """Start all calls, unless this is a copy in a forked child."""
        if self._pid == os.getpid():
            self.finish()

    def start_all(self) -> None:
        """Start what was taken, whatever its results may be; this takes no input."""
        self._finishing = True
        self._release()
        self._wait_for_others()

    def _wait_for_others(self) -> None:
        """Return when no other thread is about to start calls."""
        here = {threading.get_ident()}
        with self._changed:
            while self._starting - here:
                self._changed.wait()

    def _dropped(self) -> None:
        """Nobody can read the values any more; a finalizer, so this waits for nothing.

        But a map that is made in the caller is made here by who drops it.
        """
        if self._source is None or self._pid != os.getpid():
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
        with contextlib.suppress(Exception):  # of the input: nobody is there to hear it
            self.finish()

    def _let_go(self) -> None:
        self._maps.discard(self)
        _unfinished.discard(self)
        self._owner = self._source = None


class MapExecutor(Executor):
    """An executor whose maps are bounded, whatever their input and their results."""

    @property
    def _unfinished(self) -> set[exit_hooks.Unfinished]:
        """The maps of which calls are still to be started."""
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
        """The values of a function over items, in their order, as they are asked for.

        Of the input no more is taken, and no more results are made, than keeps workers
        busy or takes 32 MiB, so the input may be endless and the reader slow. A pool of
        processes sends calls in chunks whose size it learns; each call is answered for
        itself. Where all is serial, each call is made when its value is asked for.

        Args:
            fn: the function.
            iterables: the arguments, taken side by side.
            timeout: seconds from now until which values are waited for.
            chunksize: calls in a chunk, of a pool of processes; None learns the number.
                With ``memory=`` or ``timeout=`` of the pool it is 1.
            buffersize: items that may be taken ahead of the reader, or chunks of them
                where ``chunksize`` is given, as in CPython 3.14: one more is taken as
                each value is asked for. None takes up to 4096 items, or 32 MiB.

        Raises:
            BrokenExecutor: no worker can start.
            ConfigError: chunksize or buffersize is no whole number above 0.
            RuntimeError: the executor is shut down.
            TimeoutError: a value is not there in time.
            BaseException: what the input raises.
        """
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
        """Start all calls of all maps, or none any more.

        This comes before the executor is shut down: what it cancels would let maps
        start others, while it holds its own lock.
        """
        for unfinished in list(self._unfinished):
            if cancel:
                unfinished.cancel()
            else:
                unfinished.finish()


def _finish_all() -> None:
    """At the end of the program, all of what is to be mapped is started."""
    if exit_hooks.is_interrupted():
        return
    for unfinished in list(_unfinished):
        unfinished.finish_at_exit()


# Before the pools of the standard library end, which are known by now: what was
# registered last goes first.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]  # noqa: SLF001
