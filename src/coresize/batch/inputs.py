"""The input of a batch: the items of this shard, each with its key."""

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
    """One item to run.

    Attributes:
        index: the place of the item in the input.
        key: the text that identifies the item.
        item: the item.
        tries: how often the item was submitted.
        alone: its worker died, perhaps of another task: it runs again with no other.
        began: when it was submitted the last time, by the monotonic clock.
        seconds: seconds from then until the executor had an answer.
    """

    __slots__ = ("alone", "began", "index", "item", "key", "seconds", "tries")

    def __init__(self, index: int, key: str, item: Any) -> None:
        self.index = index
        self.key = key
        self.item = item
        self.tries = 0
        self.alone = False
        self.began = self.seconds = 0.0


class Input:
    """The items of a batch.

    Args:
        items: any iterable, even an endless one.
        key: a function that returns the key of an item, or the name of a field; None
            takes a stable hash if keys are needed, else the place in the input.
        shard: the shard whose items are taken; None takes all items.
        keyed: keys are needed, and the same key for two items is an error.

    Attributes:
        whole: number of items of all shards; None if that is not known.
        total: number of items of this shard; None if that is not known.
        read: number of items read so far, with those of other shards.
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
        """Check a sequence before any task runs: no two items have the same key.

        Raises:
            ConfigError: two items have the same key, or an item has no stable hash.
        """
        if not self._keyed or not isinstance(self._items, Sequence):
            return
        repeated: list[str] = []
        with contextlib.closing(SeenKeys()) as seen:
            self.total = sum(1 for _ in self._checked(seen, repeated))
        if repeated:
            raise _repeated(repeated)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries of this shard, and check keys that `check` could not."""
        checked = not self._keyed or isinstance(self._items, Sequence)
        repeated: list[str] = []
        with contextlib.closing(SeenKeys()) as seen:
            for entry in self._checked(None if checked else seen, repeated):
                if repeated:
                    raise _repeated(repeated)
                self.read = entry.index + 1
                yield entry
        if repeated:
            raise _repeated(repeated)

    def _checked(self, seen: SeenKeys | None, repeated: list[str]) -> Iterator[Entry]:
        """Yield the entries of this shard; add each repeated key to the list."""
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


#: The most repeated keys that the error names.
_NAMED = 10


def _repeated(repeated: list[str]) -> ConfigError:
    """The error for keys that several items have."""
    named = ", ".join(repeated[:_NAMED])
    if len(repeated) > _NAMED:
        named += f" and {len(repeated) - _NAMED} more"
    return ConfigError("items", named, "a key of its own for each item, by key=")
