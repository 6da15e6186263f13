"""The status file beside a journal: how far a run is, for those who only look."""

from __future__ import annotations

import contextlib
import json
import time

from coresize import processes, storage
from coresize.host import current


TYPE_CHECKING = False
if TYPE_CHECKING:
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
        with contextlib.suppress(OSError):  # the journal is what counts
            storage.replace(self._path, json.dumps(content) + "\n")


def paths(journal: str | None, named: str | None) -> list[str]:
    """Where the status is to be written: beside a journal, and at a second place."""
    return [*([journal + SUFFIX] if journal else []), *([named] if named else [])]


def read(path: str) -> dict[str, Any] | None:
    """What a status file says; None where there is none that can be read."""
    try:
        content = json.loads(storage.read(path))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
