"""The progress of runs, from their journals and status files."""

from __future__ import annotations

import contextlib
import time

from coresize import processes
from coresize.batch.journal import reader, schema, status
from coresize.batch.journal.locks import is_locked
from coresize.batch.outcomes import BAD
from coresize.errors import JournalError
from coresize.host import current
from coresize.model import Value
from coresize.texts import cut, cut_start, format_left, one_line, width
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

#: Seconds after which a run that has not updated its status is "silent".
_SILENT = 60.0


class RunStatus(Value):
    """The progress of one run.

    Attributes:
        path: the journal or status file of the run.
        shard: "i/n".
        state: "running", "done", "stopped" (it can be continued), "killed" (its process
            is gone), "silent" (no status for a minute), "starting" (no status yet), or
            "unknown".
        done: number of tasks that have ended.
        total: number of all tasks; None if that is not known.
        failed: number of tasks that have failed.
        rate: tasks per second.
        eta: seconds that are left; None if that is not known.
        workers: number of workers.
        memory: bytes that the run and its workers hold; None if that is not known.
        pid: the process of the run, or None.
        host: the machine, or "".
    """

    path: str
    shard: str
    state: str
    done: int
    total: int | None
    failed: int
    rate: float
    eta: float | None
    workers: int
    memory: int | None
    pid: int | None
    host: str


def look(path: str) -> RunStatus:
    """The progress of a run.

    Args:
        path: the journal or the status file of the run.

    Raises:
        JournalError: there is no such file, or the file is neither of these.
    """
    is_status = path.endswith(status.SUFFIX)
    with schema.explained(path):
        found = status.read(path if is_status else status.beside(path))
    if found is None:
        try:
            return _of_journal(path)
        except JournalError as error:
            if not is_status:
                raise
            reason = f"it is no status file of coresize, and no journal: {error.reason}"
            raise JournalError(path, reason) from None
    return _of_status(path, found)


def _of_status(path: str, found: dict[str, Any]) -> RunStatus:
    found = newest(path, found)
    fields: dict[str, Any] = {name: found.get(name) for name in RunStatus.__slots__}
    return RunStatus(**{**fields, "path": path})


def newest(path: str, found: dict[str, Any]) -> dict[str, Any]:
    """A status as of now: of a run that was killed, the journal is newer.

    Args:
        path: the journal or the status file.
        found: the content of the status file.
    """
    found = {**found, "state": _state(found)}
    if found["state"] == "killed":
        journal = found.get("journal") or path.removesuffix(status.SUFFIX)
        with contextlib.suppress(JournalError):
            found.update(_counted(reader.count(journal)))
    return found


def _state(found: dict[str, Any]) -> str:
    state = str(found.get("state"))
    if state != "running":
        return state
    here = found.get("host") == current().hostname()
    if here and not processes.is_alive(found["pid"] or 0):
        return "killed"
    silent = time.time() - (found["updated"] or 0) > _SILENT
    return "silent" if silent else state


def _of_journal(path: str) -> RunStatus:
    starting = is_locked(path)
    try:
        identity, items = reader.describe(path)
        counts = reader.count(path)
    except JournalError:
        if not starting:
            raise
        return _row(path, "-", "starting", {}, None)
    total = items if identity.shard == "0/1" else None
    ended = total is not None and _counted(counts)["done"] >= total
    state = "starting" if starting else "done" if ended else "unknown"
    return _row(path, identity.shard, state, counts, total)


def _counted(counts: Mapping[str | None, int]) -> dict[str, int]:
    """The numbers of tasks that have ended, and that have failed."""
    return {
        "done": sum(number for name, number in counts.items() if name is not None),
        "failed": sum(counts.get(name, 0) for name in BAD),
    }


def _row(
    path: str,
    shard: str,
    state: str,
    counts: Mapping[str | None, int],
    total: int | None,
) -> RunStatus:
    return RunStatus(
        path=path,
        shard=shard,
        state=state,
        total=total,
        **_counted(counts),
        rate=0.0,
        eta=None,
        workers=0,
        memory=None,
        pid=None,
        host="",
    )


def journals_of(paths: Sequence[str]) -> list[str]:
    """The paths, without those of the files that belong to a journal in the list.

    >>> journals_of(["a", "a.lock", "a.status.json", "b.status.json"])
    ['a', 'b.status.json']
    """
    given = set(paths)
    return [
        path
        for path in dict.fromkeys(paths)
        if not path.endswith(".lock")
        and not any(
            path.endswith(suffix) and path.removesuffix(suffix) in given
            for suffix in (status.SUFFIX, "-journal")
        )
    ]


_HEAD = ("SHARD", "STATE", "DONE", "FAILED", "RATE", "ETA", "MEMORY", "PID", "RUN")


def table(rows: Sequence[RunStatus], most: int | None = None) -> str:
    """The progress of several runs as a table for a terminal of so many columns."""
    return columns([_HEAD, *(_cells(row) for row in rows)], most)


def _cells(row: RunStatus) -> tuple[str, ...]:
    running = row.state == "running"
    return (
        row.shard,
        row.state,
        f"{row.done}" + ("" if row.total is None else f"/{row.total}"),
        str(row.failed),
        f"{row.rate:.1f}/s" if row.rate else "-",
        format_left(row.eta) if running and row.eta is not None else "-",
        format_bytes(row.memory) if running and row.memory else "-",
        f"{row.pid}@{row.host}" if running else "-",
        row.path,
    )


def columns(rows: Sequence[Sequence[str]], most: int | None = None) -> str:
    """Rows of cells as lines; each column is as wide as its widest cell.

    Args:
        rows: the rows, all of the same length.
        most: the columns of the terminal; the beginning of the last cell, which is a
            path, and then the end of a line are cut. None cuts nothing.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    if most is not None:
        left = most - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
        widths[-1] = max(len(rows[0][-1]), min(widths[-1], left))
        rows = [[*row[:-1], cut_start(row[-1], widths[-1])] for row in rows]
    lines = (
        _GAP.join(
            cell + " " * (wide - width(cell))
            for cell, wide in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )
    return "\n".join(line if most is None else cut(line, most) for line in lines)


_GAP = "  "
