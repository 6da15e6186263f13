"""Standard input, output and error of the command."""

from __future__ import annotations

import os
import sys

from coresize.errors import CoresizeError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


#: The exit status after Ctrl-C, as of a shell: 128 and the number of SIGINT.
INTERRUPTED = 130


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
        print(_printable(text, sys.stderr), file=sys.stderr)


def write(text: str) -> None:
    """To standard output. A reader that leaves early has seen enough."""
    if sys.stdout is None:
        msg = "standard output is closed"
        raise CoresizeError(msg)
    try:
        print(_printable(text, sys.stdout), flush=True)
    except OSError as error:
        # What is left in the buffer must not be tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            msg = f"standard output cannot be written: {error.strerror}"
            raise CoresizeError(msg) from None


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def move_up(lines: int) -> None:
    """Let what comes next stand over so many lines of a terminal.

    ECMA-48: CPL moves up, ED erases what is below.
    """
    print(f"\x1b[{lines}F\x1b[J", end="")


def _printable(text: str, stream: TextIO) -> str:
    """With escapes for what would steer a terminal or cannot be encoded."""
    shown = "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
    encoding = stream.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)
