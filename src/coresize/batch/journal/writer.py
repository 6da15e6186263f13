"""The journal of a batch: every task that has ended, in one SQLite file.

Rule 1: what is reported is written, durably, before. Rule 2: many ends are written in
one commit, as many as have come while the last was written. Rule 3: rollback journals
and no write-ahead log, which does not work on the file systems that clusters share
(SQLite, "Write-Ahead Logging", disadvantage 2). Rule 4: one writer: it holds a lock,
of the system, which ends with its process.
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

#: Seconds to wait for somebody who reads the file at the moment.
_PATIENCE = 60.0

#: Tasks of earlier starts that are read at once.
_BLOCK = 500

#: How values come back, by the serializer that wrote them.
DECODERS: dict[str, Callable[[Any], object]] = {
    "json": json.JSONDecoder().decode,
    "pickle": pickle.loads,
}


#: Bytes of a row that are neither its value nor one of its texts, at most.
_HEAD = 1000

#: Bytes that a character takes in UTF-8, at most.
_WIDEST = 4


class _Ahead:
    """What is known of tasks, read in blocks in the order that it was written.

    That is nearly the order of the input, unless that has changed: then blocks shrink.
    """

    def __init__(self, file: sqlite3.Connection, path: str) -> None:
        self._file = file
        self._path = path
        self._rows: dict[str, tuple[Any, ...]] = {}
        self._end = self._size = 0

    def take(self, key: str) -> tuple[Any, ...] | None:
        """The place in the input and the result of one task, once."""
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
        """The place in the input and the result, of a row with its number."""
        schema.check_row(self._path, row[1:])
        return row[2:-1]


class Journal:
    """A journal that is open for writing.

    Args:
        path: the file; it is made where it is not there.
        identity: whose run it is.

    Raises:
        JournalError: it is of another run, in use by another process, no journal, or
            cannot be written.
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
        """The file, and what is known of tasks, if anything is."""
        # A run may be read in another thread than the one that began it.
        where = storage.real_path(self.path)  # the folder may be another later
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
        """Take note that a task is in the input; its result, if anything is known.

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
        """What became of a task at an earlier start, of what is written about it.

        Raises:
            JournalError: its value cannot be read.
        """
        status, value, error, traceback, attempts, peak, *times, worker = result
        wall, cpu, waited = times
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
            wall=wall,
            cpu=cpu,
            waited=waited,
            worker=worker,
        )

    def fitted(self, outcome: Outcome, value: Any) -> tuple[Outcome, Any]:
        """An outcome and its value as written, or a failure where no row holds that.

        Workers refuse what is too long for every journal (`task.LONGEST`); this is for
        an SQLite that was built to hold less.
        """
        size = _HEAD + _WIDEST * len(outcome.key) + len(value or "")
        if value is None or size <= self._limit:
            return outcome, value
        error = TransferError(too_long(size, self._limit))
        fields: dict[str, Any] = outcome.as_dict()
        fields |= {"status": "failed", "value": None}
        return Outcome(**{**fields, "error": error}), None

    def write(self, ended: Iterable[tuple[Outcome, object]]) -> None:
        """Write what became of tasks, each with its value as written.

        Raises:
            JournalError: the file cannot be written; then none of them is.
        """
        now = time.time()
        rows = [_row(one, value, now) for one, value in ended]
        self._put(schema.END, rows)
        for row in rows:
            self._taken.pop(str(row[0]), None)

    def expect(self) -> None:
        """Write which tasks were taken and have not ended.

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
        """Note how many items there are in all; None where that is not known yet."""
        with schema.explained(self.path):
            schema.set_items(self._file, items)
            self._file.commit()

    def check_kept(self) -> None:
        """See that what was written can be found.

        Raises:
            JournalError: the file was removed, or another took its place.
        """
        if self._lock.is_removed():
            raise JournalError(self.path, schema.MOVED)

    def close(self) -> None:
        """Leave the file to others."""
        with contextlib.suppress(sqlite3.Error):
            self._file.commit()
            self._file.execute("PRAGMA journal_mode = DELETE")
        self._file.close()
        self._lock.close()


def _row(one: Outcome, value: object, now: float) -> tuple[object, ...]:
    """A row of `schema.END`, in which there is nothing that SQLite cannot hold.

    A key is such a text already (`keys.checked`), and found again only as it is.
    """
    told = (
        *(one.message, one.traceback, one.attempts, one.peak_memory),
        *(one.wall, one.cpu, one.waited, one.worker),
    )
    known = (one.key, one.index, one.status, value)
    return (*known, *map(schema.storable, told), now)


def decoded(path: str, key: str, value: Any, serializer: str) -> object:
    """A value as it was before it was written.

    Raises:
        JournalError: it is no such text, or a pickle that cannot be read here.
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
    """A journal of all shards, as if there had been one; returns how many tasks.

    Raises:
        JournalError: it cannot be written; what was there before is left.
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
