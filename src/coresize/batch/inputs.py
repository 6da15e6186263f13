"""The input of a batch: each item with its key, and only those of this shard."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

from coresize.batch import keys
from coresize.errors import ConfigError
from coresize.processes import transfer
from coresize.storage import SeenKeys


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from coresize.batch.shards import Shard


class Entry:
    """One item that is to be run.

    Attributes:
        index: its place in the input.
        key: what it is known by.
        item: the item.
        tries: how often it was submitted.
        began: when it was, the last time, by the monotonic clock.
        seconds: from then until the executor had an answer.
    """

    __slots__ = ("began", "index", "item", "key", "seconds", "tries")

    def __init__(self, index: int, key: str, item: Any) -> None:
        self.index = index
        self.key = key
        self.item = item
        self.tries = 0
        self.began = self.seconds = 0.0


class Input:
    """The items of a batch.

    Args:
        items: any iterable, endless too.
        key: what gives an item its key, or the name of a field; None is a stable hash
            where keys are needed, else the place in the input.
        shard: the part to take; None is all.
        keyed: keys are needed: they are told apart, and one that comes twice is an
            error.

    Attributes:
        whole: how many there are in all; None where that cannot be told.
        total: how many there are to take; None where that cannot be told.
        read: how many were read so far, those of other shards, too.
    """

    def __init__(
        self,
        items: Iterable[Any],
        key: Callable[[Any], object] | str | None,
        shard: Shard | None,
        *,
        keyed: bool,
    ) -> None:
        self._items = items
        self._key = keys.named(key) if isinstance(key, str) else key
        self._shard = shard
        self._keyed = keyed or key is not None
        self.whole = len(items) if isinstance(items, Sized) else None
        self.total = self._count()
        self.read = 0

    def _count(self) -> int | None:
        shard = self._shard
        if self.whole is None or shard is None:
            return self.whole
        if shard.by == "index":
            return len(range(shard.index, self.whole, shard.count))
        return None

    def check(self) -> None:
        """See before anything runs that no key comes twice, where that is possible.

        Raises:
            ConfigError: one does, or has no stable hash.
        """
        if not self._keyed or not isinstance(self._items, Sequence):
            return
        repeated: list[str] = []
        with contextlib.closing(SeenKeys()) as seen:
            self.total = sum(1 for _ in self._told(seen, repeated))
        if repeated:
            raise _repeated(repeated)

    def __iter__(self) -> Iterator[Entry]:
        """The entries, as they are asked for."""
        checked = not self._keyed or isinstance(self._items, Sequence)
        repeated: list[str] = []
        with contextlib.closing(SeenKeys()) as seen:
            for entry in self._told(None if checked else seen, repeated):
                if repeated:
                    raise _repeated(repeated)
                self.read = entry.index + 1
                yield entry
        if repeated:
            raise _repeated(repeated)

    def _told(self, seen: SeenKeys | None, repeated: list[str]) -> Iterator[Entry]:
        """The entries of this shard; keys that come twice are added to a list."""
        shard, index = self._shard, -1
        by_key = shard is not None and shard.by == "key"
        for index, item in enumerate(self._items):
            key = self._key_of(index, item) if self._keyed or by_key else str(index)
            before = None if seen is None else seen.add(key, index)
            if before is not None:
                repeated.append(f"{key!r} of items {before} and {index}")
            if shard is None or shard.takes(index, key):
                yield Entry(index, key, item)
        self.read = index + 1

    def _key_of(self, index: int, item: Any) -> str:
        try:
            if self._key is None:
                return keys.stable_key(item)
            return keys.checked(self._key(item), item)
        except Exception as error:
            note = f"while taking the key of item {index}: {item!r:.200}"
            transfer.add_note(error, note)
            raise


#: More keys than that are not named.
_NAMED = 10


def _repeated(repeated: list[str]) -> ConfigError:
    """The error for keys that come twice."""
    named = ", ".join(repeated[:_NAMED])
    if len(repeated) > _NAMED:
        named += f" and {len(repeated) - _NAMED} more"
    return ConfigError("items", named, "a key of its own for each item, by key=")
