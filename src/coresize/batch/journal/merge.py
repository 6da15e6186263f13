"""Merges the journals of all shards; missing or repeated tasks are always reported."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from coresize import storage
from coresize.batch.journal import export, locks, reader, schema
from coresize.batch.journal.schema import BOUND
from coresize.batch.shards import Shard
from coresize.errors import ConfigError, JournalError, MergeError
from coresize.model import Value
from coresize.units import format_count


if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from coresize.batch.journal.schema import Identity

#: The most repeated or missing keys that a message names.
_NAMED = 10


class Merged(Value):
    """The result of a merge.

    Attributes:
        path: the file that was written.
        tasks: the number of tasks in the file.
        failed: the number of these tasks that have not succeeded.
        problems: a sentence for each gap, if gaps were allowed.
    """

    path: str
    tasks: int
    failed: int
    problems: tuple[str, ...]


def merge(
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    allow_partial: bool = False,
    allow_pickle: bool = False,
    csv_safe: bool = False,
) -> Merged:
    """Merge the journals of all shards of one run into one file.

    The tasks are in the order of the input, whatever the order of the journals. The
    file is written whole or not at all, and gets the mode of the file that it replaces.

    Args:
        paths: the journals.
        output: a journal or, with the suffix .jsonl, .ndjson or .csv, a text file.
        allow_partial: shards and tasks may be missing, and tasks may not have ended; a
            key that occurs twice is still an error.
        allow_pickle: pickled values may be read, for .jsonl and .csv. That runs code of
            whoever wrote them, so a journal alone never causes it. A merge into a
            journal copies the pickles unread.
        csv_safe: in a table, a text that a spreadsheet would take for a formula gets an
            apostrophe in front (OWASP, "CSV Injection"); numbers stay.

    Raises:
        ConfigError: a path is not valid.
        JournalError: a file is not a journal, or cannot be written.
        MergeError: the journals are of different runs, or keys occur twice or are
            missing.

    >>> merge(["nowhere.sqlite"], "all.jsonl")
    Traceback (most recent call last):
    ...
    coresize.errors.JournalError: journal nowhere.sqlite: there is no such file
    """
    output = schema.check_path("output", output)
    parts = _parts(paths)
    _check_output(output, parts)
    _check_same(parts)
    exports = export.suffix(output) in export.EXPORTS
    if exports and parts[0].identity.serializer == "pickle" and not allow_pickle:
        raise MergeError([_PICKLED.format(parts[0].path)])
    found = _Tasks(max(part.items or 0 for part in parts))
    found.look(parts)
    twice, problems = found.twice(), [*_check_shards(parts), *found.missing()]
    if twice or (problems and not allow_partial):
        raise MergeError([*twice, *problems], partial=not twice)
    items = parts[0].items if None not in {part.items for part in parts} else None
    identity, names = parts[0].identity, [part.path for part in parts]
    tasks = export.write(names, identity, items, output, csv_safe=csv_safe)
    return Merged(
        path=output, tasks=tasks, failed=found.failed, problems=tuple(problems)
    )


_PICKLED = (
    "{} holds its values as pickles, and to read a pickle runs code of whoever wrote "
    "it: if that is somebody you trust, allow it (--allow-pickle, "
    "merge(allow_pickle=True)); or merge into a journal, which reads none"
)


class _Part(Value):
    """One journal: its path, identity and shard; the number of items in the input."""

    path: str
    identity: Identity
    shard: Shard
    items: int | None


def _parts(paths: Iterable[str | os.PathLike[str]]) -> list[_Part]:
    names = sorted(schema.check_path("paths", path) for path in paths)
    if not names:
        raise MergeError(["no journal is named"])
    return sorted(map(_part, names), key=lambda part: part.shard.index)


def _part(path: str) -> _Part:
    identity, items = reader.describe(path)
    try:
        shard = Shard(identity.shard, by=identity.shard_by)  # type: ignore[arg-type]
    except ConfigError as error:
        raise schema.damaged(path, str(error)) from None
    return _Part(path=path, identity=identity, shard=shard, items=items)


# --- Checks -----------------------------------------------------------------------


def _check_same(parts: Sequence[_Part]) -> None:
    """Check that all journals belong to one run.

    Raises:
        MergeError: the journals belong to different runs.
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
        problems.append(f"no journal of shard {_named(absent, len(absent))}")
    sizes = {part.items: part.path for part in parts if part.items is not None}
    if len(sizes) > 1:
        texts = [
            f"{format_count(items, 'item')} in {path}"
            for items, path in sorted(sizes.items())
        ]
        problems.append(f"the inputs differ: {', '.join(texts)}")
    problems += [
        f"{part.path} (shard {part.shard}) did not read its input to the end: start it "
        "again to go on"
        for part in parts
        if part.items is None
    ]
    return problems


class _Tasks:
    """The tasks of all journals: repeated keys, tasks that have not ended, failures.

    Args:
        items: the number of items of the input.
    """

    def __init__(self, items: int) -> None:
        self.failed = 0
        self._items = _Items(items)
        self._twice: list[str] = []
        self._waiting: list[str] = []
        self._stale: list[str] = []

    def look(self, parts: Sequence[_Part]) -> None:
        """Read all tasks of the journals."""
        with contextlib.closing(storage.SeenKeys()) as seen:
            for number, part in enumerate(parts):
                for row in reader.read(part.path):
                    key = str(row["key"])
                    before = seen.add(key, number)
                    if before is None:
                        self._take(key, row)
                    else:
                        first = parts[before].path
                        self._twice.append(f"{key!r} in {first} and {part.path}")

    def _take(self, key: str, row: Mapping[str, Any]) -> None:
        item, status = row["item"], row["status"]
        if status in (None, "cancelled"):
            self._waiting.append(repr(key))
        self.failed += status not in (None, "ok")
        if not self._items.mark(item) and self._items.count:
            self._stale.append(repr(key))

    def twice(self) -> list[str]:
        """A sentence about the keys that occur twice, if there are any."""
        return _told("keys are twice", self._twice, len(self._twice))

    def missing(self) -> list[str]:
        """Sentences about tasks and items that are missing or outdated."""
        waiting, stale, unseen = self._waiting, self._stale, self._items.unmarked()
        left = self._items.count - self._items.marked
        return [
            *_told("tasks have not ended", waiting, len(waiting)),
            *_told("items (counted from 0) were not begun", unseen, left),
            *_told("tasks are of items that the input has no more", stale, len(stale)),
        ]


class _Items:
    """Marks for the items of an input; only marked pages take memory.

    A journal may claim any number of items, even a wrong one.

    Args:
        count: the number of items.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.marked = 0
        self._pages: dict[int, bytearray] = {}

    def mark(self, item: int) -> bool:
        """Mark an item; returns False if it has a mark already, or does not exist."""
        if item >= self.count:
            return False
        page = self._pages.setdefault(item // _PAGE, bytearray(_PAGE))
        if page[item % _PAGE]:
            return False
        page[item % _PAGE] = 1
        self.marked += 1
        return True

    def unmarked(self) -> list[str]:
        """The first items without a mark."""
        if self.marked == self.count:
            return []
        none = bytearray(_PAGE)
        left = (
            str(item)
            for item in range(self.count)
            if not self._pages.get(item // _PAGE, none)[item % _PAGE]
        )
        return list(itertools.islice(left, _NAMED))


#: The number of items on a page of marks.
_PAGE = 4096


def _told(what: str, names: Sequence[str], count: int) -> list[str]:
    return [f"{count} {what}: {_named(names, count)}"] if names else []


def _named(names: Sequence[str], count: int) -> str:
    more = f" and {count - _NAMED} more" if count > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _check_output(output: str, parts: Iterable[_Part]) -> None:
    """Check that writing the output destroys nothing.

    Raises:
        JournalError: the output is not a plain file, or a run is writing to it.
        MergeError: the output is one of the journals, exists and is not an earlier
            merge, or has an unknown suffix.
    """
    with schema.explained(output):
        schema.refuse_odd(output)
        real = storage.real_path(output)
        same = any(storage.real_path(part.path) == real for part in parts)
        locked = locks.is_locked(output)
    if same:
        raise MergeError([f"{output} is one of them: write to another file"])
    if locked:
        raise JournalError(output, "a run is writing to it: take another file")
    suffix = export.suffix(output)
    if suffix and suffix not in (*export.EXPORTS, *_OF_JOURNALS):
        names = ", ".join(f".{name}" for name in (*_OF_JOURNALS, *export.EXPORTS))
        raise MergeError([f"{output} is of no known kind: {names}"])
    file = Path(output)
    if file.exists() and file.stat().st_size and not _is_merge(output, suffix):
        problem = f"{output} is there, and no merge: remove it, or take another name"
        raise MergeError([problem])


#: The suffixes of a journal that a merge writes.
_OF_JOURNALS = ("sqlite", "sqlite3", "db")


def _is_merge(path: str, suffix: str) -> bool:
    """Whether a file looks like the output of an earlier merge."""
    if suffix not in export.EXPORTS:
        try:
            return reader.describe(path)[0].shard == "0/1"
        except JournalError:
            return False
    with Path(path).open("rb") as file:
        start = file.readline(_LONGEST_HEAD).decode("utf-8", "replace")
    if start.startswith('{"key": '):
        return True
    first, last = export.ENDS
    is_whole = len(start) < _LONGEST_HEAD
    return start.startswith(first) and (start.endswith(f"{last}\n") or not is_whole)


#: The most bytes of a line that `_is_merge` reads.
_LONGEST_HEAD = 4096
