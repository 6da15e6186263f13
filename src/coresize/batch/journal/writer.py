"""Writes the journal of a batch: every task that has ended, in one SQLite file.

The engine calls the writer in this order:

1. Open: lock the file, then create the tables and the identity of the run in one
   transaction, or check the identity that is there.
2. `note_items`: the number of items; none if the input has no length. It is written
   again when the input has been read to its end.
3. `take`, for each item: return the row of an earlier start, if there is one. A new
   task is noted in memory only; a new place in the input waits for the next commit.
4. `write`, in one commit: all tasks that have ended, 0.05 s after the last commit, or
   sooner if no task is in flight. The engine reports the outcomes after the commit.
5. `expect`, about once a second and at the end: the tasks that were taken and have not
   ended, with status NULL. A merge names them as tasks that have not ended.
6. `close`: commit, close the file, then unlock it.

Tasks that ended because the run was stopped or its executor broke are not written.

After a crash at any moment, every other outcome that was reported is in the journal,
and the next start reports it without running the task again (unless its status is
"cancelled" or in ``retry``). A task that was not committed runs again; a task may run
twice, but has one row, since the key is unique. A crash in the middle of a commit
leaves SQLite's rollback journal (``-journal``), from which the next process that opens
the file, even a reader, undoes the commit. So readers do not open the file read-only. A
crash before the first commit leaves a file without tables, which the next start takes
as a new journal.

One process writes; any number may read meanwhile (``coresize status``, a merge). Two
locks of the system keep other writers out, but no reader, until the writer closes the
file or its process ends (`locks`). A commit and a read wait for each other by the locks
of SQLite, for 60 s at most. ``synchronous = FULL`` makes a commit wait for the disk.
There is no write-ahead log, since it does not work on the file systems that clusters
share (SQLite, "Write-Ahead Logging", disadvantage 2). The rollback journal is truncated
after each commit, and removed when the file is closed.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coresize import storage
from coresize.batch.journal import schema
from coresize.batch.journal.locks import Lock
from coresize.batch.journal.schema import Identity
from coresize.batch.outcomes import Outcome
from coresize.batch.task import too_long
from coresize.errors import CoresizeError, JournalError
from coresize.processes.transfer import TransferError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

#: The most seconds to wait for a process that is reading the file.
_PATIENCE = 60.0

#: The most tasks of earlier starts that are read at once.
_BLOCK = 500

#: The function that decodes a value, by serializer.
DECODERS: dict[str, Callable[[Any], object]] = {
    "json": json.JSONDecoder().decode,
    "pickle": pickle.loads,
}


#: The most bytes of a row without its value and its texts.
_HEAD = 1000

#: The most bytes of a character in UTF-8.
_WIDEST = 4


class _Ahead:
    """The rows of earlier starts, read in blocks, in the order of writing.

    The order of the input is nearly the same; if the input has changed, blocks shrink.
    """

    def __init__(self, file: sqlite3.Connection, path: str) -> None:
        self._file = file
        self._path = path
        self._rows: dict[str, tuple[Any, ...]] = {}
        self._end = self._size = 0

    def take(self, key: str) -> tuple[Any, ...] | None:
        """The place in the input and the result of a task, or None; once."""
        row = self._rows.pop(key, None)
        return self._find(key) if row is None else row

    def _find(self, key: str) -> tuple[Any, ...] | None:
        with schema.explained(self._path):
            found = self._file.execute(schema.RECALL, (key,)).fetchone()
            if found is None:
                return None
            if found[0] > self._end:
                self._read(found[0])
            return self._checked(found)

    def _read(self, last: int) -> None:
        in_vain = len(self._rows) > self._size // 2
        self._size = self._size // 4 if in_vain else min(2 * self._size + 1, _BLOCK)
        rows = self._file.execute(schema.NEXT, (last, self._size)).fetchall()
        self._rows = {row[1]: self._checked(row) for row in rows}
        self._end = rows[-1][0] if rows else last

    def _checked(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The place in the input and the result from a row that begins with its id."""
        schema.check_row(self._path, row[1:])
        return row[2:-1]


class Journal:
    """A journal that is open for writing.

    Args:
        path: the file; it is created if it does not exist.
        identity: the identity of the run.

    Raises:
        JournalError: the file belongs to another run, is in use by another run, is not
            a journal, or cannot be written.
    """

    def __init__(self, path: str, identity: Identity) -> None:
        self.path = path
        self._serializer = identity.serializer
        self._taken: dict[str, int] = {}
        with schema.explained(path):
            schema.refuse_odd(path)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(path)
            try:
                self._file, self._known = self._opened(identity)
            except BaseException:
                self._lock.close()
                raise

    def _opened(self, identity: Identity) -> tuple[sqlite3.Connection, _Ahead | None]:
        """The open file, and the rows of earlier starts, if there are any."""
        # A run may be read in another thread than the one that started it.
        where = storage.real_path(self.path)  # the working folder may change later
        file = sqlite3.connect(where, timeout=_PATIENCE, check_same_thread=False)
        self._limit = file.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
        try:
            file.execute("PRAGMA journal_mode = TRUNCATE")
            file.execute("PRAGMA synchronous = FULL")
            schema.prepare(file, self.path, identity)
            file.commit()
            known = _Ahead(file, self.path) if schema.has_tasks(file) else None
        except BaseException:
            file.close()
            raise
        return file, known

    def take(self, key: str, index: int) -> tuple[Any, ...] | None:
        """Note that a task is in the input; returns its earlier result, or None.

        Raises:
            JournalError: the file cannot be read.
        """
        if self._known:
            found = self._known.take(key)
            if found is not None:
                if found[0] != index:  # the input has changed
                    with schema.explained(self.path):
                        self._file.execute(schema.MOVE, (index, key))
                return found[1:]
        self._taken[key] = index
        return None

    def recalled(self, key: str, index: int, result: tuple[Any, ...]) -> Outcome:
        """The outcome of a task at an earlier start, from the result that `take` found.

        Raises:
            JournalError: the value cannot be decoded.
        """
        status, value, error, traceback, attempts, *numbers, worker = result
        peak, shared, wall, cpu, waited = numbers
        ok = status == "ok"
        if ok:
            value = decoded(self.path, key, value, self._serializer)
        return Outcome(
            key=key,
            index=index,
            status="skipped" if ok else status,
            value=value if ok else None,
            error=None if ok else CoresizeError(error),
            traceback=traceback,
            attempts=attempts,
            peak_memory=peak,
            shared_memory=shared,
            wall=wall,
            cpu=cpu,
            waited=waited,
            worker=worker,
        )

    def fitted(self, outcome: Outcome, value: Any) -> tuple[Outcome, Any]:
        """An outcome and its encoded value, or a failure if the row would be too long.

        Workers refuse values that are too long for any journal (`task.LONGEST`); this
        check is for an SQLite that was built with a lower limit.
        """
        size = _HEAD + _WIDEST * len(outcome.key) + len(value or "")
        if value is None or size <= self._limit:
            return outcome, value
        error = TransferError(too_long(size, self._limit))
        fields: dict[str, Any] = outcome.as_dict()
        fields |= {"status": "failed", "value": None}
        return Outcome(**{**fields, "error": error}), None

    def write(self, ended: Iterable[tuple[Outcome, object]]) -> None:
        """Write the outcomes of tasks, each with its encoded value, in one commit.

        Raises:
            JournalError: the file cannot be written; then no outcome is written.
        """
        now = time.time()
        rows = [_row(one, value, now) for one, value in ended]
        self._put(schema.END, rows)
        for row in rows:
            self._taken.pop(str(row[0]), None)

    def expect(self) -> None:
        """Write the tasks that were taken and have not ended.

        Raises:
            JournalError: the file cannot be written.
        """
        self._put(schema.EXPECT, list(self._taken.items()))
        self._taken.clear()

    def _put(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        with schema.explained(self.path):
            try:
                self._file.executemany(statement, rows)
                self._file.commit()
            except BaseException:
                self._file.rollback()
                raise

    def note_items(self, items: int | None) -> None:
        """Write the number of items of all shards; None if it is not known yet."""
        with schema.explained(self.path):
            schema.set_items(self._file, items)
            self._file.commit()

    def check_kept(self) -> None:
        """Check that the file still has a name.

        Raises:
            JournalError: the file was removed or replaced.
        """
        if self._lock.is_removed():
            raise JournalError(self.path, schema.MOVED)

    def close(self) -> None:
        """Commit, close the file, and unlock it for other runs."""
        with contextlib.suppress(sqlite3.Error):
            self._file.commit()
            self._file.execute("PRAGMA journal_mode = DELETE")
        self._file.close()
        self._lock.close()


def _row(one: Outcome, value: object, now: float) -> tuple[object, ...]:
    """A row of `schema.END`, with values that SQLite can hold.

    The key stays unchanged, since tasks are found by it; `keys.checked` has checked it.
    """
    told = (
        *(one.message, one.traceback, one.attempts),
        *(one.peak_memory, one.shared_memory),
        *(one.wall, one.cpu, one.waited, one.worker),
    )
    known = (one.key, one.index, one.status, value)
    return (*known, *map(schema.storable, told), now)


def decoded(path: str, key: str, value: Any, serializer: str) -> object:
    """The value of a task, decoded.

    Raises:
        JournalError: the value is not valid, or is a pickle that cannot be read here.
    """
    try:
        return DECODERS[serializer](value)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        what = f"the value of task {key!r} cannot be read: {text:.200}"
        raise schema.damaged(path, what) from error


def write_whole(
    path: str,
    identity: Identity,
    rows: Iterable[dict[str, object]],
    items: int | None,
) -> int:
    """Write a journal as of a run without shards; returns the number of tasks.

    Raises:
        JournalError: the file cannot be written; the old file is left.
    """
    fields: dict[str, Any] = identity.as_dict()
    whole = Identity(**{**fields, "shard": "0/1", "shard_by": "index"})
    with schema.explained(path), storage.replacing(path) as beside:
        with contextlib.closing(sqlite3.connect(beside.name)) as file:
            schema.prepare(file, path, whole)
            content = (tuple(row.values()) for row in rows)
            count = file.executemany(schema.END, content).rowcount
            if items is not None:
                schema.set_items(file, items)
            file.commit()
        return max(count, 0)
