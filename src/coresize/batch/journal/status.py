"""The status file beside a journal: how far a run is, for those who only look."""

from __future__ import annotations

import contextlib
import json
import time

from coresize import processes, storage
from coresize.host import current


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from coresize.batch.progress import Progress

SUFFIX = ".status.json"


class StatusFile:
    """The file beside one journal, or where else it is wanted.

    Args:
        path: the file.
        shard: "i/n".
    """

    def __init__(self, path: str, shard: str) -> None:
        self._path = path
        self._known = {
            "shard": shard,
            "pid": processes.own(),
            "host": current().hostname(),
            "started": time.time(),
        }

    def write(self, progress: Progress, state: str) -> None:
        """Replace the file, whole or not at all; one that cannot be is left.

        Args:
            progress: how far it is.
            state: "running", "done" or "stopped".
        """
        content = {
            "state": state,
            **progress.as_dict(),
            **self._known,
            "updated": time.time(),
        }
        # The journal is what counts; and a pipe, as a status, is not waited for.
        with (
            contextlib.suppress(OSError, ValueError),
            storage.replacing(self._path) as file,
        ):
            file.write(json.dumps(content) + "\n")


def paths(journal: str | None, named: str | None) -> list[str]:
    """Where the status is to be written: beside a journal, and at a second place."""
    return [*([beside(journal)] if journal else []), *([named] if named else [])]


def beside(journal: str) -> str:
    """The status file of a journal, whatever that is called, and wherever one looks."""
    return storage.real_path(journal) + SUFFIX


def read(path: str) -> dict[str, Any] | None:
    """What a status file says; None where there is none that can be read.

    It may be of anybody, or half of another program: what is of no kind that is ever
    written there is no status.
    """
    try:
        content = json.loads(storage.read(path))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    wrong = [
        name for name, is_good in _FIELDS.items() if not is_good(content.get(name))
    ]
    return None if wrong else content


#: Numbers in a status are never larger.
_LARGEST = 2**63
_LARGEST_PID = 2**31


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1 < value < _LARGEST  # type: ignore[operator]


def _or_none(is_good: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_good(value)


_FIELDS: dict[str, Callable[[object], bool]] = {
    "state": _is_text,
    "shard": _is_text,
    "host": _or_none(_is_text),
    **dict.fromkeys(("done", "failed", "workers"), _is_count),
    **dict.fromkeys(("total", "memory"), _or_none(_is_count)),
    "pid": _or_none(lambda value: _is_count(value) and value < _LARGEST_PID),  # type: ignore[operator]
    "rate": _is_number,
    **dict.fromkeys(("eta", "updated"), _or_none(_is_number)),
}
