"""A pickle whose large pieces lie elsewhere, read as one file without joining them."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterable


class PickleStream:
    """A pickle with large buffers inserted, as a file from which an unpickler reads.

    Args:
        content: the pickle without the buffers.
        inserted: the buffers, each with its place in the content, in order.
    """

    def __init__(
        self,
        content: bytes | bytearray | memoryview,
        inserted: Iterable[tuple[int, memoryview]],
    ) -> None:
        whole, start = memoryview(content), 0
        self._parts: list[memoryview] = []
        for place, view in inserted:
            self._parts += [whole[start:place], view]
            start = place
        self._parts.append(whole[start:])
        self._parts.reverse()

    def read(self, size: int) -> bytes:
        """Read a number of bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer; returns the bytes that were read."""
        target, filled = memoryview(buffer), 0
        while filled < len(target):
            self._skip_empty()
            if not self._parts:
                break
            part = self._take(min(len(self._parts[-1]), len(target) - filled))
            target[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def readline(self) -> bytes:
        """Read a line: the protocols that are used here have none."""
        raise pickle.UnpicklingError

    def _take(self, size: int) -> memoryview:
        part = self._parts.pop()
        self._parts.append(part[size:])
        return part[:size]

    def _skip_empty(self) -> None:
        while self._parts and not self._parts[-1]:
            self._parts.pop()
