"""How the large buffers of calls and results travel between a pool and its workers.

Rule 1: a large buffer is copied once, into memory that the processes share, however
many calls, workers and tries use it (`coresize.processes.buffers`). Rule 2: what does
not fit into the memory that is left is refused before it is copied. Rule 3: a call is
copied at its submission, so that the caller may change an array between two calls; but
only while the copies of waiting calls leave most of the memory free. The other calls
are copied when a worker takes them (`Later`), and wait until their copy fits
(`coresize.executor.admission.copies`).
"""

from __future__ import annotations

import sys
import weakref

from coresize.arguments import check_count
from coresize.errors import ConfigError, InsufficientMemoryError, ParseError
from coresize.model import Value
from coresize.processes import copies, segments, transfer
from coresize.processes.buffers import LEAST, Apart, Once, Packed
from coresize.processes.transfer import TransferError
from coresize.units import SIZES, size


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal, TypeAlias

    from coresize.processes.copies import Bound, Range
    from coresize.processes.segments import Segment

    #: A number of bytes, or a text such as "64KiB".
    Size: TypeAlias = int | str
    #: How workers may write to what is shared.
    Writable: TypeAlias = Literal["copy"]

#: The default of ``share_from=``, and the values of ``writable=`` beside None.
SHARE_FROM = "64KiB"
WRITABLE = ("copy",)

#: At submission, copies may take this part of the memory that is left.
_PART = 4

#: The most segments that may exist for another one to be made at submission, and the
#: part of the descriptors of this process that they may take.
_MOST_SEGMENTS, _PART_OF_DESCRIPTORS = 256, 4

_WHAT = "a copy of the large arguments does not fit into memory"

#: Copies of fewer bytes are made without a look at the memory that is left: one copy,
#: and all that were made at submission together.
LITTLE, _LITTLE_TOGETHER = 1024**2, 32 * 1024**2

#: The segments that were made at submission, for calls that wait or run, by number.
_early: dict[int, weakref.ref[Segment]] = {}


class Later:
    """In place of a pickle: the call is packed later, when a worker takes it.

    Args:
        ranges: the addresses of its large buffers, as far as they are known.
        error: why they were not copied, if they were to be copied; its ``needed`` is
            the number of bytes.
    """

    __slots__ = ("_changes", "_ranges", "_size", "error")

    def __init__(
        self,
        ranges: Sequence[Range] = (),
        error: InsufficientMemoryError | None = None,
    ) -> None:
        self.error = error
        self._ranges = ranges
        self._size = 0 if error is None else error.needed
        self._changes = -1 if error is None else copies.copies.changes

    @property
    def size(self) -> int:
        """The bytes that are still to be copied, as far as is known."""
        changes = copies.copies.changes
        if changes != self._changes:  # another call may have brought the same buffers
            self._size, self._changes = copies.copies.missing(self._ranges), changes
        return self._size


class Sharing(Value):
    """How large buffers travel.

    Attributes:
        least: the bytes from which on a buffer travels in shared memory; None if all
            buffers are sent with their call.
        writable: workers may write to arrays that they are sent, each to its own copy.
    """

    least: int | None
    writable: bool

    def pack(self, message: object, function: object) -> bytes | Packed | Later:
        """Pickle a message with a function, for a worker that takes it now.

        Returns:
            The pickle; or `Later` with an error, if the large buffers do not fit into
            the memory that is left.

        Raises:
            TransferError: the message cannot be pickled.
        """
        return self._pack(message, function, sys.maxsize, check)

    def pack_early(
        self, message: object, function: object, most: int
    ) -> bytes | Packed | Later:
        """Pickle a message with a function, which has to wait for a worker.

        Args:
            message: the message.
            function: the function, for the text of an error.
            most: the most bytes, without the large buffers.

        Returns:
            The pickle; `Later` if it is better made when a worker takes it.

        Raises:
            TransferError: the message cannot be pickled.
        """
        content = self._pack(message, function, most, _check_early)
        if isinstance(content, Packed) and content.fresh:
            _note_early(max(content.segments, key=lambda segment: segment.number))
        return content

    def pack_whole(self, value: object, bound: Bound) -> tuple[Packed | None, int]:
        """Pickle an object for many readers, and copy its large buffers.

        Returns:
            The pickle, and the bytes of the object. The pickle is None if the object
            has no large buffers, or if this system has no segments.

        Raises:
            InsufficientMemoryError: of ``bound``.
            OSError: no segment can be made.
            TransferError: the object cannot be pickled.
        """
        apart = Apart(LEAST if self.least is None else self.least)
        content = transfer.dump_within(value, value, sys.maxsize, apart=apart) or b""
        size = len(content) + apart.size
        if self.least is None or (apart.is_empty and len(content) < self.least):
            return None, size
        try:
            return apart.whole(content, writable=self.writable, bound=bound), size
        except InsufficientMemoryError as error:
            # Its traceback would hold views of the arrays. The caller may keep it in a
            # cycle, and a garbage collection that clears nested views may crash.
            del apart
            raise error.with_traceback(None) from None

    def once(self, value: object) -> Any:
        """What stands for an object in the messages of many calls.

        Its large buffers are copied now, once for all calls. If there are none, or if
        they cannot be copied, it is the object itself, and each call tells what failed.
        """
        if self.least is None:
            return value
        try:
            packed, _ = self.pack_whole(value, check)
            return value if packed is None else Once(value, packed)
        except (MemoryError, OSError, TransferError):
            return value

    def _pack(
        self, message: object, function: object, most: int, bound: Bound
    ) -> bytes | Packed | Later:
        if transfer.is_small_call(message):
            content = transfer.dump_within(message, function, sys.maxsize)
            return content if content and len(content) <= most else Later()
        apart = None if self.least is None else Apart(self.least)
        content = transfer.dump_within(message, function, most, apart=apart)
        if content is None:
            return Later(apart.ranges if apart else ())
        if apart is None:
            return content
        try:
            return apart.packed(content, writable=self.writable, bound=bound)
        except InsufficientMemoryError as error:
            # Its traceback would hold the arrays.
            return Later(apart.ranges, error.with_traceback(None))
        except OSError:  # no descriptor is free: the buffers go with the call
            return transfer.dump_within(message, function, most) or Later()


def sharing(share_from: Size | None, writable: Writable | None) -> Sharing:
    """How large buffers travel on this system: without segments, with their calls.

    Args:
        share_from: see `coresize.ProcessPoolExecutor`.
        writable: see there.

    Raises:
        ConfigError: an argument is not valid.
    """
    least = None if share_from is None else _checked(share_from)
    if writable not in (None, *WRITABLE):
        raise ConfigError("writable", writable, '"copy" or None')
    if not segments.is_available():
        least = None
    return Sharing(least=least, writable=writable is not None)


def _checked(share_from: Size) -> int:
    """The argument ``share_from=`` in bytes.

    Raises:
        ConfigError: it is no size.
    """
    if not isinstance(share_from, str):
        return check_count("share_from", share_from, 1, ", of bytes; or None")
    try:
        return size(share_from)
    except ParseError:
        raise ConfigError("share_from", share_from, f"{SIZES}, or None") from None


def _check_early(fresh: int) -> None:
    """Check that copies leave most of the memory free.

    Raises:
        InsufficientMemoryError: they do not, or there are many segments already.
    """
    few = min(_MOST_SEGMENTS, segments.most_descriptors() // _PART_OF_DESCRIPTORS)
    held = _held_early()
    is_little = fresh < LITTLE and held + fresh < _LITTLE_TOGETHER
    left = None if is_little else memory_left(held + fresh)
    most = sys.maxsize if left is None else (left + held) // _PART - held
    if segments.count() >= few or fresh > most:
        raise InsufficientMemoryError(fresh, max(0, most), _WHAT)


def _note_early(segment: Segment) -> None:
    number = segment.number
    _early[number] = weakref.ref(segment, lambda _: _early.pop(number, None))


def _held_early() -> int:
    """The bytes of the segments that were made at submission, and still live."""
    living = [each() for each in list(_early.values())]
    return sum(each.size for each in living if each and each.descriptor >= 0)


def check(fresh: int, what: str = _WHAT) -> None:
    """Check that copies fit into the memory that is left.

    Args:
        fresh: the bytes that are to be copied.
        what: the text of the error.

    Raises:
        InsufficientMemoryError: they do not.
    """
    left = memory_left(fresh)
    if left is not None and fresh > left:
        raise InsufficientMemoryError(fresh, left, what)


def fits(fresh: int) -> bool:
    """Whether copies of so many bytes fit into the memory that is left."""
    left = memory_left(fresh)
    return left is None or fresh <= left


def memory_left(fresh: int) -> int | None:
    """The bytes of memory that are left; None if unknown, or if little is copied.

    Args:
        fresh: the bytes that are to be copied.
    """
    if fresh < LITTLE:
        return None
    from coresize.detection import limits
    from coresize.detection.available import memory_limits
    from coresize.host import current

    try:
        return limits.memory_left(memory_limits(current()))
    except ConfigError:  # a variable became invalid: the pool has told that
        return None
