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

from coresize.errors import InsufficientMemoryError
from coresize.model import Value
from coresize.processes import segments, transfer
from coresize.processes.buffers import Apart, Packed


TYPE_CHECKING = False

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

    def _pack(
        self, message: object, function: object, most: int, *, early: bool
    ) -> bytes | Packed | None:
        if self.least is None:
            return transfer.dump_within(message, function, most)
        apart = Apart(self.least)
        content = transfer.dump_within(message, function, most, apart=apart)
        if content is None or not apart:
            return content
        bound = _check_early if early else _check
        try:
            return apart.packed(content, writable=self.writable, bound=bound)
        except OSError:  # no descriptor is free: the buffers go with the call
            return transfer.dump_within(message, function, most)


def sharing(least: int | None, *, writable: bool) -> Sharing:
    """How large buffers travel on this system: without segments, with their calls."""
    return Sharing(least=least if segments.is_available() else None, writable=writable)


def _check_early(size: int) -> None:
    """Check that copies leave most of the memory free.

    Raises:
        _NotNowError: they do not, or there are many segments already.
    """
    few = min(_MOST_SEGMENTS, segments.most_descriptors() // _PART_OF_DESCRIPTORS)
    left = _left(size)
    if segments.count() >= few or (left is not None and size > left // _PART):
        raise _NotNowError


def _check(size: int) -> None:
    """Check that copies fit into the memory that is left.

    Raises:
        InsufficientMemoryError: they do not.
    """
    left = _left(size)
    if left is not None and size > left:
        raise InsufficientMemoryError(size, left)


def _left(size: int) -> int | None:
    """The bytes of memory that are left; None if unknown, or if the size is small."""
    if size < _LITTLE:
        return None
    from coresize.detection.available import memory_limits
    from coresize.detection.limits import memory_left
    from coresize.errors import ConfigError
    from coresize.host import Live

    try:
        return memory_left(memory_limits(Live()))
    except ConfigError:  # a variable became invalid: the pool has told that
        return None
