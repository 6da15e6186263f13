"""Pickles whose large buffers travel apart, in memory that processes share.

pickle writes a large buffer of an array, of bytes or of a bytearray as a piece of its
own (protocol 5, PEP 574, and the frames of protocol 4). Here such pieces are taken out
of the pickle (`Apart`) and copied into a segment (`coresize.processes.segments`). The
rest of the pickle, with the places of the pieces in segments, is `Packed`. Its reader
gets arrays that lie in the segment itself; bytes and bytearrays are copied out of it,
since they must own their memory. An object that cannot be read only, such as a tensor,
gets memory that the reader may write to, whatever the other arrays have
(`for_writing`).

**One copy.** A buffer that has a copy in a living segment, and still holds the same
bytes, is not copied again (`coresize.processes.copies`). So the caller may change an
array between two calls, and each call gets what the array held at its submission.
Comparing is ten times faster than copying.

**Lifetime.** A segment lives as long as a `Packed` refers to it, and its memory as long
as a reader has it mapped. The index of copies refers to it weakly.
"""

from __future__ import annotations

import os
import pickle
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from coresize.processes import copies, segments
from coresize.processes.pickle_stream import PickleStream


if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any

    from coresize.processes.copies import Bound, Piece, Range
    from coresize.processes.segments import Segment

    #: The place of a large buffer in a pickle, or a negative number; its bytes.
    Row = tuple[int, memoryview]
    #: The number of the segment of a large buffer, its offset, its size and its place.
    Place = tuple[int, int, int, int]


#: The threshold in bytes: pickle itself writes smaller buffers among the rest.
LEAST = 64 * 1024

#: In place of the place of a buffer in the pickle: pickle asks for it by itself; it is
#: the rest of the pickle (see `Apart.whole`); pickle asks for it, and the reader may
#: write to it.
_IS_ASKED, _IS_CONTENT, _IS_WRITTEN = -1, -2, -3

#: The opcodes that begin a pickle and a frame, and the bytes that may follow a frame
#: before a large buffer.
_PROTO, _FRAME, _AFTER = b"\x80", b"\x95", 64

#: Counts of segments and of pieces; a segment: number, bytes; a piece: the place of its
#: segment in the table, its offset and size, and its place in the pickle.
_HEAD = struct.Struct("<?II")
_SEGMENT = struct.Struct("<QQ")
_PIECE = struct.Struct("<IQQq")


class Packed:
    """A pickle without its large buffers, and the places of these in segments.

    Its length is that of the pickle without them.

    Args:
        content: the pickle without the large buffers.
        pieces: the large buffers, in their order in the pickle.
        fresh: the bytes that were copied for this pickle.
        writable: the reader may write to the arrays; its changes are its own.
    """

    __slots__ = ("content", "fresh", "pieces", "segments", "writable")

    def __init__(
        self,
        content: bytes,
        pieces: tuple[Piece, ...],
        *,
        fresh: int = 0,
        writable: bool = False,
    ) -> None:
        self.content = content
        self.pieces = pieces
        self.fresh = fresh
        self.writable = writable
        self.segments = tuple(dict.fromkeys(piece.segment for piece in pieces))

    def __len__(self) -> int:
        return len(self.content)

    @property
    def mapped(self) -> int:
        """The bytes of memory that a reader maps: those of the segments."""
        return sum(each.size for each in self.segments if each.is_memory)

    @property
    def descriptors(self) -> list[int]:
        """The descriptors of the segments, in the order of the table."""
        return [segment.descriptor for segment in self.segments]

    def table(self) -> bytes:
        """The places of the pieces, for `attach` in another process."""
        places = {segment: place for place, segment in enumerate(self.segments)}
        rows = [_HEAD.pack(self.writable, len(places), len(self.pieces))]
        rows += [_SEGMENT.pack(each.number, each.size) for each in places]
        for piece in self.pieces:
            place = places[piece.segment]
            rows.append(_PIECE.pack(place, piece.offset, piece.size, piece.place))
        return b"".join(rows)

    def contents(self) -> bytes:
        """The table, and the bytes of all segments after it, for `read`.

        Raises:
            OSError: a segment cannot be mapped.
        """
        table = self.table()
        views = [segment.view() for segment in self.segments]
        return b"".join([table, bytes(-len(table) % segments.ALIGNMENT), *views])

    def load(self) -> Any:
        """Unpickle the object in this process.

        Raises:
            OSError: a segment cannot be mapped.
        """
        written = {each.segment for each in self.pieces if each.place == _IS_WRITTEN}
        own = {segment: segment.copy() for segment in written}
        rows = [
            (piece.place, own[piece.segment][piece.offset : piece.end])
            if piece.place == _IS_WRITTEN
            else (piece.place, piece.view())
            for piece in self.pieces
        ]
        return load(self.content, rows)

    def know(self) -> None:
        """Map the segments, so that pickles of `parts` refer to them without a copy.

        Raises:
            OSError: a segment cannot be mapped.
        """
        for segment in self.segments:
            copies.copies.know(segment)

    def parts(self) -> tuple[Any, ...]:
        """The arguments of `rebuild`, for a pickle whose large buffers are taken apart.

        The buffers look writable here, though nobody can write to them; so the arrays
        of a reader are writable where its mapping is.
        """
        rows = [(piece.place, piece.raw()) for piece in self.pieces]
        return self.content, *_parts(rows)


def size_of(payload: bytes | Packed, once: object = None) -> int:
    """The bytes of a pickle with its large buffers.

    Args:
        payload: the pickle.
        once: a part of the pickle, whose large buffers do not count if it is a `Once`.
    """
    if not isinstance(payload, Packed):
        return len(payload)
    known = once.segments if isinstance(once, Once) else ()
    apart = sum(each.size for each in payload.pieces if each.segment not in known)
    return len(payload) + apart


class _Writing(threading.local):
    """The pickle that this thread writes, if its large buffers are taken apart."""

    apart: Apart | None = None


_writing = _Writing()


def current() -> Apart | None:
    """What takes the buffers of the pickle that this thread writes, if anything does.

    Such a pickle may have parts of a `Packed`.
    """
    return _writing.apart


class Once:
    """An object that was packed once, for many calls; a worker gets the object itself.

    Args:
        value: the object.
        packed: the object, packed.

    Raises:
        OSError: its segments cannot be mapped.
    """

    __slots__ = ("_packed", "value")

    def __init__(self, value: object, packed: Packed) -> None:
        self.value = value
        self._packed = packed
        packed.know()

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that hold the large buffers."""
        return self._packed.segments

    def __reduce_ex__(self, _protocol: Any) -> tuple[Callable[..., Any], Any]:
        if current():
            return rebuild, self._packed.parts()
        return _same, (self.value,)


def _same(value: object) -> object:
    return value


def for_writing(view: memoryview) -> pickle.PickleBuffer:
    """A buffer for a pickle; its reader gets memory of its own to write to.

    What it writes is seen by nobody else, and takes memory page by page.
    """
    apart = current()
    if apart is not None:
        apart.let_write(view)
    return pickle.PickleBuffer(view)


def _parts(rows: Iterable[Row]) -> tuple[Any, ...]:
    """The arguments of `rebuild` after the first one."""
    rows = list(rows)
    buffers = (
        for_writing(view) if place == _IS_WRITTEN else pickle.PickleBuffer(view)
        for place, view in rows
    )
    return tuple(place for place, _ in rows), *buffers


def rebuild(content: Any, places: Sequence[int], *found: Any) -> Any:
    """Unpickle an object from `Packed.parts`."""
    return load(
        content, list(zip(places, [memoryview(each) for each in found], strict=True))
    )


class Apart:
    """Takes large buffers out of one pickle, while it is written.

    Args:
        least: the bytes from which on a buffer is large.

    Attributes:
        least: as above.
        scope: an object while which lives the caller changes no array, and by which it
            is known in the pickles of all its calls; None if arrays may change. Within
            a scope, an array that was copied is not compared with its copy.
    """

    def __init__(self, least: int = LEAST) -> None:
        self.least = least
        self.scope: object = None
        self._before: Apart | None = None
        self._found: list[tuple[memoryview, int]] = []
        #: The addresses of buffers to which the reader may write.
        self._written: set[int] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no buffer was taken."""
        return not self._found

    def __enter__(self) -> None:
        """Begin a pickle, and forget the buffers of an earlier attempt to write it."""
        self._found.clear()
        self._written.clear()
        self._before, _writing.apart = _writing.apart, self

    def __exit__(self, kind: object, *_error: object) -> None:
        """End the pickle, and forget its buffers if it has failed; see `_place`."""
        _writing.apart = self._before
        if kind is not None:
            self._found.clear()

    def keep_in_band(self, buffer: pickle.PickleBuffer) -> bool:
        """The buffer_callback= of a pickler: takes the buffer, if it is large."""
        view = buffer.raw()
        if view.nbytes < max(1, self.least):  # there is no empty mapping
            return True
        is_written = self._written and segments.address_of(view) in self._written
        self._found.append((view, _IS_WRITTEN if is_written else _IS_ASKED))
        return False

    def let_write(self, view: memoryview) -> None:
        """Note that the reader may write to a buffer that follows in the pickle."""
        self._written.add(segments.address_of(view))

    def take(self, piece: bytes | pickle.PickleBuffer, place: int) -> bool:
        """Take a piece of a pickle, if it is a large buffer; whether it was taken.

        Args:
            piece: the piece.
            place: the bytes of the pickle so far, without the buffers.
        """
        view = memoryview(piece)
        if view.nbytes < self.least or _is_frame(piece):
            return False
        self._found.append((view.cast("B") if view.ndim != 1 else view, place))
        return True

    def parts(self, content: bytes) -> tuple[Any, ...]:
        """The arguments of `rebuild`, for another pickle that takes the same buffers.

        Args:
            content: the pickle without the buffers that were taken.
        """
        return content, *_parts((place, view) for view, place in self._found)

    def packed(
        self,
        content: bytes,
        *,
        writable: bool = False,
        bound: Bound | None = None,
    ) -> bytes | Packed:
        """The pickle; the large buffers are copied now.

        Args:
            content: the pickle without the buffers that were taken.
            writable: see `Packed`.
            bound: see `Copies.place`.

        Raises:
            OSError: no segment can be made.
            Exception: of ``bound``.
        """
        if not self._found:
            return content
        return self._place(content, writable=writable, bound=bound)

    def whole(
        self, content: bytes, *, writable: bool = False, bound: Bound | None = None
    ) -> Packed:
        """The pickle for many readers: `Packed.parts` has no large piece.

        So the rest of the pickle is copied as well, if it is large.

        Args:
            content: the pickle without the buffers that were taken.
            writable: see `Packed`.
            bound: see `Copies.place`.

        Raises:
            OSError: no segment can be made.
            Exception: of ``bound``.
        """
        if len(content) >= self.least:
            self._found.append((memoryview(content), _IS_CONTENT))
            content = b""
        return self._place(content, writable=writable, bound=bound)

    @property
    def size(self) -> int:
        """The bytes of the buffers; what they have in common counts once."""
        return copies.size_of(view for view, _ in self._found)

    @property
    def ranges(self) -> list[Range]:
        """The addresses of the buffers."""
        return copies.ranges_of(view for view, _ in self._found)

    def _place(self, content: bytes, *, writable: bool, bound: Bound | None) -> Packed:
        views = [view for view, _ in self._found]
        places = [place for _, place in self._found]
        self._found.clear()
        try:
            pieces, fresh = copies.copies.place(views, bound, self.scope)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            # The buffers are exported by memoryviews. An error that has frames with
            # them, in a reference cycle, would crash the garbage collector, which
            # clears such a memoryview, exported or not (CPython gh-77894, to 3.12.6).
            views.clear()
            raise error.with_traceback(None) from None
        placed = tuple(
            piece._replace(place=place)
            for piece, place in zip(pieces, places, strict=True)
        )
        return Packed(content, placed, fresh=fresh, writable=writable)


def _is_frame(piece: object) -> bool:
    """Whether a piece is a frame that pickle has filled with small objects."""
    if type(piece) is not bytes:
        return False
    start = 2 if piece.startswith(_PROTO) else 0
    if piece[start : start + 1] != _FRAME:
        return False
    size = int.from_bytes(piece[start + 1 : start + 9], "little")
    return 0 <= len(piece) - (start + 9 + size) <= _AFTER


# -----------------------------------------------------------------------------
# Reading.


class BufferTableError(Exception):
    """The bytes are no table of large buffers, or do not fit to the segments."""


class _Table(NamedTuple):
    """A table, parsed.

    Attributes:
        writable: the reader may write to the arrays.
        sizes: the number and the size of each segment.
        pieces: the place of the segment, the offset, the size, and the place in the
            pickle of each large buffer.
        end: the length of the table.
    """

    writable: bool
    sizes: list[tuple[int, int]]
    pieces: list[Place]
    end: int

    @property
    def written(self) -> Collection[int]:
        """The segments that have a buffer to which the reader may write."""
        return range(len(self.sizes)) if self.writable else written(self.pieces)

    def rows(self, views: Sequence[memoryview]) -> list[Row]:
        """The large buffers, from the views of the segments."""
        return cut(self.pieces, views, writable=self.writable)


def written(pieces: Iterable[Place]) -> set[int]:
    """The numbers of the segments that have a buffer for an object that is written."""
    return {number for number, _, _, place in pieces if place == _IS_WRITTEN}


def cut(
    pieces: Iterable[Place], views: Sequence[memoryview], *, writable: bool = False
) -> list[Row]:
    """The large buffers, from the views of the segments.

    Args:
        pieces: where each buffer lies.
        views: of all segments; those of `written` ones are writable.
        writable: the reader may write to all buffers.
    """
    rows = []
    for number, start, size, place in pieces:
        view = views[number][start : start + size]
        is_written = writable or place == _IS_WRITTEN
        rows.append((place, view if is_written else view.toreadonly()))
    return rows


def _parse(table: bytes | bytearray) -> _Table:
    """Parse a table; a task may have written it to the socket of its worker.

    Raises:
        BufferTableError: it is no table, or a large buffer lies outside its segment.
    """
    try:
        writable, count, pieces = _HEAD.unpack_from(table)
        middle = _HEAD.size + count * _SEGMENT.size
        end = middle + pieces * _PIECE.size
        sizes = list(_SEGMENT.iter_unpack(table[_HEAD.size : middle]))
        found = list(_PIECE.iter_unpack(table[middle:end]))
    except struct.error as error:
        raise BufferTableError from error
    if len(table) < end or any(
        each >= count or start + size > sizes[each][1] for each, start, size, _ in found
    ):
        raise BufferTableError
    return _Table(writable, sizes, found, end)


def descriptors_of(table: bytes | bytearray) -> int:
    """The number of descriptors that belong to a table.

    Raises:
        BufferTableError: it is no table.
    """
    return len(_parse(table).sizes)


class Attached:
    """The segments that a process has mapped for the last call that has arrived.

    A mapping ends when no array uses it, and the next call uses other segments.

    Args:
        resident: see `segments.attach`.
    """

    def __init__(self, *, resident: bool = False) -> None:
        self._resident = resident
        self._kept: dict[int, memoryview] = {}

    def attach(self, table: bytes | bytearray, descriptors: Sequence[int]) -> list[Row]:
        """Map the segments of a table; the descriptors are closed.

        Args:
            table: see `Packed.table`.
            descriptors: the descriptors of its segments, in order.

        Returns:
            The large buffers with their places, for `load`.

        Raises:
            BufferTableError: the table does not fit to the segments.
            OSError: a segment cannot be mapped.
        """
        try:
            parsed = _parse(table)
            if len(parsed.sizes) != len(descriptors):
                raise BufferTableError
            kept, self._kept = self._kept, {}
            written, views = parsed.written, []
            for place, (number, size) in enumerate(parsed.sizes):
                mine = place in written  # a task must not see what another has written
                view = None if mine else kept.get(number)
                if view is None:
                    end, resident = descriptors[place], self._resident
                    view = _map(end, size, writable=mine, resident=resident)
                if not mine:
                    self._kept[number] = view
                views.append(view)
            return parsed.rows(views)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def drop(self) -> None:
        """End the mappings that no array uses."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


def _map(descriptor: int, size: int, *, writable: bool, resident: bool) -> memoryview:
    """The bytes of a segment of another process: mapped, or copied if that fails.

    Raises:
        BufferTableError: the segment is smaller than it should be.
        OSError: it can be neither mapped nor read.
    """
    if os.fstat(descriptor).st_size < size:
        raise BufferTableError
    try:
        return segments.attach(descriptor, size, writable=writable, resident=resident)
    except OSError:  # this process has too many mappings (vm.max_map_count)
        return segments.read(descriptor, size, writable=writable)


def read(contents: bytes | bytearray) -> list[Row]:
    """The large buffers in `Packed.contents`, with their places, for `load`.

    Raises:
        BufferTableError: the contents are not complete.
    """
    parsed = _parse(contents)
    whole = memoryview(bytearray(contents) if parsed.written else contents)
    start, views = parsed.end + -parsed.end % segments.ALIGNMENT, []
    for _, size in parsed.sizes:
        views.append(whole[start : start + size])
        start += size
    if start != len(contents):
        raise BufferTableError
    return parsed.rows(views)


def load(content: bytes | bytearray | memoryview, rows: Sequence[Row]) -> Any:
    """Unpickle an object with its large buffers.

    Args:
        content: the pickle without its large buffers.
        rows: the buffers, with their places in the pickle. If the last one is the rest
            of the pickle, it replaces the content.
    """
    if rows and rows[-1][0] == _IS_CONTENT:
        content, rows = rows[-1][1], rows[:-1]
    if not rows:
        return pickle.loads(content)  # noqa: S301 - of our own process
    asked = [view for place, view in rows if place < 0]
    inserted = [(place, view) for place, view in rows if place >= 0]
    if not inserted:
        return pickle.loads(content, buffers=asked)  # noqa: S301 - as above
    stream = PickleStream(content, inserted)
    return pickle.Unpickler(stream, buffers=asked).load()  # noqa: S301 - as above
