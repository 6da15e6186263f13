"""Writes the tasks of journals to one file: a journal, lines of JSON, or a table."""

from __future__ import annotations

import csv
import heapq
import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from coresize import storage
from coresize.batch.journal import reader, schema
from coresize.batch.journal import writer as journals
from coresize.errors import JournalError


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TextIO, TypeAlias

    from coresize.batch.journal.schema import Identity

    Rows: TypeAlias = Iterator[dict[str, Any]]


def write(
    paths: Sequence[str],
    identity: Identity,
    items: int | None,
    output: str,
    *,
    csv_safe: bool = False,
) -> int:
    """Write the tasks that have ended, in the order of the input; returns their number.

    Args:
        paths: the journals.
        identity: the identity of their run.
        items: the number of items of the input; None if it is not known.
        output: the file; its suffix determines the format.
        csv_safe: write texts in a table so that no spreadsheet takes one for a formula.

    Raises:
        JournalError: the file cannot be written, or a value cannot be decoded.
    """
    export = EXPORTS.get(suffix(output))
    if export is None:
        content = (row for _, row in _rows(paths))
        return journals.write_whole(output, identity, content, items)

    def rows() -> Rows:
        return (_plain(path, row, identity.serializer) for path, row in _rows(paths))

    try:
        with storage.replacing(output) as file:
            return export(file, rows, csv_safe)
    except OSError as error:
        raise JournalError(output, f"it cannot be written: {error.strerror}") from None


def _rows(paths: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tasks that have ended, each with the path of its journal."""
    rows = heapq.merge(
        *(zip(itertools.repeat(path), reader.read(path)) for path in paths),
        key=lambda found: (found[1]["item"], found[1]["key"]),
    )
    return (found for found in rows if found[1]["status"] is not None)


def _plain(path: str, row: dict[str, Any], serializer: str) -> dict[str, Any]:
    """A row with its value decoded; `merge.merge` has checked that this is allowed."""
    if row["status"] == "ok":
        row["value"] = journals.decoded(path, row["key"], row["value"], serializer)
    return row


def _json(value: object) -> str:
    """A value as JSON; values that JSON does not have are texts, by ``repr``."""
    try:
        return json.dumps(value, default=_shown)
    except (TypeError, ValueError, RecursionError):  # odd keys, circles, huge numbers
        return json.dumps(_shown(value))


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - repr() calls the user's code
        return f"<{type(value).__name__}>"


def _write_lines(
    file: TextIO,
    rows: Callable[[], Rows],
    _csv_safe: bool,  # noqa: FBT001 - as of a table
) -> int:
    count = 0
    for count, row in enumerate(rows(), 1):  # noqa: B007 - the last is how many
        cells = (f"{json.dumps(name)}: {_json(cell)}" for name, cell in row.items())
        file.write("{" + ", ".join(cells) + "}\n")
    return count


# --- Tables ---------------------------------------------------------------------

#: The columns of a CSV table.
TABLE = tuple(name for name in schema.COLUMNS if name != "traceback")


#: How the first line of a table begins and ends, also that of an earlier coresize; the
#: columns of values are in between.
_PLACE, _LAST = TABLE.index("value"), TABLE.index("wall")
ENDS = ",".join(TABLE[:_PLACE]) + ",", "," + ",".join(TABLE[_LAST:])


def _write_table(
    file: TextIO,
    rows: Callable[[], Rows],
    csv_safe: bool,  # noqa: FBT001 - of one place
) -> int:
    names, spread = _columns(rows())
    # With both characters, Python 3.11 quotes both; otherwise a lone "\r" or "\n" would
    # not be quoted, and begin a line.
    writer = csv.writer(_Lines(file), lineterminator="\r\n")
    shown = _inert if csv_safe else _cell
    writer.writerow(map(shown, names))
    count = 0
    for count, row in enumerate(rows(), 1):  # noqa: B007 - the last is how many
        cells = _spread(row) if spread and _is_spread(row["value"]) else row
        writer.writerow([shown(cells.get(name)) for name in names])
    return count


#: The most columns for the keys of values; if there are more, they are no field names.
_MOST_COLUMNS = 1000


def _columns(rows: Rows) -> tuple[list[str], bool]:
    """The names of the columns, and whether mappings are spread into them.

    The column of the values stays if not all of them are mappings.
    """
    found: dict[str, None] = {}
    others = False
    for row in rows:
        if _is_spread(row["value"]):
            found.update(dict.fromkeys(map(_column, row["value"])))
        elif row["value"] is not None:
            others = True
        if len(found) > _MOST_COLUMNS:
            return list(TABLE), False
    value = ["value"] if others or not found else []
    return [*TABLE[:_PLACE], *value, *found, *TABLE[_PLACE + 1 :]], bool(found)


def _is_spread(value: object) -> bool:
    """Whether a value gets a column for each key: a mapping that has one."""
    return isinstance(value, dict) and bool(value)


def _column(key: object) -> str:
    return f"value.{_cell(key)}"


def _spread(row: dict[str, Any]) -> dict[str, Any]:
    fields = {_column(key): field for key, field in row["value"].items()}
    return {**row, "value": None, **fields}


class _Lines:
    """A file that replaces the CR LF at the end of each line by LF."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")


def _cell(value: object) -> object:
    """The cell of a value: texts and numbers as text, other values as JSON."""
    if value is None or isinstance(value, (str, int, float)):
        try:
            return "" if value is None else str(value)
        except ValueError:  # an integer of more digits than `str` converts
            return _shown(value)
    return _json(value)


def _inert(value: object) -> object:
    """The cell of a value; no spreadsheet takes it for a formula (as `_ACTIVE`)."""
    cell = _cell(value)
    if isinstance(cell, str) and cell.startswith(_ACTIVE) and not _NUMBER(cell):
        return f"'{cell}"
    return cell


#: Characters that begin a formula in some spreadsheet, with wide ones: the list of
#: OWASP, "CSV Injection".
_ACTIVE = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|-?inf", re.ASCII).fullmatch


#: The function that writes the tasks as text, by the suffix of the file.
EXPORTS: dict[str, Callable[[TextIO, Callable[[], Rows], bool], int]] = {
    "jsonl": _write_lines,
    "ndjson": _write_lines,
    "csv": _write_table,
}


def suffix(output: str) -> str:
    """The suffix of a file's name, without its dot, as in `EXPORTS`."""
    return Path(output).suffix.removeprefix(".")
