"""Standard input, output and error of the command."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys

from coresize.batch import progress
from coresize.errors import CoresizeError
from coresize.texts import cut, decode, one_line, rows_of


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
    return _write(lambda stream: _put(_printable(text, stream) + end, stream))


def write_exactly(text: str) -> bool:
    """Write a text for another program, byte for byte, as `write` does.

    Raises:
        CoresizeError: standard output is closed, or cannot be written.
    """

    def write_bytes(stream: TextIO) -> None:
        stream.buffer.write(os.fsencode(text))
        stream.flush()

    return _write(write_bytes)


def _put(text: str, stream: TextIO) -> None:
    print(text, end="", file=stream, flush=True)


def _write(write: Callable[[TextIO], object]) -> bool:
    if sys.stdout is None:
        msg = "standard output is closed"
        raise CoresizeError(msg)
    try:
        write(sys.stdout)
    except OSError as error:
        _divert(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            msg = f"standard output cannot be written: {error.strerror}"
            raise CoresizeError(msg) from None
        _Reader.has_gone = True
    return not _Reader.has_gone


def write_row(text: str) -> bool:
    """Write a line of a table, as `write` does; at a terminal it is one row."""
    most = columns()
    return write(text if most is None else cut(text, most))


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
    """Whether standard output is a terminal whose cursor can be moved."""
    if os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def size() -> tuple[int, int] | None:
    """The columns and lines of the terminal now; None if output is no terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    # COLUMNS and LINES come last: they stay as they are when the terminal is resized.
    with contextlib.suppress(OSError):
        found = os.get_terminal_size(sys.stdout.fileno())
        if all(found):
            return found.columns, found.lines
    found = shutil.get_terminal_size((80, 24))
    return found.columns, found.lines


def columns() -> int | None:
    """The columns of the terminal now; None for a pipe or a file, which has none."""
    found = size()
    return None if found is None else found[0]


def redraw(last: str, text: str, *, whole: bool = False) -> str:
    """Overwrite a text at a terminal by another one.

    A line takes several rows by now if the terminal has become narrower, as most
    terminals wrap their lines anew. In one that cuts them, as xterm does, so many rows
    above the text are erased too. ECMA-48: CPL moves up, EL erases a row, ED the rows
    below; ED comes last, as tmux keeps a copy of a screen that is erased as a whole.

    Args:
        last: the text that is there, as this function returned it; "" if none is.
        text: the new text.
        whole: the text is the last one. Otherwise, if it has more lines than the
            terminal, its end is left out: the cursor could not return to its beginning.

    Returns:
        The text that was written.

    Raises:
        CoresizeError: standard output is closed, or cannot be written.
    """
    wide, high = size() or (80, 24)
    lines = text.split("\n")
    if len(lines) >= high and not whole:
        kept = max(1, high - 2)
        lines = [*lines[:kept], cut(f"... and {len(lines) - kept} more", wide)]
    up = ""
    if last:
        rows = sum(rows_of(line, wide) for line in last.split("\n"))
        up = f"\x1b[{min(rows, high - 1)}F"
    drawn = "".join(f"\x1b[K{_printable(line, sys.stdout)}\n" for line in lines)
    _write(lambda stream: _put(f"{up}{drawn}\x1b[J", stream))
    return "\n".join(lines)


def _printable(text: str, stream: TextIO | None) -> str:
    """Escape characters that would control a terminal or cannot be encoded."""
    shown = "\n".join(map(one_line, text.split("\n")))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)
