"""Which buffers of this process have a copy in a segment.

A buffer is known by its address. A buffer at the same address is compared with the copy
before this is used again, as the caller may have changed it. No comparison is needed
for the view of a segment itself, or for an array that its owner does not change in the
meantime (`coresize.processes.buffers.Apart.scope`).
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from coresize.processes import segments


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeAlias

    from coresize.processes.segments import Segment

    #: A folder for what does not fit into memory, or None; see `Copies.place`.
    Folder: TypeAlias = str | os.PathLike[str] | None
    Bound: TypeAlias = Callable[[int], Folder]
    #: The address of a buffer, and the address after it.
    Range: TypeAlias = tuple[int, int]

#: The most segments to which one pickle refers: the kernel passes at most 253
#: descriptors in a message (unix(7), SCM_MAX_FD).
_MOST_SEGMENTS = 128


class Piece(NamedTuple):
    """A buffer that lies in a segment.

    Attributes:
        segment: the segment.
        offset: the place of the buffer in the segment.
        size: bytes of the buffer.
        place: the place in the pickle to which the buffer belongs; negative if pickle
            asks for the buffer by itself.
    """

    segment: Segment
    offset: int
    size: int
    place: int = -1

    @property
    def end(self) -> int:
        """The place after the buffer in the segment."""
        return self.offset + self.size

    def view(self) -> memoryview:
        """The bytes, read only."""
        return self.segment.view()[self.offset : self.end]

    def raw(self) -> memoryview:
        """The bytes, which look writable; who writes to them crashes."""
        view = self.view()
        return segments.view_at(segments.address_of(view), self.size, view)


class _Copy(NamedTuple):
    """A buffer of this process, and where its copy lies.

    Attributes:
        start: the address of the buffer.
        end: the address after it.
        segment: the segment.
        offset: the place of the copy in the segment.
        is_view: the buffer is the view of the segment itself.
        scope: the scope in which the buffer was last found to be equal; see `Apart`.
        owner: the object whose memory the buffer is, in that scope.
    """

    start: int
    end: int
    segment: weakref.ref[Segment]
    offset: int
    is_view: bool = False
    scope: object = None
    owner: weakref.ref[Any] | None = None

    def noted(self, scope: object, view: memoryview) -> _Copy:
        """A copy with the scope in which the buffer was found to be equal."""
        if scope is None:
            return self
        try:
            return self._replace(scope=scope, owner=weakref.ref(_owner(view)))
        except TypeError:  # of bytes there are no weak references
            return self

    def is_trusted(self, scope: object, owner: object) -> bool:
        """Whether the buffer needs no comparison: its owner lives, and is unchanged."""
        same = self.owner is not None and self.owner() is owner
        return self.is_view or (scope is not None and self.scope is scope and same)


class Copies:
    """Knows which buffers of this process have a copy in a living segment.

    Attributes:
        changes: counts the changes of what is known.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._lock = threading.RLock()
        #: The copies by the address of the buffer, and these addresses in order.
        self._copies: dict[int, _Copy] = {}
        self._starts: list[int] = []

    def know(self, segment: Segment) -> None:
        """Note that a segment is mapped, so that parts of its view need no copy."""
        start, end = _range(segment.view())
        with self._lock:
            self._add([_Copy(start, end, weakref.ref(segment), 0, is_view=True)])

    def place(
        self, views: Sequence[memoryview], bound: Bound | None, scope: object = None
    ) -> tuple[list[Piece], int]:
        """The places of buffers in segments; those without a copy are copied now.

        Args:
            views: the buffers.
            bound: called with the bytes that are about to be copied, if any; it may
                raise an error, or return a folder for a file that takes them instead of
                memory.
            scope: see `Apart`.

        Returns:
            A piece for each buffer, and the number of bytes that were copied.

        Raises:
            OSError: no segment can be made.
            Exception: of ``bound``.
        """
        ranges = [_range(view) for view in views]
        with self._lock:
            found = [
                self._find(*each, view, scope)
                for each, view in zip(ranges, views, strict=True)
            ]
            if len({piece.segment for piece in found if piece}) >= _MOST_SEGMENTS:
                found = [None] * len(views)
            new = {
                each: view
                for each, view, piece in zip(ranges, views, found, strict=True)
                if piece is None
            }
            runs = _without_parts(new)
            fresh = sum(end - start for start, end in runs)
            if not runs:
                return [piece for piece in found if piece], 0
            folder = None if bound is None else bound(fresh)
            segment, offsets = segments.create([new[each] for each in runs], folder)
            copies = [
                _Copy(*each, weakref.ref(segment), offset).noted(scope, new[each])
                for each, offset in zip(runs, offsets, strict=True)
            ]
            self._add(copies)
        pieces = [
            piece or _piece_of(segment, copies, *each)
            for piece, each in zip(found, ranges, strict=True)
        ]
        return pieces, fresh

    def _add(self, copies: list[_Copy]) -> None:
        # A garbage collection may call the user's code here, which may submit a call.
        known = [*self._copies.values(), *copies]
        known = [copy for copy in known if copy.segment() is not None]
        self._copies = {copy.start: copy for copy in known}
        self._starts = sorted(self._copies)
        self.changes += 1

    def missing(self, ranges: Iterable[Range]) -> int:
        """The bytes of buffers that have no copy; what is common counts once.

        The buffers are not compared, so one that has changed counts as copied. Nor does
        this wait for another thread that copies something.
        """
        runs = _without_parts(each for each in ranges if self._covering(*each) is None)
        return sum(end - start for start, end in runs)

    def _covering(self, start: int, end: int) -> tuple[_Copy, Segment] | None:
        """The copy of a buffer that begins and ends there, and its living segment."""
        starts, copies = self._starts, self._copies
        place = bisect_right(starts, start)
        copy = copies.get(starts[place - 1]) if place else None
        segment = copy.segment() if copy else None
        if copy is None or segment is None or segment.descriptor < 0 or end > copy.end:
            return None
        return copy, segment

    def _find(
        self, start: int, end: int, view: memoryview, scope: object
    ) -> Piece | None:
        """The place of a buffer in a living segment, or None."""
        covering = self._covering(start, end)
        if covering is None:
            return None
        copy, segment = covering
        piece = _piece_of(segment, [copy], start, end)
        if copy.is_trusted(scope, _owner(view)):
            return piece
        try:
            holds = segments.equal(piece.view(), view)
        except OSError:  # there is no address space to map the segment
            return None
        if holds and (copy.start, copy.end) == (start, end):
            self._copies[start] = copy.noted(scope, view)
        return piece if holds else None


def size_of(views: Iterable[memoryview]) -> int:
    """The bytes of buffers; what they have in common counts once."""
    return sum(end - start for start, end in ranges_of(views))


def ranges_of(views: Iterable[memoryview]) -> list[Range]:
    """The addresses of buffers, without those that are part of another one."""
    return _without_parts(_range(view) for view in views)


def _owner(view: memoryview) -> object:
    """The object whose memory a buffer is: a view of an array has another one."""
    owner: object = view
    while True:
        name = "obj" if isinstance(owner, memoryview) else "base"
        base = getattr(owner, name, None)
        if base is None:
            return owner
        owner = base


def _range(view: memoryview) -> Range:
    start = segments.address_of(view)
    return start, start + view.nbytes


def _without_parts(ranges: Iterable[Range]) -> list[Range]:
    """The ranges that are not part of another one."""
    kept: list[Range] = []
    for start, end in sorted(ranges, key=lambda each: (each[0], -each[1])):
        if not kept or end > kept[-1][1]:
            kept.append((start, end))
    return kept


def _piece_of(segment: Segment, copies: list[_Copy], start: int, end: int) -> Piece:
    """The place of a buffer of which one of the copies holds all bytes."""
    place = bisect_right(copies, start, key=lambda copy: copy.start) - 1
    copy = copies[place]
    return Piece(segment, copy.offset + start - copy.start, end - start)


#: The copies of buffers of this process.
copies = Copies()

if hasattr(os, "register_at_fork"):
    # The descriptors belong to the parent, and another thread may have held the lock.
    os.register_at_fork(after_in_child=copies.__init__)  # type: ignore[misc]
