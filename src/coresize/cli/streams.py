"""Standard input, output and error of the command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from coresize.batch import progress
from coresize.errors import CoresizeError
from coresize.texts import decode, one_line


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


#: The exit status after Ctrl-C, as of a shell: 128 and the number of SIGINT.
INTERRUPTED = 130

#: The signal that ends a program which writes to a pipe without a reader; Python
#: ignores the signal, and raises an error instead.
NO_READER = int(getattr(signal, "SIGPIPE", 13))


def read() -> str:
    """Read all of standard input.

    Raises:
        CoresizeError: standard input is closed.
        UnicodeError: it is not UTF-8, or has NUL characters.
    """
    if sys.stdin is None:
        msg = "standard input is closed"
        raise CoresizeError(msg)
    return decode(sys.stdin.buffer.read())


def complain(text: str) -> None:
    """Write a text to standard error, if that is open; never to standard output."""
    if sys.stderr is not None:
        progress.say(_printable(text, sys.stderr))


def write(text: str, end: str = "\n") -> bool:
    """Write a text to standard output; a reader that closes it early is no error.

    Returns:
        False if the reader has gone.

    Raises:
        CoresizeError: standard output is closed, or cannot be written.
    """
    if sys.stdout is None:
        msg = "standard output is closed"
        raise CoresizeError(msg)
    try:
        print(_printable(text, sys.stdout), end=end, flush=True)
    except OSError as error:
        _divert(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            msg = f"standard output cannot be written: {error.strerror}"
            raise CoresizeError(msg) from None
        _Reader.has_gone = True
    return not _Reader.has_gone


class _Reader:
    """The reader of standard output."""

    has_gone = False


def _divert(stream: TextIO) -> None:
    """Divert a stream to the null device, where Python writes its buffer at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def settle(status: int) -> int:
    """Flush standard output and error at the end of the program.

    Args:
        status: the exit status so far.

    Returns:
        The exit status; 2 if it was 0 and output is lost.
    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            _divert(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                complain(
                    "coresize: error: standard output cannot be written: "
                    f"{error.strerror}"
                )
                status = status or 2
    if sys.stderr is not None:
        with progress.unhurt():
            sys.stderr.flush()
    return status


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def move_up(lines: int) -> None:
    """Let the next output overwrite the last lines of a terminal.

    ECMA-48: CPL moves up, ED erases the lines below.
    """
    with contextlib.suppress(OSError):  # the next write reports the error
        print(f"\x1b[{lines}F\x1b[J", end="")


def _printable(text: str, stream: TextIO) -> str:
    """Escape characters that would control a terminal or cannot be encoded."""
    shown = "\n".join(map(one_line, text.split("\n")))
    encoding = stream.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)
