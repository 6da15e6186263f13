"""Standard error as people watch it: lines, and a bar where there is room for one."""

from __future__ import annotations

import os
import sys


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def say(line: object) -> None:
    """A line to standard error, if there is one."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - it was asked for


def bar(total: int | None) -> Any:
    """A bar of tqdm, where there is a terminal, and it is installed; else None."""
    if not _has_room():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit="task", smoothing=0.1)


def _has_room() -> bool:
    """Whether standard error is a terminal, and has rows and columns."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        return all(os.get_terminal_size(sys.stderr.fileno()))
    except OSError:  # one that does not tell
        return True
