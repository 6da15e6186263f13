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
from typing import TYPE_CHECKING

from coresize import storage
from coresize.batch import schema
from coresize.batch.outcomes import Outcome
from coresize.batch.schema import Identity, JournalError
from coresize.errors import CoresizeError
from coresize.model import Value


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from coresize.batch.outcomes import Status

#: Seconds to wait for somebody who reads the file at the moment.
_PATIENCE = 60.0

#: How values come back, by the serializer that wrote them.
DECODERS: dict[str, Callable[[Any], object]] = {
    "json": json.loads,
    "pickle": pickle.loads,
}


class Record(Value):
    """What is known of a task of an earlier start.

    Attributes:
        status: what became of it; None where it had not ended.
        value: as it was written.
        error: the error's text.
        traceback: of the error.
        attempts: how often it was started.
        peak_memory: bytes, or None.
        wall: seconds.
        cpu: seconds.
        worker: what ran it.
    """

    __slots__ = schema.RESULT

    status: Status | None
    value: Any
    error: str
    traceback: str
    attempts: int
    peak_memory: int | None
    wall: float
    cpu: float
    worker: str

    def outcome(self, key: str, index: int, serializer: str) -> Outcome:
        """What became of the task then."""
        assert self.status is not None
        ok = self.status == "ok"
        return Outcome(
            key=key,
            index=index,
            status="skipped" if ok else self.status,
            value=DECODERS[serializer](self.value) if ok else None,
            error=None if ok else CoresizeError(self.error),
            traceback=self.traceback,
            attempts=self.attempts,
            peak_memory=self.peak_memory,
            wall=self.wall,
            cpu=self.cpu,
            worker=self.worker,
        )


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
        self._taken: dict[str, int] = {}
        with _explained(path):
            storage.make_folder_of(path)
            self._lock = _locked(path)
            try:
                self._file = self._opened(identity)
                self._known = schema.has_tasks(self._file)
            except BaseException:
                self._lock.close()
                raise

    def _opened(self, identity: Identity) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=_PATIENCE)
        try:
            file.execute("PRAGMA journal_mode = TRUNCATE")
            file.execute("PRAGMA synchronous = FULL")
            schema.prepare(file, self.path, identity)
            file.commit()
        except BaseException:
            file.close()
            raise
        return file

    def take(self, key: str, index: int) -> Record | None:
        """Take note that a task is in the input; what is known of it, if anything is.

        Raises:
            JournalError: the file cannot be read.
        """
        if self._known:
            with _explained(self.path):
                found = self._file.execute(schema.RECALL, (key,)).fetchone()
                if found is not None:
                    if found[0] != index:  # the input has changed
                        self._file.execute(schema.MOVE, (index, key))
                    return Record(**dict(zip(schema.RESULT, found[1:], strict=True)))
        self._taken[key] = index
        return None

    def write(self, ended: Iterable[tuple[Outcome, object]]) -> None:
        """Write what became of tasks, each with its value as written.

        And of those that were taken and have not ended that they are expected.

        Raises:
            JournalError: the file cannot be written; then none of them is.
        """
        now = time.time()
        rows = [
            (
                *(one.key, one.index, one.status, value, _text_of(one.error)),
                *(one.traceback, one.attempts, one.peak_memory, one.wall, one.cpu),
                *(one.worker, now),
            )
            for one, value in ended
        ]
        for row in rows:
            self._taken.pop(row[0], None)
        with _explained(self.path):
            try:
                self._file.executemany(schema.END, rows)
                self._file.executemany(schema.EXPECT, self._taken.items())
                self._file.commit()
            except BaseException:
                self._file.rollback()
                raise
        self._taken.clear()

    def finish(self, items: int) -> None:
        """Note how many items there are in all, once that is known."""
        with _explained(self.path):
            schema.set_items(self._file, items)
            self._file.commit()

    def close(self) -> None:
        """Leave the file to others."""
        with contextlib.suppress(sqlite3.Error):
            self._file.commit()
            self._file.execute("PRAGMA journal_mode = DELETE")
        self._file.close()
        self._lock.close()


def _text_of(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"


def _locked(path: str) -> sqlite3.Connection:
    """A lock that ends with this process; SQLite knows how on every system.

    Raises:
        JournalError: another process has it.
    """
    lock = sqlite3.connect(f"{path}.lock", isolation_level=None, timeout=0)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        reason = "another process is writing to it; wait for it, or take another file"
        raise JournalError(path, reason) from None
    return lock


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Errors of SQLite and of the system as such of the journal."""
    try:
        yield
    except CoresizeError:
        raise
    except sqlite3.Error as error:
        raise JournalError(path, _reason(error)) from error
    except OSError as error:
        raise JournalError(path, error.strerror or str(error)) from error


_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room and start again: what was "
    "reported is safe",
    sqlite3.SQLITE_NOTADB: "it is no SQLite file",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; is the folder there, and writable?",
}


def _reason(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0)
    # The lower byte is the primary code (SQLite, "Result and Error Codes").
    return _REASONS.get(code & 0xFF, f"{error}")


def describe(path: str) -> tuple[Identity, int | None]:
    """Whose run a journal is of, and how many items the whole input has, if known.

    Raises:
        JournalError: it is no journal, or cannot be read.
    """
    with _explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        return schema.identity_of(file, path), schema.items_of(file)


def count(path: str) -> dict[str | None, int]:
    """How many tasks are in a journal, by status.

    Raises:
        JournalError: it is no journal, or cannot be read.
    """
    with _explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        schema.identity_of(file, path)
        return dict(file.execute("SELECT status, count(*) FROM tasks GROUP BY status"))


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
    whole = Identity(**{**identity.as_dict(), "shard": "0/1"})  # type: ignore[arg-type]
    with _explained(path), storage.replacing(path) as beside:
        with contextlib.closing(sqlite3.connect(beside.name)) as file:
            schema.prepare(file, path, whole)
            content = (tuple(row.values()) for row in rows)
            count = file.executemany(schema.END, content).rowcount
            if items is not None:
                schema.set_items(file, items)
            file.commit()
        return max(count, 0)


def read(path: str) -> Iterator[dict[str, object]]:
    """The tasks in a journal by the names of its columns, in the order of the input.

    Raises:
        JournalError: it is no journal, or cannot be read.
    """
    with _explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        for row in file.execute(schema.ALL):
            yield dict(zip(schema.COLUMNS, row, strict=True))
