"""Standard error as people watch it: lines, and a bar where there is room for one.

Whether anybody can see them is nothing that a run depends on: what cannot be written,
as the disk is full or the reader has gone, is left out.
"""

from __future__ import annotations

import contextlib
import os
import sys


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO


def say(line: object) -> None:
    """A line to standard error, if there is one that can be written."""
    if sys.stderr is not None:
        with unhurt():
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - it was asked for


@contextlib.contextmanager
def unhurt() -> Iterator[None]:
    """Errors of writing to standard error do no harm."""
    try:
        yield
    except (OSError, ValueError):  # or it has been closed
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Empty the buffer of a stream that cannot be written.

    Python would try again when the program ends, and end with status 120.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()
        kept = os.dup(number)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, number)
            stream.flush()
        finally:
            os.dup2(kept, number)
            os.close(kept)
            os.close(nowhere)


def bar(total: int | None) -> Any:
    """A bar of tqdm, where there is a terminal, and it is installed; else None."""
    if not _has_room():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    try:
        return tqdm(total=total, unit="task", smoothing=0.1)
    except OSError:
        discard(sys.stderr)
        return None


def _has_room() -> bool:
    """Whether standard error is a terminal, and has rows and columns."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        return all(os.get_terminal_size(sys.stderr.fileno()))
    except OSError:  # one that does not tell
        return True
