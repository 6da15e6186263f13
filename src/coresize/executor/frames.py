"""Messages over a socket: a header of fixed size, then so many bytes.

One socket and one process per worker: no lock is shared, so a dead worker blocks
nobody. What a worker has written stays in the kernel when it dies, and is read.
"""

from __future__ import annotations

import struct


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import TypeAlias

    #: Kind, peak, seconds and payload.
    Message: TypeAlias = tuple[int, int, float, bytes]

#: Length of the payload, kind, peak memory in bytes, seconds.
HEADER = struct.Struct("<QBQd")

#: Kinds from the parent: a call, several calls of one function, the end.
CALL, CALLS, STOP = range(3)
#: Kinds from a worker: it is ready, it cannot be; a value, an error, a value that says
#: that the task has failed (`coresize.transfer.Failure`).
READY, BROKEN, VALUE, ERROR, FAILED = range(5)

#: With READY: the worker holds much that it inherited by fork.
HEIR = b"heir"

_HEAD = HEADER.size
_read_header = HEADER.unpack_from

_CHUNK = 256 * 1024

#: Payloads below this are joined with their header: one system call, one packet.
_SMALL = 64 * 1024


def pack(
    kind: int, payload: bytes = b"", peak: int = 0, seconds: float = 0.0
) -> list[bytes]:
    """A message as what is to be written, in order."""
    header = HEADER.pack(len(payload), kind, peak, seconds)
    return [header + payload] if len(payload) < _SMALL else [header, payload]


class Inbox:
    """What has arrived, cut into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._chunk = bytearray(_CHUNK)

    def receive(self, source: socket.socket) -> bool:
        """Take what is there, waiting for something; False at the end.

        Raises:
            OSError: the connection is broken, or nothing is there and it may not wait.
        """
        size = source.recv_into(self._chunk)
        self._buffer += memoryview(self._chunk)[:size]
        return size > 0

    def messages(self) -> list[Message]:
        """The messages that are complete."""
        buffer, start, available = self._buffer, 0, len(self._buffer)
        found: list[Message] = []
        with memoryview(buffer) as view:
            while available - start >= _HEAD:
                size, kind, peak, seconds = _read_header(buffer, start)
                payload = start + _HEAD
                end = payload + size
                if end > available:
                    break
                found.append((kind, peak, seconds, view[payload:end].tobytes()))
                start = end
        if start:
            del buffer[:start]
        return found
