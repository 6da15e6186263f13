"""The tasks of journals in one file: another journal, lines of JSON, or a table."""

from __future__ import annotations

import csv
import heapq
import json
from typing import TYPE_CHECKING

from coresize import storage
from coresize.batch import journal as journals
from coresize.batch import reading, schema
from coresize.batch.schema import JournalError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TextIO

    from coresize.batch.schema import Identity


def write(
    paths: Iterable[str], identity: Identity, items: int | None, output: str
) -> int:
    """Write the tasks that have ended, in the order of the input; how many.

    Args:
        paths: the journals.
        identity: what their run is of.
        items: how many the input has; None where that is not known.
        output: a file, whose suffix says of what kind it is.

    Raises:
        JournalError: it cannot be written.
    """
    rows = _rows(paths)
    export = EXPORTS.get(storage.suffix(output))
    if export is None:
        return journals.write_whole(output, identity, rows, items)
    try:
        with storage.replacing(output) as file:
            return export(file, (_plain(row, identity.serializer) for row in rows))
    except OSError as error:
        raise JournalError(output, f"it cannot be written: {error.strerror}") from None


def _rows(paths: Iterable[str]) -> Iterator[dict[str, object]]:
    rows = heapq.merge(
        *(reading.read(path) for path in paths),
        key=lambda row: (row["item"], row["key"]),
    )
    return (row for row in rows if row["status"] is not None)


def _plain(row: dict[str, Any], serializer: str) -> dict[str, Any]:
    """A row with its value as it was; who merges pickles has chosen them before."""
    value = row["value"]
    return {**row, "value": value and journals.DECODERS[serializer](value)}


def _write_lines(file: TextIO, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last is how many
        file.write(json.dumps(row, default=repr) + "\n")
    return count


#: The columns of a table.
TABLE = tuple(name for name in schema.COLUMNS if name != "traceback")


def _write_table(file: TextIO, rows: Iterator[dict[str, Any]]) -> int:
    columns = TABLE
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last is how many
        value = row["value"]
        if value is not None and not isinstance(value, (str, int, float)):
            row["value"] = json.dumps(value, default=repr)
        writer.writerow([row[name] for name in columns])
    return count


#: What writes the tasks as such, by the suffix of the file.
EXPORTS: dict[str, Callable[[TextIO, Iterator[dict[str, Any]]], int]] = {
    "jsonl": _write_lines,
    "ndjson": _write_lines,
    "csv": _write_table,
}
