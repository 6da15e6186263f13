"""Journals that are only looked at, also while somebody writes them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from coresize.batch.journal import schema


if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.batch.journal.schema import Identity


def describe(path: str) -> tuple[Identity, int | None]:
    """Whose run a journal is of, and how many items the whole input has, if known.

    Raises:
        JournalError: it is no journal, or cannot be read.
    """
    with schema.explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        return schema.identity_of(file, path), schema.items_of(file, path)


def count(path: str) -> dict[str | None, int]:
    """How many tasks are in a journal, by status.

    Raises:
        JournalError: it is no journal, or cannot be read.
    """
    with schema.explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        schema.identity_of(file, path)
        return dict(file.execute("SELECT status, count(*) FROM tasks GROUP BY status"))


def read(path: str) -> Iterator[dict[str, object]]:
    """The tasks in a journal by the names of its columns, in the order of the input.

    Raises:
        JournalError: it is no journal, or cannot be read.
    """
    with schema.explained(path), contextlib.closing(schema.open_to_read(path)) as file:
        for row in file.execute(schema.ALL):
            yield schema.row_of(path, row)
