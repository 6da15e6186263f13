"""Messages between the parent and a worker: a header of fixed size, then the payload.

Each worker has a socket of its own and shares no lock, so a dead worker blocks no other
process. The bytes that a worker has written stay in the kernel when it dies, and the
parent reads them.

Every call has a number, which its answer repeats. A task may do anything to its
process: fork it, close its descriptors, write to descriptors that it has not opened.
Therefore an answer counts only if its number is that of the call that is due, and bytes
that no worker wrote are recognised by the missing mark of four bytes.

The large buffers of a call or value lie in segments (`coresize.processes.buffers`). The
message before tells the places; with its first byte come the segments' descriptors.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque

from coresize.processes import lines


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    #: The kind, the number of the call, peak memory, seconds and the payload.
    Message: TypeAlias = tuple[int, int, int, float, bytes | bytearray]

#: The first bytes of each header.
_MARK = b"\xc0RE\x01"

#: The mark, the kind, the length of the payload, the number of the call, peak memory in
#: bytes, seconds.
HEADER = struct.Struct("<4sBQQQd")

#: Kinds from the parent: a call, several calls of one function, the order to end, and
#: the folder in which the following calls were submitted.
CALL, CALLS, STOP, FOLDER = range(4)
#: Kinds from a worker: it is ready, or its initializer failed; a value, an error, or a
#: value that says that the task has failed (`coresize.processes.transfer.Failure`).
READY, BROKEN, VALUE, ERROR, FAILED = range(5)
#: A kind of both: the places of the large buffers of the next call or value.
BUFFERS = 5
_KINDS = range(6)

#: With READY: the worker holds much memory that it inherited by fork.
INHERITS_MEMORY = b"inherits"

_HEAD = HEADER.size
_read_header = HEADER.unpack_from

_CHUNK = 256 * 1024

#: Room for the descriptors that come with some bytes (unix(7), SCM_MAX_FD); 0 where a
#: socket passes none.
_ANCILLARY = socket.CMSG_SPACE(253 * 4) if hasattr(socket, "CMSG_SPACE") else 0

#: Smaller payloads are joined with their header: one system call, one packet. Larger
#: payloads are written from, and read into, a buffer of their own.
SMALL = 64 * 1024


class StreamError(Exception):
    """The bytes that have arrived are no message."""


def pack(
    kind: int,
    payload: bytes = b"",
    *,
    number: int = 0,
    peak: int = 0,
    seconds: float = 0.0,
) -> list[bytes]:
    """The pieces of a message, to be written in order."""
    header = HEADER.pack(_MARK, kind, len(payload), number, peak, seconds)
    return [header + payload] if len(payload) < SMALL else [header, payload]


class Inbox:
    """Cuts the bytes that arrive into messages.

    Attributes:
        descriptors: those that came with the bytes, in order.
    """

    def __init__(self) -> None:
        self.descriptors: deque[int] = deque()
        self._buffer = bytearray()
        self._chunk = bytearray(_CHUNK)
        #: The header of a message with a large payload, the payload, and the number of
        #: its bytes that have arrived.
        self._head: tuple[int, int, int, float] | None = None
        self._large = bytearray()
        self._filled = 0

    def receive(self, source: socket.socket) -> bool:
        """Read bytes that have arrived, or wait for some; False at the end.

        Raises:
            OSError: the connection is broken; or there are no bytes, and the socket
                does not block.
        """
        if self._filled < len(self._large):
            with memoryview(self._large) as view:
                size = source.recv_into(view[self._filled :])
            self._filled += size
            return size > 0
        if _ANCILLARY:
            size, sent, _, _ = source.recvmsg_into(
                [self._chunk], _ANCILLARY, lines.CLOEXEC
            )
            for _, _, content in sent:
                self.descriptors += _descriptors(content)
        else:
            size = source.recv_into(self._chunk)
        self._buffer += memoryview(self._chunk)[:size]
        return size > 0

    def messages(self) -> list[Message]:
        """The messages that are complete.

        Raises:
            StreamError: there are bytes that are no message.
        """
        found: list[Message] = []
        if self._head is not None:
            if self._filled < len(self._large):
                return found
            found.append(self._take_large())
        buffer, start, available = self._buffer, 0, len(self._buffer)
        with memoryview(buffer) as view:
            while available - start >= _HEAD:
                mark, kind, size, number, peak, seconds = _read_header(buffer, start)
                if mark != _MARK or kind not in _KINDS:
                    raise StreamError
                payload = start + _HEAD
                end = payload + size
                if end > available:
                    if size < SMALL:
                        break
                    self._head = kind, number, peak, seconds
                    self._large = bytearray(size)
                    self._filled = available - payload
                    self._large[: self._filled] = view[payload:]
                    start = available
                    break
                content = view[payload:end].tobytes()
                found.append((kind, number, peak, seconds, content))
                start = end
        if start:
            del buffer[:start]
        return found

    def _take_large(self) -> Message:
        assert self._head is not None
        message = (*self._head, self._large)
        self._head, self._large, self._filled = None, bytearray(), 0
        return message

    def take_descriptors(self, count: int) -> list[int]:
        """The next descriptors, which belong to the caller from now on.

        Raises:
            StreamError: fewer have arrived.
        """
        if count > len(self.descriptors):
            raise StreamError
        return [self.descriptors.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close the descriptors that nobody has taken."""
        while self.descriptors:
            os.close(self.descriptors.popleft())


def _descriptors(content: bytes) -> list[int]:
    numbers = array.array("i")
    numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    return numbers.tolist()


def send(
    target: socket.socket, part: bytes | memoryview, attached: Sequence[int]
) -> int:
    """Send bytes with descriptors; returns the number of bytes that were sent.

    The descriptors go with the first byte. So the rest, if any, is sent without them.

    Raises:
        OSError: the connection is broken, or the socket does not block and is full.
    """
    if not attached:
        return target.send(part)
    return socket.send_fds(target, [part], list(attached))
