"""The status file beside a journal: the progress of a run, for other programs."""

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
    """The status file of a run, beside its journal or at another path.

    Args:
        path: the file.
        shard: "i/n".
        journal: the journal of the run, if it has one.
    """

    def __init__(self, path: str, shard: str, journal: str | None = None) -> None:
        self._path = path
        self._known = {
            "shard": shard,
            "journal": journal and storage.real_path(journal),
            "pid": processes.own(),
            "host": current().hostname(),
            "started": time.time(),
        }

    def write(self, progress: Progress, state: str) -> None:
        """Replace the file, whole or not at all; leave it if it cannot be replaced.

        Args:
            progress: the progress of the run.
            state: "running", "done" or "stopped".
        """
        content = {
            "state": state,
            **progress.as_dict(),
            **self._known,
            "updated": time.time(),
        }
        # Errors are ignored: the journal matters. A pipe is refused, not waited for.
        with (
            contextlib.suppress(OSError, ValueError),
            storage.replacing(self._path) as file,
        ):
            file.write(json.dumps(content) + "\n")


def paths(journal: str | None, named: str | None) -> list[str]:
    """The paths of the status files: beside the journal, and a second, named one."""
    return [*([beside(journal)] if journal else []), *([named] if named else [])]


def beside(journal: str) -> str:
    """The path of the status file of a journal, the same for all symbolic links."""
    return storage.real_path(journal) + SUFFIX


def read(path: str) -> dict[str, Any] | None:
    """The content of a status file; None if there is no valid one.

    The file may be from any program: a field with a type or value that coresize never
    writes makes it invalid.
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


#: Bounds for the numbers in a status.
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


def _is_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


_FIELDS: dict[str, Callable[[object], bool]] = {
    "state": _is_text,
    "shard": _is_text,
    **dict.fromkeys(("host", "journal"), _or_none(_is_text)),
    **dict.fromkeys(("done", "failed", "workers"), _is_count),
    **dict.fromkeys(("total", "memory"), _or_none(_is_count)),
    "pid": _or_none(lambda value: _is_count(value) and value < _LARGEST_PID),  # type: ignore[operator]
    "counts": _or_none(_is_counts),
    "rate": _is_number,
    **dict.fromkeys(("eta", "updated"), _or_none(_is_number)),
}
