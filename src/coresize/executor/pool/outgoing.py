"""The bytes that a pool sends to all of its workers together."""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.jobs import Job


#: Unsent bytes to all workers of a pool, beyond which no more jobs are pickled.
_SENT = 64 * 1024**2


class Outgoing:
    """The bytes that a pool sends to all of its workers together.

    Attributes:
        size: bytes that are pickled and not written yet.
        held: a worker has to wait until there are fewer such bytes.
        put_off: the jobs that were given to workers, but whose large buffers did not
            fit into memory.
    """

    __slots__ = ("_number", "held", "put_off", "size")

    def __init__(self) -> None:
        self.put_off: list[Job] = []
        self.size = 0
        self.held = False
        self._number = 0

    def numbers(self, count: int) -> int:
        """Reserve consecutive numbers that no call has had; returns the first."""
        first = self._number
        self._number += count
        return first

    def has_room(self) -> bool:
        """Whether more jobs may be pickled; if not, this sets ``held``."""
        self.held |= self.size >= _SENT
        return self.size < _SENT
