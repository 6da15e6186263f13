"""What was seen of tasks, kept by function in the user's state folder."""

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

#: Tasks that are kept of one function: the latest, and the largest for ever.
_KEPT = 10_000

_TABLES = """
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,           -- of the function
    size REAL,                    -- of the item; NULL: unknown
    peak_memory INTEGER NOT NULL, -- bytes
    wall REAL NOT NULL,           -- seconds, but those of waiting for a CPU
    cpu REAL NOT NULL,            -- seconds
    workers INTEGER NOT NULL,     -- of the run
    throughput REAL NOT NULL,     -- tasks a second, of the run
    ended REAL NOT NULL           -- seconds since 1970
);
CREATE INDEX IF NOT EXISTS by_name ON tasks (name);
"""


class Seen(Value):
    """What was seen of one task.

    Attributes:
        size: of the item, in whatever unit; None if unknown.
        peak_memory: bytes of its worker.
        wall: seconds, but those in which it was ready to run and had no CPU.
        cpu: seconds of CPU time.
        workers: of the run that it was part of.
        throughput: of that run, in tasks a second.
        ended: seconds since 1970.
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
    """The file.

    Raises:
        CoresizeError: the user has no home.
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
    """Keep what was seen of tasks of one function.

    Args:
        name: of the function.
        tasks: size, bytes, seconds, seconds of CPU time of each.
        workers: of the run.
        throughput: of the run.

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
    """What was seen of a function, as it came.

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
    """A row as a value; SQLite holds any kind of value in any column.

    Raises:
        CoresizeError: something stands there that is never written.
    """
    size, *numbers = row
    good = (type(one) in (int, float) and 0 <= one < _LARGEST for one in numbers)
    if not (all(good) and (size is None or type(size) in (int, float))):
        raise _damaged(row)
    return Seen(**dict(zip(Seen.__slots__, row, strict=True)))


#: Numbers in the history are never larger.
_LARGEST = 2**63


def _damaged(row: tuple[object, ...]) -> CoresizeError:
    what = one_line(f"{row!r:.200}")
    msg = f"the history {one_line(path())} is damaged ({what}): remove it to begin anew"
    return CoresizeError(msg)


def names() -> list[tuple[str, int, int]]:
    """Each function, how many tasks are kept of it, and the most bytes of one.

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
    """Forget one function, or with None all; returns how many tasks that were.

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
    known = ", ".join(f'"{one}"' for one, *_ in names()) or "nothing yet"
    allowed = f"a name of which runs were recorded ({known}): run_batch(history=True)"
    return ConfigError("history", name, allowed)


@contextlib.contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The file, committed at the end."""
    where = path()
    with storage.sqlite_errors(functools.partial(_unusable, where)):
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(where, timeout=60)) as file, file:
            file.executescript(_TABLES)
            yield file


def _unusable(where: str, error: Exception, code: int) -> CoresizeError:
    hint = _HINTS.get(code, "remove it to begin anew")
    msg = f"the history {one_line(where)} cannot be used: {error}; {hint}"
    return CoresizeError(msg)


_PLACE = "set XDG_STATE_HOME to a folder that can be written"
_HINTS = {
    0: _PLACE,  # an error of the operating system's
    sqlite3.SQLITE_CANTOPEN: _PLACE,
    sqlite3.SQLITE_READONLY: _PLACE,
    sqlite3.SQLITE_PERM: _PLACE,
    sqlite3.SQLITE_IOERR: _PLACE,
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_BUSY: "another program has it; try again",
}
