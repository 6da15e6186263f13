"""Messages between the parent and a worker: a header of fixed size, then the payload.

Each worker has a socket of its own and shares no lock, so a dead worker blocks no other
process. The bytes that a worker has written stay in the kernel when it dies, and the
parent reads them.

Every call has a number, which its answer repeats. A task may do anything to its
process: fork it, close its descriptors, write to descriptors that it has not opened.
Therefore an answer counts only if its number is that of the call that is due, and bytes
that no worker wrote are recognised by the missing mark of four bytes.

The large buffers of a call or value lie in segments (`coresize.processes.buffers`). The
message before tells the places; with its first byte come the segments' descriptors. A
read ends where such a message begins to be read, so each read brings the descriptors of
one message at most. If the reader may not open so many, the kernel drops those that are
too many (recvmsg(2), MSG_CTRUNC), and only the one call or value is lost. If the kernel
refuses to send them, the message brings the contents of the segments instead.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
from collections import deque

from coresize.processes import lines


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from coresize.processes.buffers import Packed

    #: The kind, the number of the call, peak memory, seconds and the payload.
    Message: TypeAlias = tuple[int, int, int, float, bytes | bytearray]

#: The first bytes of each header.
_MARK = b"\xc0RE\x01"

#: The mark, the kind, the length of the payload, the number of the call, peak memory in
#: bytes, seconds.
HEADER = struct.Struct("<4sBQQQd")

#: Kinds from the parent: a call, several calls of one function, the order to end, the
#: folder in which the following calls were submitted, and the end of the calls that the
#: parent has recalled.
CALL, CALLS, STOP, FOLDER, RESUME = range(5)
#: Kinds from a worker: it is ready, or its initializer failed; a value, an error, or a
#: value that says that the task has failed (`coresize.processes.transfer.Failure`).
READY, BROKEN, VALUE, ERROR, FAILED = range(5)
#: Kinds of both: the places of the large buffers of the next call or value, which lie
#: in segments whose descriptors come along, or in the message itself.
BUFFERS, CONTENTS = 5, 6
_LAST = CONTENTS

#: With READY: the worker holds much memory that it inherited by fork.
INHERITS_MEMORY = b"inherits"

_HEAD = HEADER.size
_read_header, _write_header = HEADER.unpack_from, HEADER.pack

_CHUNK = 256 * 1024

#: Room for the descriptors that come with some bytes (unix(7), SCM_MAX_FD); 0 where a
#: socket passes none.
_ANCILLARY = socket.CMSG_SPACE(253 * 4) if hasattr(socket, "CMSG_SPACE") else 0

#: The flag of a read for which the kernel has dropped descriptors.
_DROPPED: int = getattr(socket, "MSG_CTRUNC", 0)

#: Smaller payloads are joined with their header: one system call, one packet. Larger
#: payloads are written from, and read into, a buffer of their own.
SMALL = 64 * 1024


class StreamError(Exception):
    """The bytes that have arrived are no message."""


def pack(
    kind: int,
    payload: bytes = b"",
    number: int = 0,
    peak: int = 0,
    seconds: float = 0.0,
) -> tuple[bytes, ...]:
    """The pieces of a message, to be written in order."""
    size = len(payload)
    header = _write_header(_MARK, kind, size, number, peak, seconds)
    return (header + payload,) if size < SMALL else (header, payload)


def pack_buffers(packed: Packed) -> bytes:
    """The message that tells the places of large buffers, to be sent in one piece."""
    return b"".join(pack(BUFFERS, packed.table()))


def pack_contents(packed: Packed) -> tuple[bytes, ...]:
    """The pieces of the message that takes its place if descriptors cannot be sent.

    Raises:
        OSError: the segments cannot be read.
    """
    return pack(CONTENTS, packed.contents())


#: The errors of sendmsg(2) if the descriptors cannot be sent: too many of this user's
#: are on their way, or another part of the program has closed one.
_REFUSED = frozenset({errno.ETOOMANYREFS, errno.EBADF, errno.EPERM, errno.EACCES})


def is_refused(error: OSError) -> bool:
    """Whether an error of `send` is about the descriptors, not the connection."""
    return error.errno in _REFUSED


class Inbox:
    """Cuts the bytes that arrive into messages."""

    def __init__(self) -> None:
        #: The descriptors that have come, by message.
        self._descriptors: deque[list[int]] = deque()
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
            size, sent, flags, _ = source.recvmsg_into(
                [self._chunk], _ANCILLARY, lines.CLOEXEC
            )
            if sent or flags & _DROPPED:
                self._descriptors.append(_descriptors(sent))
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
                if mark != _MARK or kind > _LAST:
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
                found.append((kind, number, peak, seconds, buffer[payload:end]))
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
        """The descriptors of the next message, which belong to the caller from now on.

        Args:
            count: the number of descriptors that were sent with it.

        Raises:
            OSError: the kernel has dropped some of them.
            StreamError: the message came without descriptors, or with more.
        """
        if not self._descriptors:
            raise StreamError
        found = self._descriptors.popleft()
        if len(found) == count:
            return found
        _close(found)
        if len(found) > count:
            raise StreamError
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def close(self) -> None:
        """Close the descriptors that nobody has taken."""
        while self._descriptors:
            _close(self._descriptors.popleft())


def _close(descriptors: list[int]) -> None:
    for each in descriptors:
        with contextlib.suppress(OSError):  # a task has closed it
            os.close(each)


def _descriptors(sent: list[tuple[int, int, bytes]]) -> list[int]:
    numbers = array.array("i")
    for _, _, content in sent:
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
