"""The content of a journal: its tables, the identity of its run, and its errors."""

from __future__ import annotations

import functools
import os
import sqlite3
from pathlib import Path

from coresize import storage, texts
from coresize.batch.outcomes import STATUSES
from coresize.errors import ConfigError, JournalError
from coresize.model import VERSION, Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

#: "core" in ASCII, the application id in the header of the SQLite file.
_APPLICATION = 0x636F7265
_FORMAT = 2

#: The columns that a task has after it has ended.
RESULT = (
    "status",
    "value",
    "error",
    "traceback",
    "attempts",
    "peak_memory",
    "shared_memory",
    "wall",
    "cpu",
    "waited",
    "worker",
)
COLUMNS = ("key", "item", *RESULT, "ended")

_TABLES = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    item INTEGER NOT NULL,  -- place in the input, from 0
    status TEXT,            -- NULL: it has not ended
    value,                  -- TEXT: JSON. BLOB: a pickle
    error TEXT NOT NULL DEFAULT '',
    traceback TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    peak_memory INTEGER,    -- bytes
    wall REAL NOT NULL DEFAULT 0,   -- seconds
    cpu REAL NOT NULL DEFAULT 0,    -- seconds
    waited REAL NOT NULL DEFAULT 0, -- seconds
    worker TEXT NOT NULL DEFAULT '',
    ended REAL,             -- seconds since 1970
    shared_memory INTEGER   -- bytes
);
"""
#: The columns that a journal of an earlier coresize lacks, with their types.
_ADDED = {"shared_memory": "INTEGER"}
_HEAD = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_FORMAT};"

_TOLD = f"SELECT id, {', '.join(COLUMNS)} FROM tasks"  # noqa: S608
RECALL = f"{_TOLD} WHERE key = ?"
NEXT = f"{_TOLD} WHERE id > ? ORDER BY id LIMIT ?"
EXPECT = "INSERT INTO tasks (key, item) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
MOVE = "UPDATE tasks SET item = ? WHERE key = ?"
_NEW = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
END = f"""INSERT INTO tasks ({", ".join(COLUMNS)})
VALUES ({", ".join("?" * len(COLUMNS))})
ON CONFLICT (key) DO UPDATE SET {_NEW}"""  # noqa: S608
ALL = f"SELECT {', '.join(COLUMNS)} FROM tasks ORDER BY item, key"  # noqa: S608


class Identity(Value):
    """The identity of a run: fields that must be equal to continue or merge a journal.

    Attributes:
        function: the module and name of the function.
        parameters: a hash of the arguments that are bound to the function.
        shard: "i/n".
        shard_by: "index" or "key".
        serializer: how values are encoded.
    """

    function: str
    parameters: str
    shard: str
    shard_by: str
    serializer: str


#: A description of the parameters for messages; a journal has only their hash.
BOUND = "arguments bound to its function (functools.partial)"

_KEPT = Identity.__slots__

#: The ways to encode values.
SERIALIZERS = ("json", "pickle")
_HINTS = {
    "function": "take another file for another function",
    "parameters": "take another file for other arguments",
    "serializer": "the one it was begun with",
}


def prepare(file: sqlite3.Connection, path: str, identity: Identity) -> None:
    """Create the tables in a new file, or check that the file belongs to this run.

    Raises:
        JournalError: the file belongs to another run.
    """
    if file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        file.executescript(f"BEGIN; {_TABLES} {_HEAD}")  # all of it or nothing
        rows: list[tuple[str, object]] = [*identity.as_dict().items()]
        rows.append(("coresize", VERSION))
        file.executemany("INSERT INTO run VALUES (?, ?)", rows)
        return
    there = identity_of(file, path)
    for name in _KEPT:
        old, new = getattr(there, name), getattr(identity, name)
        if old != new:
            hint = _HINTS.get(name, "each shard has a file of its own")
            what = f"it is of {name} {old!r}, not {new!r}"
            if name == "parameters":  # a hash says nothing to a person
                what = f"it has other {BOUND}"
            raise JournalError(path, f"{what}: {hint}")
    for name in _lacking(file):
        file.execute(f"ALTER TABLE tasks ADD COLUMN {name} {_ADDED[name]}")


def _lacking(file: sqlite3.Connection) -> list[str]:
    """The columns of `_ADDED` that the table of tasks lacks, if there is one."""
    there = {row[1] for row in file.execute("PRAGMA table_info(tasks)")}
    return [name for name in _ADDED if there and name not in there]


def identity_of(file: sqlite3.Connection, path: str) -> Identity:
    """The identity of the run of a journal.

    Raises:
        JournalError: the file is not a journal, is damaged, or has another format.
    """
    if file.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise JournalError(path, "it is an SQLite file, but no journal of coresize")
    version = file.execute("PRAGMA user_version").fetchone()[0]
    if version != _FORMAT:
        newer = "update coresize" if version > _FORMAT else "take another file"
        reason = f"it is of format {version}, and {_FORMAT} is known: {newer}"
        raise JournalError(path, reason)
    rows = dict(file.execute("SELECT name, value FROM run"))
    fields: dict[str, Any] = {name: rows.get(name) for name in _KEPT}
    told = all(isinstance(value, str) for value in fields.values())
    if not (told and fields["serializer"] in SERIALIZERS):
        raise damaged(path, f"it does not tell whose run it is, but {fields}")
    return Identity(**fields)


def has_tasks(file: sqlite3.Connection) -> bool:
    """Whether a journal has any task."""
    return file.execute("SELECT 1 FROM tasks LIMIT 1").fetchone() is not None


def set_items(file: sqlite3.Connection, items: int | None) -> None:
    """Store the number of items of all shards; None if it is not known."""
    if items is None:
        file.execute("DELETE FROM run WHERE name = 'items'")
    else:
        file.execute("INSERT OR REPLACE INTO run VALUES ('items', ?)", (str(items),))


def items_of(file: sqlite3.Connection, path: str) -> int | None:
    """The number of items of all shards; None if the input was not read to its end.

    Raises:
        JournalError: the file is damaged.
    """
    found = file.execute("SELECT value FROM run WHERE name = 'items'").fetchone()
    if found is None:
        return None
    text = str(found[0])
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(_LARGEST))):
        raise damaged(path, f"its input has {text:.40} items")
    return int(text)


# --- The check of rows --------------------------------------------------------------
#
# A journal may come from anyone, and SQLite stores any type of value in any column. So
# each row is checked when it is read: a wrong value is reported as an error of the
# file, and not as an error of the code that would use the value.

#: The largest number that SQLite holds.
_LARGEST = 2**63 - 1


def storable(value: object) -> object:
    r"""The value that SQLite can hold and that is nearest to this one.

    >>> storable(2**70) == 2**63 - 1, storable(float("nan")), storable("\ud800")
    (True, 0.0, '\\ud800')
    """
    if isinstance(value, str):
        return texts.storable(value)
    if isinstance(value, int):
        return max(-_LARGEST, min(value, _LARGEST))
    return 0.0 if value != value else value  # noqa: PLR0124 - not a number


_TEXT, _WHOLE, _NUMBER = (str,), (int,), (float, int)
_NONE = (type(None),)
_ROW: dict[str, tuple[type, ...]] = {
    "key": _TEXT,
    "item": _WHOLE,
    "status": _TEXT + _NONE,
    "value": (*_TEXT, bytes, *_NONE),
    "error": _TEXT,
    "traceback": _TEXT,
    "attempts": _WHOLE,
    "peak_memory": _WHOLE + _NONE,
    "shared_memory": _WHOLE + _NONE,
    "wall": _NUMBER,
    "cpu": _NUMBER,
    "waited": _NUMBER,
    "worker": _TEXT,
    "ended": _NUMBER + _NONE,
}


@functools.lru_cache(maxsize=100)
def _wrong(kinds: tuple[type, ...]) -> str | None:
    """The first column whose value has a type that coresize never writes, or None."""
    columns = zip(COLUMNS, kinds, strict=True)
    return next((name for name, kind in columns if kind not in _ROW[name]), None)


def check_row(path: str, row: tuple[Any, ...]) -> None:
    """Check that coresize may have written a row of `COLUMNS`.

    Raises:
        JournalError: the row has a value that coresize never writes.
    """
    name = _wrong(tuple(map(type, row)))
    if name:
        value = row[COLUMNS.index(name)]
        raise damaged(path, f"the {name} of a task is {value!r:.80}")
    item, status = row[1], row[2]
    if item < 0 or not (status is None or status in STATUSES):
        raise damaged(path, f"a task is {status!r:.80}, of item {item}")


def row_of(path: str, row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of `ALL` by the names of its columns, after a check.

    Raises:
        JournalError: the row has a value that coresize never writes.
    """
    check_row(path, row)
    return dict(zip(COLUMNS, row, strict=True))


def damaged(path: str, what: str) -> JournalError:
    """The error for a journal with content that coresize never writes."""
    hint = "take a copy that is whole, or another file to begin anew"
    return JournalError(path, f"it is damaged ({what}): {hint}")


# --- Opening ------------------------------------------------------------------------


def check_path(name: str, path: Any) -> str:
    """The path of a journal that a caller gave, as text.

    Args:
        name: the name of the argument.
        path: the path.

    Raises:
        ConfigError: SQLite would take the path for something other than a file, or the
            path names a folder or nothing.
    """
    text = storage.check_path(name, path)
    if text.endswith(("/", os.sep)):
        raise ConfigError(name, text, "the path of a file: that of a folder ends so")
    if text == ":memory:" or text.startswith("file:"):
        allowed = "the path of a file: what is not in a file is lost at the end"
        raise ConfigError(name, text, allowed)
    return text


#: Names that mean a different file in each process, even if that file is plain.
_STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")


def refuse_odd(path: str) -> None:
    """Check that a path leads to a plain file, or to no file yet.

    Raises:
        JournalError: the path leads to something else, which stores nothing or hangs.
        OSError: the path cannot be examined.
    """
    stream = os.path.abspath(path).startswith(_STREAMS)  # noqa: PTH100 - links stay
    kind = "a stream of this process" if stream else storage.oddity(path)
    if kind:
        raise JournalError(
            path, f"it cannot be opened: it is {kind}, and no plain file"
        )


def open_to_read(path: str) -> sqlite3.Connection:
    """Open a journal for reading; a file that does not exist is not created.

    Raises:
        JournalError: there is no such file.
        sqlite3.Error: the file cannot be read.
    """
    refuse_odd(path)
    if not Path(path).is_file():
        raise JournalError(path, "there is no such file")
    # Not read-only: after a crash, the reader must first roll back half a commit.
    file = storage.connect(storage.real_path(path))
    try:
        file.execute("PRAGMA trusted_schema = OFF")  # its author may be anyone
        if lacking := _lacking(file):
            nothing = ", ".join(f"NULL AS {name}" for name in lacking)
            file.execute(
                f"CREATE TEMP VIEW tasks AS SELECT *, {nothing} FROM main.tasks"  # noqa: S608
            )
    except BaseException:
        file.close()
        raise
    return file


def explained(path: str) -> AbstractContextManager[None]:
    """Turn errors of SQLite and of the system in the block into a `JournalError`."""
    return storage.sqlite_errors(functools.partial(_error, path))


def _error(path: str, error: Exception, code: int) -> JournalError:
    if isinstance(error, sqlite3.Error):
        why = without_locks(path, error) or _reason(error, code)
        return JournalError(path, why)
    if isinstance(error, OSError):
        return JournalError(path, error.strerror or str(error))
    return damaged(path, str(error))


def without_locks(path: str, error: Exception) -> str:
    """Why a journal cannot be locked, if an error tells so; otherwise empty."""
    why = storage.lock_refusal(storage.real_path(path), error)
    return why and f"{why}: put the journal on another one, such as a local disk"


_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room and start again: what was "
    "reported is safe",
    sqlite3.SQLITE_NOTADB: "it is no SQLite file",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; is the folder there, and writable?",
}


def _reason(error: sqlite3.Error, code: int) -> str:
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return MOVED
    return _REASONS.get(code, f"{error}")


#: The message for a journal that was removed or replaced during the run.
MOVED = (
    "it was removed, renamed or replaced while this run was writing to it, so what has "
    "ended since then is not kept: start again with a path that nobody else touches"
)
