"""Reads journals, also while a run is writing to them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from coresize.batch.journal import schema


if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.batch.journal.schema import Identity


def describe(path: str) -> tuple[Identity, int | None]:
    """The identity of a journal's run, and the number of items of all shards, if known.

    Raises:
        JournalError: the file is not a journal, or cannot be read.
    """
    with schema.explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        return schema.identity_of(file, path), schema.items_of(file, path)


def count(path: str) -> dict[str | None, int]:
    """The number of tasks in a journal, by status; None: the task has not ended.

    Raises:
        JournalError: the file is not a journal, or cannot be read.
    """
    with schema.explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        schema.identity_of(file, path)
        return dict(file.execute("SELECT status, count(*) FROM tasks GROUP BY status"))


def peak(path: str, status: str) -> int | None:
    """The most bytes that a task with a status had; None if that is not known.

    Raises:
        JournalError: the file is not a journal, or cannot be read.
    """
    with schema.explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        schema.identity_of(file, path)
        query = "SELECT max(peak_memory) FROM tasks WHERE status = ?"
        found = file.execute(query, (status,)).fetchone()[0]
    return found if isinstance(found, int) else None


def read(path: str) -> Iterator[dict[str, object]]:
    """Yield the tasks in a journal, by column name, in the order of the input.

    Raises:
        JournalError: the file is not a journal, or cannot be read.
    """
    with schema.explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        for row in file.execute(schema.ALL):
            yield schema.row_of(path, row)
