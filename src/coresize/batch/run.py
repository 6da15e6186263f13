"""Many tasks run to the end, over any executor, with what became of each."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Generic, TypeVar

from coresize.batch.engine import Engine, Reader
from coresize.batch.journal.identity import name_of
from coresize.batch.options import Options
from coresize.errors import ConfigError, CoresizeError
from coresize.processes import nesting, transfer
from coresize.processes.main_module import refuse_while_importing


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor
    from types import TracebackType
    from typing import Any, Self

    from coresize.batch.options import OnError, Serializer
    from coresize.batch.outcomes import BatchReport, Outcome
    from coresize.batch.progress import Show
    from coresize.batch.shards import By, Shard
    from coresize.executor.admission.needs import Memory

T = TypeVar("T")


def run_batch(
    fn: Callable[[Any], T],
    items: Iterable[Any],
    *,
    executor: Executor | str = "process",
    max_workers: int | None = None,
    memory: Memory | None = None,
    cpus: float = 1,
    key: Callable[[Any], object] | str | None = None,
    journal: str | os.PathLike[str] | None = None,
    shard: Shard | str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    on_error: OnError = "collect",
    progress: Show = None,
    retry: Iterable[str] = (),
    retry_timeouts: bool = False,
    oom_retries: int = 1,
    serializer: Serializer = "json",
    shard_by: By = "index",
    buffersize: int | None = None,
    history: bool | str | None = None,
    item_size: Callable[[Any], float] | None = None,
) -> BatchRun[T]:
    """Run a function over items to the end, whatever becomes of single ones.

    The batch runs while the `BatchRun` that this returns is read: iterate over it,
    or call ``results()`` or ``wait()``. No error of a task ends it; each becomes an
    `Outcome`. With a journal, what has ended is on disk before it is reported, and the
    next start goes on from there.

    Args:
        fn: what is called with each item. With "process", of a module or, with the
            extra ``cloudpickle``, of any kind.
        items: the items; an endless iterator is read as tasks end.
        executor: "process", "thread", "serial", "joblib" (its active backend), or an
            executor, which stays open.
        max_workers: workers at most; None is what `coresize.plan_workers` says.
        memory: bytes that one task needs, "2GiB", a callable of the item, a
            `coresize.TaskProfile`, or "auto" to learn it. Then a task that was killed
            for memory is run again, alone, so it must be safe to run twice.
        cpus: cores that one task keeps busy; of threads, below 1, the part of its time
            that it computes.
        key: a function that gives each item a text or number of its own, or the name
            of a field; with a journal, None is a hash of the item.
        journal: the SQLite file to keep what ended in, and to go on from. It is of one
            function (by name), its arguments bound by `functools.partial`, and one
            shard. Beside it are a lock and a ``.status.json``.
        shard: a `Shard`, "i/n", or "auto" for the place in an array job; None is what
            CORESIZE_SHARD says, else all. That variable is for one batch of a program,
            and for none of its tasks; "0/1" is all items, whatever it says.
        retries: how often a task that failed is run again, after 0.5 s, 1 s ... 60 s.
        timeout: seconds that a task may take, in which it could run; only with
            "process".
        on_error: "collect" leaves failures to the outcomes; "raise" raises them
            together when everything else is done.
        progress: True for a bar at a terminal (with the extra ``progress``) or lines on
            standard error; None for lines in the log "coresize", at INFO; False for
            none; or what is called with each `coresize.batch.progress.Progress`.
        retry: what became of tasks at an earlier start that are run again, such as
            ("failed", "oom").
        retry_timeouts: retries are for what took too long, too.
        oom_retries: how often a task that was killed for memory is run again.
        serializer: how the journal keeps values: "json", or "pickle" for any kind;
            to read a pickle runs code of whoever wrote it.
        shard_by: how "i/n" deals items out: "index" in turn, "key" by a hash.
        buffersize: tasks that are in flight or wait at most; None goes by the rate.
        history: keep what tasks took under the function's name, or this one, for
            ``plan_workers(profile="history:NAME")``; None is what the settings say.
        item_size: a function that gives the size of an item for the history; None takes
            a number as it is, and of what has a length its length.

    Returns:
        The batch, yet to be read.

    Raises:
        ConfigError: an argument is not valid, or two items have one key.
        JournalError: the journal is of another run, in use, or cannot be written.
        TransferError: the function cannot be sent to another process.

    >>> from coresize import run_batch
    >>> run = run_batch(abs, [-1, -2, -3], executor="serial")
    >>> [(outcome.index, outcome.status, outcome.value) for outcome in run]
    [(0, 'ok', 1), (1, 'ok', 2), (2, 'ok', 3)]
    >>> run.report.counts["ok"], run.report.failed
    (3, 0)
    """
    if not callable(fn):
        raise ConfigError("fn", fn, "a function")
    options = Options(
        executor=executor,
        max_workers=max_workers,
        memory=memory,
        cpus=cpus,
        timeout=timeout,
        oom_retries=oom_retries,
        buffersize=buffersize,
        key=key,
        shard=shard,
        shard_by=shard_by,
        journal=None if journal is None else os.fspath(journal),
        serializer=serializer,
        retry=(retry,) if isinstance(retry, str) else tuple(retry),
        retries=retries,
        retry_timeouts=retry_timeouts,
        on_error=on_error,
        progress=progress,
        history=history,
        item_size=item_size,
    )
    refuse_while_importing("run no batch")
    return BatchRun(fn, items, options)


def parallel_map(
    fn: Callable[[Any], T], items: Iterable[Any], **options: Any
) -> list[T]:
    """The values of a function over items, in their order; `run_batch` in short.

    The first failure ends it: what has not begun is cancelled, and what the function
    raised is raised here, with a note that names the item. It does all items, whatever
    CORESIZE_SHARD says.

    Args:
        fn: as of `run_batch`.
        items: as of `run_batch`.
        options: as of `run_batch`.

    Raises:
        BaseException: what a task raised, or how it ended.

    >>> from coresize import parallel_map
    >>> parallel_map(abs, [-1, -2, -3], executor="thread")
    [1, 2, 3]
    """
    values: dict[int, T] = {}
    # It is a part of something larger, which is not split by splitting this.
    part = nesting.task() if options.get("shard") is None else contextlib.nullcontext()
    with part:
        begun = run_batch(fn, items, **options)
    with begun as run:
        for outcome in run:
            if outcome.error is not None:
                note = f"of item {outcome.index}: {fn!r} in a batch"
                transfer.add_note(outcome.error, note)
                raise outcome.error
            values[outcome.index] = outcome.value
    return [values[index] for index in sorted(values)]


class BatchRun(Generic[T]):
    """A batch, which runs while it is read.

    Iterating gives the outcome of each task as it ends; what is in flight is bounded,
    so a reader who stops for a while stops the batch. ``results()`` gives the values,
    and ``wait()`` drops them; each reads the batch to its end, once. Closing it, or
    leaving it as a context manager, cancels what has not begun.
    """

    def __init__(
        self, function: Callable[[Any], T], items: Iterable[Any], options: Options
    ) -> None:
        self._name = name_of(function)
        self._engine = Engine(function, items, options)
        raises = options.on_error == "raise"
        self._reader = Reader(self._engine, self._name, raises=raises)
        self._begun = False

    def __iter__(self) -> Iterator[Outcome]:
        """The outcomes, as tasks end.

        Raises:
            ExceptionGroup: tasks have failed, at the end, where ``on_error="raise"``.
            CoresizeError: the executor is broken, or the journal cannot be written.
        """
        self._begun = True
        return self._reader

    def results(self) -> list[T | BaseException]:
        """The values in the order of the input, those of earlier starts among them.

        In place of a value that is not there stands the error, as of
        ``asyncio.gather(return_exceptions=True)``.

        Raises:
            CoresizeError: outcomes were read already.
            ExceptionGroup: tasks have failed, where ``on_error="raise"``.
        """
        if self._begun:
            msg = "outcomes were read already: either iterate, or call results()"
            raise CoresizeError(msg)
        found: dict[int, T | BaseException] = {}
        for one in self:
            found[one.index] = one.value if one.error is None else one.error
        return [found[index] for index in sorted(found)]

    def wait(self) -> BatchReport:
        """Run to the end, for what is in the journal or for what tasks do."""
        for _ in self:
            pass
        return self._engine.report()

    @property
    def report(self) -> BatchReport:
        """What the batch has come to so far; one that nobody has read is run first."""
        return self._engine.report() if self._begun else self.wait()

    def close(self) -> None:
        """Cancel what has not begun, wait for what runs, write what has ended."""
        self._begun = True
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; after Ctrl-C without waiting for tasks that are running."""
        self._begun = True
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._reader.close(interrupted=interrupted)

    def __del__(self) -> None:
        """Warn of what nobody has read; the reader ends the batch."""
        if not getattr(self, "_begun", True):
            text = f"the batch of {self._name} was never read, so nothing of it ran"
            warnings.warn(text, RuntimeWarning, stacklevel=2, source=self)
