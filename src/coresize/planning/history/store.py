"""The records of earlier tasks by function, in the user's state folder."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coresize import storage
from coresize.errors import ConfigError, CoresizeError
from coresize.model import Value
from coresize.texts import one_line, storable


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

#: The number of latest tasks to keep of one function; the largest is kept for ever.
_KEPT = 10_000

_TABLES = """
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,           -- of the function
    size REAL,                    -- of the item; NULL: unknown
    peak_memory INTEGER NOT NULL, -- bytes
    wall REAL NOT NULL,           -- seconds, without those of waiting for a CPU
    cpu REAL NOT NULL,            -- seconds
    workers INTEGER NOT NULL,     -- of the run
    throughput REAL NOT NULL,     -- tasks a second, of the run
    ended REAL NOT NULL           -- seconds since 1970
);
CREATE INDEX IF NOT EXISTS by_name ON tasks (name);
"""


class Seen(Value):
    """The record of one task.

    Attributes:
        size: the size of the item, in whatever unit; None if unknown.
        peak_memory: bytes of the worker at its peak.
        wall: seconds, without those in which the task was ready to run but had no CPU.
        cpu: seconds of CPU time.
        workers: the number of workers of the run.
        throughput: the throughput of the run, in tasks a second.
        ended: the end of the run, in seconds since 1970.
    """

    size: float | None
    peak_memory: int
    wall: float
    cpu: float
    workers: int
    throughput: float
    ended: float


_COLUMNS = ", ".join(Seen.__slots__)


def path() -> str:
    """The path of the history file.

    Raises:
        CoresizeError: the user has no home folder.
    """
    try:
        return storage.state_path("history.sqlite")
    except OSError as error:
        msg = f"the history has no place: {error}; set XDG_STATE_HOME"
        raise CoresizeError(msg) from None


def record(
    name: str,
    tasks: Iterable[tuple[float | None, int, float, float]],
    *,
    workers: int,
    throughput: float,
) -> None:
    """Record tasks of one function.

    Args:
        name: the name of the function.
        tasks: for each task: size, peak in bytes, seconds, seconds of CPU time.
        workers: the number of workers of the run.
        throughput: the throughput of the run, in tasks a second.

    Raises:
        CoresizeError: the file cannot be written.
    """
    now = time.time()
    rows = [(storable(name), *task, workers, throughput, now) for task in tasks]
    marks = ", ".join("?" * (len(Seen.__slots__) + 1))
    with _opened() as file:
        file.executemany(
            f"INSERT INTO tasks (name, {_COLUMNS}) VALUES ({marks})",  # noqa: S608
            rows,
        )
        file.execute(_FORGET, {"name": name, "kept": _KEPT})


_FORGET = """
DELETE FROM tasks WHERE name = :name
AND id NOT IN (SELECT id FROM tasks WHERE name = :name ORDER BY id DESC LIMIT :kept)
AND peak_memory < (SELECT max(peak_memory) FROM tasks WHERE name = :name)
"""


def recall(name: str) -> list[Seen]:
    """The records of a function's tasks, in order of recording.

    Raises:
        ConfigError: nothing was recorded under that name.
        CoresizeError: the file cannot be read.
    """
    query = f"SELECT {_COLUMNS} FROM tasks WHERE name = ? ORDER BY id"  # noqa: S608
    with _opened() as file:
        rows = file.execute(query, (storable(name),)).fetchall()
    if not rows:
        raise _unknown(name)
    return [_seen(row) for row in rows]


def _seen(row: tuple[Any, ...]) -> Seen:
    """The record in a row, checked: SQLite may hold any type in any column.

    Raises:
        CoresizeError: the row holds a value that coresize never writes.
    """
    size, *numbers = row
    good = (type(n) in (int, float) and 0 <= n < _LARGEST for n in numbers)
    if not (all(good) and (size is None or type(size) in (int, float))):
        raise _damaged(row)
    return Seen(**dict(zip(Seen.__slots__, row, strict=True)))


#: All numbers in the history are smaller than this.
_LARGEST = 2**63


def _damaged(row: tuple[object, ...]) -> CoresizeError:
    what = one_line(f"{row!r:.200}")
    msg = f"the history {one_line(path())} is damaged ({what}): remove it to begin anew"
    return CoresizeError(msg)


def names() -> list[tuple[str, int, int]]:
    """For each function: its name, the number of its records, the largest peak.

    Raises:
        CoresizeError: the file cannot be read.
    """
    query = (
        "SELECT name, count(*), max(peak_memory) FROM tasks GROUP BY name ORDER BY name"
    )
    with _opened() as file:
        rows = file.execute(query).fetchall()
    for row in rows:
        if [*map(type, row)] != [str, int, int]:
            raise _damaged(row)
    return rows


def forget(name: str | None) -> int:
    """Forget the records of one function, or of all (None); returns their number.

    Raises:
        ConfigError: nothing was recorded under that name.
        CoresizeError: the file cannot be written.
    """
    with _opened() as file:
        if name is None:
            return file.execute("DELETE FROM tasks").rowcount
        count = file.execute(
            "DELETE FROM tasks WHERE name = ?", (storable(name),)
        ).rowcount
    if not count:
        raise _unknown(name)
    return count


def _unknown(name: str) -> ConfigError:
    known = ", ".join(f'"{recorded}"' for recorded, *_ in names()) or "nothing yet"
    allowed = f"a name of which runs were recorded ({known}): run_batch(history=True)"
    return ConfigError("history", name, allowed)


@contextlib.contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The open history file; changes are committed at the end of the block."""
    where = path()
    with storage.sqlite_errors(functools.partial(_unusable, where)):
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(storage.connect(where)) as file, file:
            file.executescript(_TABLES)
            yield file


def _unusable(where: str, error: Exception, code: int) -> CoresizeError:
    hint = _HINTS.get(code, "remove it to begin anew")
    why: object = error
    if refusal := storage.lock_refusal(where, error):
        why, hint = refusal, "set XDG_STATE_HOME to a folder on another one"
    msg = f"the history {one_line(where)} cannot be used: {why}; {hint}"
    return CoresizeError(msg)


_PLACE = "set XDG_STATE_HOME to a folder that can be written"
_HINTS = {
    0: _PLACE,  # an error of the operating system
    sqlite3.SQLITE_CANTOPEN: _PLACE,
    sqlite3.SQLITE_READONLY: _PLACE,
    sqlite3.SQLITE_PERM: _PLACE,
    sqlite3.SQLITE_IOERR: _PLACE,
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_BUSY: "another program has it; try again",
}
