"""The shards of a batch that are to run again, by what their journals say."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from coresize.batch.journal import overview, reader
from coresize.batch.outcomes import BAD
from coresize.errors import ConfigError, JournalError
from coresize.launch.array_job import fill
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: What a shard can be, beside the statuses of its tasks: not begun, or not at its end.
MISSING = "missing"
KINDS = (*BAD, MISSING)

OOM = "oom"

#: The least factor by which memory grows, and the part of it that one task may take.
_GROWS, _ROOM = 1.5, 2


class ShardState(Value):
    """What the journal of a shard says.

    Attributes:
        index: the shard.
        kinds: those of `KINDS` that apply; empty if all tasks are ok.
        is_running: whether the shard runs now, and so cannot be started again.
        peak: the most bytes that a task had which was killed for memory; None if
            there was none, or it was not measured.
    """

    index: int
    kinds: frozenset[str]
    is_running: bool
    peak: int | None


def kinds_of(text: str) -> tuple[str, ...]:
    """The kinds in a list such as "oom,missing".

    Raises:
        ConfigError: a kind is not known, or there is none.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or set(names) - {*KINDS}:
        raise ConfigError("--again", text, f"some of {', '.join(KINDS)}")
    return tuple(dict.fromkeys(names))


def look(pattern: str, count: int, logs: str) -> list[ShardState]:
    """What the journals of all shards say, and the logs of those not at their end.

    A program that was killed as a whole tells nothing in its journal; but Slurm tells
    in the log that memory was the reason.

    Args:
        pattern: the path of the journals, with placeholders.
        count: the number of shards.
        logs: the folder of the logs.

    Raises:
        JournalError: a file is no journal, or that of another shard.
    """
    states = []
    for index in range(count):
        state = _state(fill(pattern, index, count), index, count)
        if MISSING in state.kinds and _was_killed_for_memory(logs, index):
            kinds = state.kinds | {OOM}
            state = ShardState(**{**state.as_dict(), "kinds": kinds})  # type: ignore[arg-type]
        states.append(state)
    return states


#: What Slurm writes at the end of a log; in 22.05 with a hyphen.
_KILLED = re.compile(rb"Detected \d+ oom[-_]kill event")
_TAIL = 4096


def _was_killed_for_memory(logs: str, index: int) -> bool:
    """Whether the latest log of a shard ends with a kill for memory."""
    try:
        found = [*Path(logs).glob(f"*_{index}.log")]
        if not found:
            return False
        with max(found, key=lambda path: path.stat().st_mtime).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return _KILLED.search(file.read()) is not None
    except OSError:  # the journal has been read; this is only more
        return False


def _state(path: str, index: int, count: int) -> ShardState:
    if not Path(path).exists() or _is_empty(path):
        missing = frozenset({MISSING})
        return ShardState(index=index, kinds=missing, is_running=False, peak=None)
    row = overview.look(path)
    if row.state == "starting":
        return ShardState(index=index, kinds=frozenset(), is_running=True, peak=None)
    identity, items = reader.describe(path)
    if identity.shard != f"{index}/{count}":
        what = f"it is of shard {identity.shard}, not {index}/{count}"
        raise JournalError(
            path, f"{what}: give the number of shards of the first start"
        )
    counts = reader.count(path)
    kinds = {name for name in BAD if counts.get(name)}
    ended = sum(number for name, number in counts.items() if name is not None)
    if row.state != "done" and not _is_whole(items, ended, index, count, row.total):
        kinds.add(MISSING)
    return ShardState(
        index=index,
        kinds=frozenset(kinds),
        is_running=row.state == "running",
        peak=reader.peak(path, OOM),
    )


def _is_empty(path: str) -> bool:
    """Whether a file is a journal in which nothing was written before the end."""
    return Path(path).is_file() and Path(path).stat().st_size == 0


def _is_whole(
    items: int | None, ended: int, index: int, count: int, total: int | None
) -> bool:
    """Whether all tasks of a shard have ended, as far as the journal tells."""
    if total is None:
        total = None if items is None else len(range(index, items, count))
    return total is not None and ended >= total


def chosen(
    states: Iterable[ShardState], kinds: Iterable[str], busy: Iterable[int]
) -> list[ShardState]:
    """The shards of some kinds that neither run now nor will run anyway."""
    wanted, left = {*kinds}, {*busy}
    return [one for one in states if one.kinds & wanted and one.index not in left]


def more_memory(before: int | None, states: Sequence[ShardState]) -> int:
    """The memory with which shards run again for which it was not enough.

    It is twice what a task had when it was killed, which is less than the task needs,
    and at least half more than before.

    Raises:
        ConfigError: neither is known.

    >>> more_memory(4 * 1024**3, []) / 1024**3
    6.0
    """
    peaks = [_ROOM * one.peak for one in states if one.peak]
    grown = [] if before is None else [math.ceil(_GROWS * before)]
    if not (peaks or grown):
        allowed = "the memory of a shard: no journal tells what its tasks had"
        raise ConfigError("--memory", None, allowed)
    return max(peaks + grown)
