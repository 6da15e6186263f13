"""The options of a batch, checked before any task runs."""

from __future__ import annotations

from coresize.arguments import check_count, check_seconds
from coresize.batch.journal import schema
from coresize.batch.outcomes import BAD
from coresize.errors import ConfigError
from coresize.executor.sharing import sharing
from coresize.model import Value
from coresize.planning.options import option


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any, Literal, TypeAlias

    from coresize.batch.progress import Show
    from coresize.batch.shards import By, Shard
    from coresize.executor.admission.needs import MemoryNeed
    from coresize.executor.sharing import Size, Writable

    OnError: TypeAlias = Literal["collect", "raise"]
    Serializer: TypeAlias = Literal["json", "pickle"]


_FLAG = "true or false"

#: The options that a settings file and the command line may set, and that `run_batch`
#: checks. The names are those of its arguments, except for ``function``, ``items``,
#: ``parameters`` and ``parallel``, which the command translates.
OPTIONS = (
    option("function", "text", '"module:function"'),
    option(
        *("items", "text", "a .jsonl, .csv or .txt file, or @PATTERN"),
        flag="--items",
        metavar="FILE",
        help="a .jsonl, .csv or .txt file, or @PATTERN for the paths of matching files",
    ),
    option(
        *("key", "text", "the name of a field"),
        flag="--key",
        metavar="FIELD",
        help="the field that identifies an item",
    ),
    option(
        *("parameters", "table", "a table of arguments for the function, by name"),
        default={},
    ),
    option(
        *("executor", "choice", '"process", "thread", "serial" or "joblib"'),
        choices=("process", "thread", "serial", "joblib"),
        flag="--executor",
        help="process, thread, serial or joblib",
    ),
    option(
        *("parallel", "flag", _FLAG),
        flag="--parallel",
        help="--no-parallel runs all tasks in this process, one after the other",
    ),
    option(
        *("max_workers", "whole", "a number above 0"),
        least=1,
        flag="--max-workers",
        metavar="N",
        help="upper bound for the number of workers",
    ),
    option(
        *("memory", "size", 'a size such as "2GiB", or "auto"'),
        flag="--memory",
        metavar="SIZE",
        help='memory that one task needs, such as "2GiB", or auto',
    ),
    option(
        *("cpus", "number", "cores that one task keeps busy, above 0"),
        flag="--cpus",
        metavar="N",
        help="cores that one task keeps busy (default: 1)",
    ),
    option(
        *("timeout", "number", "seconds that one task may take, above 0"),
        flag="--timeout",
        metavar="SECONDS",
        help="time limit of one task",
    ),
    option(
        *("retries", "whole", "a number, 0 or above"),
        flag="--retries",
        metavar="N",
        help="run a failed task again up to N times",
    ),
    option(
        *("retry", "list", 'a list of statuses, such as ["failed", "oom"]'),
        flag="--retry",
        metavar="STATUSES",
        help="run tasks with these statuses in the journal again: failed,oom",
    ),
    option("retry_timeouts", "flag", _FLAG),
    option(
        *("oom_retries", "whole", "a number, 0 or above"),
        flag="--oom-retries",
        metavar="N",
        help="run a task that was killed for memory again up to N times (default: 1)",
    ),
    option(
        *("journal", "text", "the path of a file"),
        flag="--journal",
        metavar="FILE",
        help="store the outcomes in FILE, and continue from it",
    ),
    option(
        *("serializer", "choice", '"json" or "pickle"'),
        choices=tuple(schema.SERIALIZERS),
        flag="--serializer",
        help="format of the values in the journal: json or pickle",
    ),
    option(
        *("shard", "text", '"i/n" or "auto"'),
        flag="--shard",
        metavar="I/N",
        help="run only this shard, or auto in an array job",
    ),
    option(
        *("shard_by", "choice", '"index" or "key"'),
        choices=("index", "key"),
        flag="--shard-by",
        help="index (in turn) or key (by hash)",
    ),
    option(
        *("share_from", "size", 'a size such as "64KiB"'),
        flag="--share-from",
        metavar="SIZE",
        help="data from this size on lie in memory that workers share (default: 64KiB)",
    ),
    option(
        *("writable", "choice", '"copy"'),
        choices=("copy",),
        flag="--writable",
        help="copy: each task may write to its own copy of shared arrays",
    ),
)

#: The options that only `run_batch` takes.
_MORE = (
    option("buffersize", "whole", "a number above 0", least=1),
    option("on_error", "choice", "", choices=("collect", "raise")),
)


#: These may be objects or None, too.
_CHECKED_ELSEWHERE = ("executor", "writable")


class Options(Value):
    """The arguments of `coresize.run_batch`, except for the function and the items."""

    executor: Executor | str
    max_workers: int | None
    memory: MemoryNeed | None
    cpus: float
    timeout: float | None
    oom_retries: int
    share_from: Size | None
    writable: Writable | None
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
        for row in (*OPTIONS, *_MORE):
            value = getattr(self, row.name, None)
            if row.kind == "choice" and row.name not in _CHECKED_ELSEWHERE:
                if value not in row.choices:
                    allowed = " or ".join(map(repr, row.choices))
                    raise ConfigError(row.name, value, allowed)
            elif row.kind == "whole" and value is not None:
                check_count(row.name, value, row.least)
        sharing(self.share_from, self.writable)  # checks them
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
        """Check that statuses are known, and no name is empty (an unset variable).

        Raises:
            ConfigError: a status is not known, or a name is empty.
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
