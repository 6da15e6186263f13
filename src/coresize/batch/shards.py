"""Shards: which part of a batch is done here."""

from __future__ import annotations

from coresize.batch import arrays
from coresize.batch.keys import bucket
from coresize.errors import ConfigError
from coresize.host import SHARD, current
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from coresize.host import Host

    By: TypeAlias = Literal["index", "key"]

AUTO = "auto"
_BY = ("index", "key")


class Shard(Value):
    """One of several parts of a batch that together are all of it.

    Args:
        text: "i/n": the part i of n, counted from 0; "0/4" to "3/4".
        by: "index" deals the items out in turn, as they come: shard 0 of 4 takes 0, 4,
            8 ...; "key" goes by a hash of the key, so that items which are added later
            move no other.

    Attributes:
        index: which part, from 0.
        count: how many parts there are.
        by: how items are dealt out.

    Raises:
        ConfigError: the text is no such part.

    >>> from coresize import Shard
    >>> shard = Shard("1/4")
    >>> [index for index in range(10) if shard.takes(index)]
    [1, 5, 9]
    """

    __slots__ = ("index", "count", "by")  # noqa: RUF023

    index: int
    count: int
    by: By

    def __init__(self, text: str, *, by: By = "index") -> None:
        if by not in _BY:
            raise ConfigError("shard_by", by, '"index" or "key"')
        index, count = _parsed(text)
        super().__init__(index=index, count=count, by=by)

    def takes(self, index: int, key: str = "") -> bool:
        """Whether an item is of this part, by its place in the input or its key."""
        if self.by == "key":
            return bucket(key, self.count) == self.index
        return index % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def __reduce__(  # type: ignore[override] # it is made from its text
        self,
    ) -> tuple[Callable[..., Shard], tuple[str, By]]:
        return _rebuild, (str(self), self.by)


def _rebuild(text: str, by: By) -> Shard:
    return Shard(text, by=by)


def _parsed(text: object) -> tuple[int, int]:
    first, slash, second = str(text).strip().partition("/")
    if not (slash and arrays.is_whole(first) and arrays.is_whole(second)):
        allowed = '"i/n", the part i of n, counted from 0: "0/4" to "3/4"'
        raise ConfigError("shard", text, allowed)
    index, count = int(first), int(second)
    if count < 1:
        raise ConfigError("shard", text, '"i/n" with n above 0')
    if not 0 <= index < count:
        allowed = f'"0/{count}" to "{count - 1}/{count}": parts are counted from 0'
        if index == count:
            allowed += f"; tools that count from 1 call the last of them {text}"
        raise ConfigError("shard", text, allowed)
    return index, count


def find_shard(
    shard: Shard | str | None, *, by: By = "index", host: Host | None = None
) -> Shard | None:
    """The part that is to be done: as given, or of CORESIZE_SHARD, or of an array job.

    Args:
        shard: a `Shard`, "i/n", "auto" for the place in an array job, or None for what
            CORESIZE_SHARD says.
        by: how items are dealt out, where that is not said yet.
        host: the machine; None is this one.

    Returns:
        The part, or None for the whole.

    Raises:
        ConfigError: it is no such part, or there is no array job.
    """
    if isinstance(shard, Shard):
        return shard
    host = host or current()
    named = shard is not None  # "" is an error: a variable that is not set, perhaps
    text = shard if named else host.variables(frozenset({SHARD})).get(SHARD)
    if text is None:
        return None
    return Shard(arrays.place(host) if text == AUTO else text, by=by)
