"""What is in the file of a journal: its tables, and whose run it is."""

from __future__ import annotations

import contextlib
import sqlite3

from coresize import __version__, storage
from coresize.errors import CoresizeError
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: "core" in ASCII; SQLite keeps it for programs in the head of the file.
_APPLICATION = 0x636F7265
_FORMAT = 2

#: What is known of a task that has ended.
RESULT = (
    "status",
    "value",
    "error",
    "traceback",
    "attempts",
    "peak_memory",
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
    ended REAL              -- seconds since 1970
);
"""
_HEAD = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_FORMAT};"

_TOLD = f"item, {', '.join(RESULT)} FROM tasks"
RECALL = f"SELECT id, {_TOLD} WHERE key = ?"
NEXT = f"SELECT id, key, {_TOLD} WHERE id > ? ORDER BY id LIMIT ?"
EXPECT = "INSERT INTO tasks (key, item) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
MOVE = "UPDATE tasks SET item = ? WHERE key = ?"
_NEW = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
END = f"""INSERT INTO tasks ({", ".join(COLUMNS)})
VALUES ({", ".join("?" * len(COLUMNS))})
ON CONFLICT (key) DO UPDATE SET {_NEW}"""  # noqa: S608
ALL = f"SELECT {', '.join(COLUMNS)} FROM tasks ORDER BY item, key"  # noqa: S608


class JournalError(CoresizeError):
    """A journal cannot be used.

    Attributes:
        path: the file.
        reason: why, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"journal {path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., JournalError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class Identity(Value):
    """Whose run it is: what must be the same for results to belong together.

    Attributes:
        function: the module and name of the function.
        parameters: a hash of the arguments that are bound to it.
        shard: "i/n".
        shard_by: "index" or "key".
        serializer: how values are written.
    """

    __slots__ = ("function", "parameters", "shard", "shard_by", "serializer")  # noqa: RUF023

    function: str
    parameters: str
    shard: str
    shard_by: str
    serializer: str


#: What the parameters are, of which a journal has the hash alone.
BOUND = "arguments bound to its function (functools.partial)"

_KEPT = Identity.__slots__
_HINTS = {
    "function": "take another file for another function",
    "parameters": "take another file for other arguments",
    "serializer": "the one it was begun with",
}


def prepare(file: sqlite3.Connection, path: str, identity: Identity) -> None:
    """Make the tables in a new file; see that another belongs to this run.

    Raises:
        JournalError: it does not.
    """
    if file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        file.executescript(f"BEGIN; {_TABLES} {_HEAD}")  # all of it or nothing
        rows = [*identity.as_dict().items(), ("coresize", __version__)]
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


def identity_of(file: sqlite3.Connection, path: str) -> Identity:
    """Whose run a journal is of.

    Raises:
        JournalError: it is no journal, or of another format.
    """
    if file.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise JournalError(path, "it is an SQLite file, but no journal of coresize")
    version = file.execute("PRAGMA user_version").fetchone()[0]
    if version != _FORMAT:
        newer = "update coresize" if version > _FORMAT else "take another file"
        reason = f"it is of format {version}, and {_FORMAT} is known: {newer}"
        raise JournalError(path, reason)
    rows = dict(file.execute("SELECT name, value FROM run"))
    return Identity(**{name: rows[name] for name in _KEPT})


def has_tasks(file: sqlite3.Connection) -> bool:
    """Whether any task is in it."""
    return file.execute("SELECT 1 FROM tasks LIMIT 1").fetchone() is not None


def set_items(file: sqlite3.Connection, items: int | None) -> None:
    """How many items the whole input has, over all shards; None if unknown."""
    if items is None:
        file.execute("DELETE FROM run WHERE name = 'items'")
    else:
        file.execute("INSERT OR REPLACE INTO run VALUES ('items', ?)", (str(items),))


def items_of(file: sqlite3.Connection) -> int | None:
    """How many that were; None where the input was not read to its end."""
    found = file.execute("SELECT value FROM run WHERE name = 'items'").fetchone()
    return int(found[0]) if found else None


def open_to_read(path: str) -> sqlite3.Connection:
    """A journal for reading; nothing is made where none is.

    Raises:
        JournalError: there is no such file.
        sqlite3.Error: it cannot be read.
    """
    if not storage.is_file(path):
        raise JournalError(path, "there is no such file")
    # Not read-only: after a crash the reader has to put it right first.
    return sqlite3.connect(path, timeout=60)


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
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
    return _REASONS.get(storage.sqlite_code(error), f"{error}")
