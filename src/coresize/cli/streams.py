"""Standard input, output and error of the command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from coresize.batch import progress
from coresize.errors import CoresizeError
from coresize.texts import one_line


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


#: The exit status after Ctrl-C, as of a shell: 128 and the number of SIGINT.
INTERRUPTED = 130

#: The signal that ends a program which writes to a pipe that nobody reads; Python
#: ignores it, and raises an error instead.
NO_READER = int(getattr(signal, "SIGPIPE", 13))


def read() -> str:
    """All of standard input.

    Raises:
        CoresizeError: it is closed.
    """
    if sys.stdin is None:
        msg = "standard input is closed"
        raise CoresizeError(msg)
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def complain(text: str) -> None:
    """To standard error, if there is one: never to standard output."""
    if sys.stderr is not None:
        progress.say(_printable(text, sys.stderr))


def write(text: str, end: str = "\n") -> bool:
    """To standard output. A reader that leaves early has seen enough.

    Returns:
        False where the reader has gone, so that nobody will read any more.

    Raises:
        CoresizeError: it is closed, or cannot be written.
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
    """Of standard output."""

    has_gone = False


def _divert(stream: TextIO) -> None:
    """Let what is left in the buffer not be tried again when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def settle(status: int) -> int:
    """Write what is still in the buffers, at the end of the program.

    Args:
        status: the exit status so far.

    Returns:
        The exit status; 2 where it was 0, and output is lost.
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
    """Let what comes next stand over so many lines of a terminal.

    ECMA-48: CPL moves up, ED erases what is below.
    """
    with contextlib.suppress(OSError):  # the next write will tell
        print(f"\x1b[{lines}F\x1b[J", end="")


def _printable(text: str, stream: TextIO) -> str:
    """With escapes for what would steer a terminal or cannot be encoded."""
    shown = "\n".join(map(one_line, text.split("\n")))
    encoding = stream.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)
