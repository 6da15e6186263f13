"""The journals of all shards as one: what is missing or twice is never passed over."""

from __future__ import annotations

import contextlib
import csv
import heapq
import json
import sqlite3
from typing import TYPE_CHECKING

from coresize import storage
from coresize.batch import journal as journals
from coresize.batch import reading, schema
from coresize.batch.schema import BOUND, JournalError
from coresize.batch.shards import Shard
from coresize.errors import CoresizeError
from coresize.model import Value


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TextIO

    from coresize.batch.schema import Identity

#: How many keys are named of those that are twice or missing.
_NAMED = 10


class MergeError(CoresizeError):
    """Journals do not make one whole run.

    Attributes:
        problems: what is wrong, a sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the journals make no whole run: " + "; ".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[Callable[..., MergeError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class Merged(Value):
    """What was merged.

    Attributes:
        path: the file that was written.
        tasks: how many tasks are in it.
        problems: what is not whole, where that was allowed.
    """

    __slots__ = ("path", "tasks", "problems")  # noqa: RUF023

    path: str
    tasks: int
    problems: tuple[str, ...]


def merge(paths: Iterable[str], output: str, *, allow_partial: bool = False) -> Merged:
    """Join the journals of all shards of one run into one file.

    Tasks stand in the order of the input, whatever the order of the journals. The file
    is written whole or not at all.

    Args:
        paths: the journals.
        output: a journal, or with the suffix .jsonl, .ndjson or .csv the tasks as such.
        allow_partial: shards and tasks may be missing, and tasks may have failed to
            end; a key that is twice is an error all the same.

    Raises:
        JournalError: a file is no journal, or cannot be written.
        MergeError: the journals are of different runs, keys are twice or missing.

    >>> merge(["nowhere.sqlite"], "all.jsonl")
    Traceback (most recent call last):
    ...
    coresize.batch.schema.JournalError: journal nowhere.sqlite: there is no such file
    """
    parts = [_part(path) for path in sorted(paths)]
    if not parts:
        raise MergeError(["no journal is named"])
    parts.sort(key=lambda part: part.shard.index)
    if any(storage.is_same(output, part.path) for part in parts):
        raise MergeError([f"{output} is one of them: write to another file"])
    _check_output(output)
    _check_same(parts)
    twice, missing = _check_keys(parts)
    problems = [*_check_shards(parts), *missing]
    if twice or (problems and not allow_partial):
        raise MergeError([*twice, *problems])
    tasks = _write(parts, output)
    return Merged(path=output, tasks=tasks, problems=tuple(problems))


class _Part(Value):
    """One journal: its path, whose it is, and the items of the whole input."""

    __slots__ = ("path", "identity", "shard", "items")  # noqa: RUF023

    path: str
    identity: Identity
    shard: Shard
    items: int | None


def _part(path: str) -> _Part:
    identity, items = reading.describe(path)
    shard = Shard(identity.shard, by=identity.shard_by)  # type: ignore[arg-type]
    return _Part(path=path, identity=identity, shard=shard, items=items)


# --- What may be wrong ----------------------------------------------------------


def _check_same(parts: Sequence[_Part]) -> None:
    """See that all are of one run.

    Raises:
        MergeError: they are not.
    """
    first = parts[0]
    for name in ("function", "parameters", "shard_by", "serializer"):
        for part in parts[1:]:
            one, other = getattr(first.identity, name), getattr(part.identity, name)
            if one != other:
                text = f"{first.path} is of {name} {one!r}, {part.path} of {other!r}"
                if name == "parameters":  # a hash says nothing to a person
                    text = f"{first.path} and {part.path} have other {BOUND}"
                raise MergeError([text])
    counts = {part.shard.count: part for part in parts}
    if len(counts) > 1:
        texts = [f"{part.path} is shard {part.shard}" for part in counts.values()]
        raise MergeError([" but ".join(texts)])


def _check_shards(parts: Sequence[_Part]) -> list[str]:
    problems = []
    there = {part.shard.index for part in parts}
    count = parts[0].shard.count
    absent = [f"{index}/{count}" for index in range(count) if index not in there]
    if absent:
        problems.append(f"no journal of shard {_named(absent)}")
    sizes = {part.items: part.path for part in parts if part.items is not None}
    if len(sizes) > 1:
        texts = [f"{items} items in {path}" for items, path in sorted(sizes.items())]
        problems.append(f"the inputs differ: {', '.join(texts)}")
    problems += [
        f"{part.path} (shard {part.shard}) did not read its input to the end: start it "
        "again to go on"
        for part in parts
        if part.items is None
    ]
    return problems


def _check_keys(parts: Sequence[_Part]) -> tuple[list[str], list[str]]:
    """Sentences about keys that are twice, and about tasks that have not ended."""
    twice: list[str] = []
    missing: list[str] = []
    stale: list[str] = []
    seen = sqlite3.connect("")
    marks = bytearray(max(part.items or 0 for part in parts))
    with contextlib.closing(seen):
        seen.execute("CREATE TABLE seen (key TEXT PRIMARY KEY, path) WITHOUT ROWID")
        for part in parts:
            for row in reading.read(part.path):
                key = str(row["key"])
                try:
                    seen.execute("INSERT INTO seen VALUES (?, ?)", (key, part.path))
                except sqlite3.IntegrityError:
                    where = seen.execute("SELECT path FROM seen WHERE key = ?", (key,))
                    twice.append(f"{key!r} in {where.fetchone()[0]} and {part.path}")
                if row["status"] in (None, "cancelled"):
                    missing.append(repr(key))
                item = int(str(row["item"]))
                if item < len(marks) and not marks[item]:
                    marks[item] = 1
                elif marks:
                    stale.append(repr(key))
    unseen = [str(item) for item, mark in enumerate(marks) if not mark]
    return _told("keys are twice", twice), [
        *_told("tasks have not ended", missing),
        *_told("items (counted from 0) were not begun", unseen),
        *_told("tasks are of items that have left the input, or beside them", stale),
    ]


def _told(what: str, names: Sequence[str]) -> list[str]:
    return [f"{len(names)} {what}: {_named(names)}"] if names else []


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _check_output(output: str) -> None:
    """See that nothing is lost by writing there.

    Raises:
        MergeError: the file is there and no merge of before, or of no known kind.
    """
    suffix = storage.suffix(output)
    if suffix and suffix not in (*_EXPORTS, *_OF_JOURNALS):
        names = ", ".join(f".{name}" for name in (*_OF_JOURNALS, *_EXPORTS))
        raise MergeError([f"{output} is of no known kind: {names}"])
    if storage.size(output) and not _is_merge(output, suffix):
        problem = f"{output} is there, and no merge: remove it, or take another name"
        raise MergeError([problem])


#: Suffixes of journals that a merge writes.
_OF_JOURNALS = ("sqlite", "sqlite3", "db")


def _is_merge(path: str, suffix: str) -> bool:
    """Whether a file looks like what is written here."""
    if suffix not in _EXPORTS:
        try:
            return reading.describe(path)[0].shard == "0/1"
        except JournalError:
            return False
    start = storage.first_line(path)
    return start.startswith(('{"key": ', ",".join(_TABLE)))


# --- Writing --------------------------------------------------------------------


def _rows(parts: Sequence[_Part]) -> Iterator[dict[str, object]]:
    """The tasks that have ended, in the order of the input."""
    rows = heapq.merge(
        *(reading.read(part.path) for part in parts),
        key=lambda row: (row["item"], row["key"]),
    )
    return (row for row in rows if row["status"] is not None)


def _write(parts: Sequence[_Part], output: str) -> int:
    write = _EXPORTS.get(storage.suffix(output))
    if write is None:
        items = parts[0].items if None not in {part.items for part in parts} else None
        return journals.write_whole(output, parts[0].identity, _rows(parts), items)
    serializer = parts[0].identity.serializer
    try:
        with storage.replacing(output) as file:
            return write(file, (_plain(row, serializer) for row in _rows(parts)))
    except OSError as error:
        raise JournalError(output, f"it cannot be written: {error.strerror}") from None


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
_TABLE = tuple(name for name in schema.COLUMNS if name != "traceback")


def _write_table(file: TextIO, rows: Iterator[dict[str, Any]]) -> int:
    columns = _TABLE
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
_EXPORTS: dict[str, Callable[[TextIO, Iterator[dict[str, Any]]], int]] = {
    "jsonl": _write_lines,
    "ndjson": _write_lines,
    "csv": _write_table,
}
