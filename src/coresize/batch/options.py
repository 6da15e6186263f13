"""How a batch is to be run, checked before anything is."""

from __future__ import annotations

from coresize.arguments import check_count, check_seconds
from coresize.batch.journal import schema
from coresize.batch.outcomes import BAD
from coresize.errors import ConfigError
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any, Literal, TypeAlias

    from coresize.batch.progress import Show
    from coresize.batch.shards import By, Shard
    from coresize.executor.admission.needs import Memory

    OnError: TypeAlias = Literal["collect", "raise"]
    Serializer: TypeAlias = Literal["json", "pickle"]


class Options(Value):
    """What `coresize.run_batch` takes, but for the function and the items."""

    executor: Executor | str
    max_workers: int | None
    memory: Memory | None
    cpus: float
    timeout: float | None
    oom_retries: int
    buffersize: int | None
    key: Callable[[Any], object] | str | None
    shard: Shard | str | None
    shard_by: By
    journal: str | None
    serializer: Serializer
    retry: tuple[str, ...]
    retries: int
    retry_timeouts: bool
    on_error: OnError
    progress: Show
    history: bool | str | None
    item_size: Callable[[Any], float] | None

    def __init__(self, **fields: Any) -> None:
        if fields["journal"] is not None:
            fields["journal"] = schema.check_path("journal", fields["journal"])
        super().__init__(**fields)
        self._check_names()
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(name, value, " or ".join(map(repr, choices)))
        for name, least in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None:
                check_count(name, value, least)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)
        plain = self.progress is None or isinstance(self.progress, bool)
        if not (plain or callable(self.progress)):
            allowed = "True, False, None or a function"
            raise ConfigError("progress", self.progress, allowed)
        size: object = self.item_size
        if size is not None and not callable(size):
            allowed = "None, or a function that gives the size of an item"
            raise ConfigError("item_size", size, allowed)

    def _check_names(self) -> None:
        """See that statuses are known and no name is empty, as a variable not set is.

        Raises:
            ConfigError: one is not.
        """
        for status in self.retry:
            if status not in BAD:
                raise ConfigError("retry", status, f"some of {', '.join(BAD)}")
        for name, allowed in _NAMES.items():
            if getattr(self, name) == "":
                raise ConfigError(name, "", allowed)


_NAMES = {
    "key": "a function, or the name of a field",
    "history": "True, False, or a name to keep it under",
}
_CHOICES = {
    "serializer": schema.SERIALIZERS,
    "on_error": ("collect", "raise"),
    "shard_by": ("index", "key"),
}
_NUMBERS = {"retries": 0, "oom_retries": 0, "buffersize": 1, "max_workers": 1}
