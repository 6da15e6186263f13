"""The shards of a batch as one job of a cluster: what it runs, and with how much. Pure.

`slurm` and `kubernetes` make the text from the value here; neither looks at anything
else, so that a job can be read before it is submitted, and written on a machine that
does not reach the cluster.
"""

from __future__ import annotations

import math
import re

from coresize.errors import ConfigError
from coresize.model import Value
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

#: The placeholders in the command line of a shard, and in the path of its journal.
SHARD, INDEX, COUNT = "{shard}", "{index}", "{count}"

_PLACES = re.compile(r"(\{shard\}|\{index\}|\{count\})")


class ArrayJob(Value):
    """The shards of a batch as one job of a cluster.

    Attributes:
        name: the name of the job.
        count: the number of shards of the whole batch.
        indices: the shards that this job runs, in ascending order.
        words: the command line of a shard, with placeholders.
        cores: cores of a shard.
        memory: bytes of a shard; None leaves that to the cluster.
        seconds: the longest time that a shard may run; None leaves that to the cluster.
        grace: seconds from SIGTERM to the end by force.
        at_once: the most shards that run at a time; None for no such bound.
        logs: the folder of the logs.
        retry: statuses of tasks that run again, for CORESIZE_RETRY.
        directives: further options for sbatch.
        image: the image of the container.
        claim: the name of the volume claim for journals, and where it is mounted.
        restarts: how often Kubernetes starts a shard again.
        max_failed: the number of failed shards after which Kubernetes gives up all;
            None for no such bound.
    """

    name: str
    count: int
    indices: tuple[int, ...]
    words: tuple[str, ...]
    cores: float
    memory: int | None
    seconds: int | None
    grace: int
    at_once: int | None
    logs: str
    retry: tuple[str, ...]
    directives: tuple[str, ...]
    image: str | None
    claim: tuple[str, str] | None
    restarts: int
    max_failed: int | None

    def changed(self, **fields: object) -> ArrayJob:
        """The same job with other values of some fields."""
        return ArrayJob(**{**self.as_dict(), **fields})  # type: ignore[arg-type]

    @property
    def is_whole(self) -> bool:
        """Whether the job runs all shards of the batch."""
        return self.indices == tuple(range(self.count))

    @property
    def title(self) -> str:
        """What the job is, in one line."""
        if self.is_whole:
            return f"A batch in {format_count(self.count, 'shard')}, by coresize shards"
        shards = format_count(self.count, "shard")
        return f"Of {shards}: {ranges(self.indices)}, by coresize shards --again"


def fill(text: str, index: int, count: int) -> str:
    """A text with the placeholders replaced, for one shard.

    >>> fill("out-{index}-of-{count}.sqlite", 3, 8)
    'out-3-of-8.sqlite'
    """
    values = {SHARD: f"{index}/{count}", INDEX: str(index), COUNT: str(count)}
    return replaced(text, values, str)


def replaced(
    text: str, values: Mapping[str, str], literal: Callable[[str], str]
) -> str:
    """A text with the placeholders replaced, and all between them converted.

    Args:
        text: the text.
        values: the text for each placeholder.
        literal: the conversion of the rest, such as the quoting of a shell.
    """
    parts = (part for part in _PLACES.split(text) if part)
    return "".join(values[part] if part in values else literal(part) for part in parts)


def in_units(memory: int) -> tuple[int, str]:
    """An amount of memory, rounded up to whole MiB, in the unit M or G (of 1024).

    >>> in_units(8 * 1024**3), in_units(1024**3 + 1)
    ((8, 'G'), (1025, 'M'))
    """
    mebibytes = math.ceil(memory / 1024**2)
    gibibytes, rest = divmod(mebibytes, 1024)
    return (mebibytes, "M") if rest else (gibibytes, "G")


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as Slurm writes them.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    return ",".join(
        str(first) if first == last else f"{first}-{last}"
        for first, last in _runs(numbers)
    )


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def journal_of(words: Sequence[str]) -> str | None:
    """The journal in a command line with the option ``--journal``; None without one.

    >>> journal_of(["coresize", "batch", "tasks:run", "--journal", "out-{index}.db"])
    'out-{index}.db'
    """
    for place, word in enumerate(words):
        option, equals, path = word.partition("=")
        if option == "--journal":
            if equals:
                return path
            return words[place + 1] if place + 1 < len(words) else None
    return None


def check_journal(given: str | None, words: Sequence[str], count: int) -> str | None:
    """The path of the journals, with placeholders; None if it is not known.

    Args:
        given: the path, if it was given by itself.
        words: the command line of a shard, which may have it as ``--journal``.
        count: the number of shards.

    Raises:
        ConfigError: all shards would write to the same journal.
    """
    path = journal_of(words) if given is None else given
    if path is None or count == 1 or SHARD in path or INDEX in path:
        return path
    allowed = 'a path with {index}, such as "out-{index}.sqlite": one for each shard'
    raise ConfigError("--journal", path, allowed)
