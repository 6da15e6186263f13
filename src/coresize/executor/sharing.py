"""How the large buffers of calls and results travel between a pool and its workers.

Rule 1: a large buffer is copied once, into memory that the processes share, however
many calls, workers and tries use it (`coresize.processes.buffers`). Rule 2: what does
not fit into the memory that is left is refused before it is copied. Rule 3: a call is
copied at its submission, so that the caller may change an array between two calls; but
only while the copies of waiting calls leave most of the memory free. The other calls
are copied when a worker takes them.
"""

from __future__ import annotations

import sys

from coresize.arguments import check_count
from coresize.errors import ConfigError, InsufficientMemoryError, ParseError
from coresize.model import Value
from coresize.processes import segments, transfer
from coresize.processes.buffers import LEAST, Apart, Once, Packed
from coresize.processes.transfer import TransferError
from coresize.units import SIZES, size


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    from coresize.processes.copies import Bound

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

#: Copies of fewer bytes are made without a look at the memory that is left.
_LITTLE = 1024**2


class _NotNowError(Exception):
    """The copies of waiting calls would take too much."""


class Sharing(Value):
    """How large buffers travel.

    Attributes:
        least: the bytes from which on a buffer travels in shared memory; None if all
            buffers are sent with their call.
        writable: workers may write to arrays that they are sent, each to its own copy.
    """

    least: int | None
    writable: bool

    def pack(self, message: object, function: object) -> bytes | Packed:
        """Pickle a message with a function, for a worker that takes it now.

        Raises:
            InsufficientMemoryError: the large buffers do not fit into memory.
            TransferError: the message cannot be pickled.
        """
        content = self._pack(message, function, sys.maxsize, early=False)
        assert content is not None
        return content

    def pack_early(
        self, message: object, function: object, most: int
    ) -> bytes | Packed | None:
        """Pickle a message with a function, which has to wait for a worker.

        Args:
            message: the message.
            function: the function, for the text of an error.
            most: the most bytes, without the large buffers.

        Returns:
            The pickle; None if it is better made when a worker takes it.

        Raises:
            TransferError: the message cannot be pickled.
        """
        try:
            return self._pack(message, function, most, early=True)
        except _NotNowError:
            return None

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
        return apart.whole(content, writable=self.writable, bound=bound), size

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
        self, message: object, function: object, most: int, *, early: bool
    ) -> bytes | Packed | None:
        if self.least is None:
            return transfer.dump_within(message, function, most)
        apart = Apart(self.least)
        content = transfer.dump_within(message, function, most, apart=apart)
        if content is None or apart.is_empty:
            return content
        bound = _check_early if early else check
        try:
            return apart.packed(content, writable=self.writable, bound=bound)
        except OSError:  # no descriptor is free: the buffers go with the call
            return transfer.dump_within(message, function, most)


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
        _NotNowError: they do not, or there are many segments already.
    """
    few = min(_MOST_SEGMENTS, segments.most_descriptors() // _PART_OF_DESCRIPTORS)
    left = _left(fresh)
    if segments.count() >= few or (left is not None and fresh > left // _PART):
        raise _NotNowError


def check(fresh: int) -> None:
    """Check that copies fit into the memory that is left.

    Raises:
        InsufficientMemoryError: they do not.
    """
    left = _left(fresh)
    if left is not None and fresh > left:
        what = "a copy of the large arguments does not fit into memory"
        raise InsufficientMemoryError(fresh, left, what)


def _left(fresh: int) -> int | None:
    """The bytes of memory that are left; None if unknown, or if the size is small."""
    if fresh < _LITTLE:
        return None
    from coresize.detection.available import memory_limits
    from coresize.detection.limits import memory_left
    from coresize.host import current

    try:
        return memory_left(memory_limits(current()))
    except ConfigError:  # a variable became invalid: the pool has told that
        return None
