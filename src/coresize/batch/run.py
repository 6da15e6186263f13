"""Runs many tasks to the end, on any executor, and returns an outcome for each."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Generic, TypeVar

from coresize.arguments import check_sync
from coresize.batch.engine import Engine, Reader
from coresize.batch.journal.identity import name_of
from coresize.batch.options import Options
from coresize.errors import ConfigError, CoresizeError
from coresize.executor.sharing import SHARE_FROM
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
    from coresize.executor.admission.needs import MemoryNeed
    from coresize.executor.sharing import Size, Writable

T = TypeVar("T")


def run_batch(
    fn: Callable[[Any], T],
    items: Iterable[Any],
    *,
    executor: Executor | str = "process",
    max_workers: int | None = None,
    memory: MemoryNeed | None = None,
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
    share_from: Size | None = SHARE_FROM,
    writable: Writable | None = None,
) -> BatchRun[T]:
    """Run a function on all items, even if single tasks fail.

    The batch runs while the returned `BatchRun` is read: iterate over it, or call
    ``results()`` or ``wait()``. The error of a task does not end the batch; it is part
    of the task's `Outcome`. With a journal, an outcome is on disk before it is
    reported, and the next start continues from there.

    Args:
        fn: the function; it is called with one item. With "process", it must belong to
            a module, unless the extra ``cloudpickle`` is installed.
        items: the items; an endless iterator is read as tasks end.
        executor: "process", "thread", "serial", "joblib" (its active backend), or an
            executor, which the batch does not shut down.
        max_workers: the most workers; None takes the number of `coresize.plan_workers`.
        memory: bytes that one task needs, "2GiB", a callable of the item, a
            `coresize.TaskProfile`, or "auto" to learn it. Then a task that was killed
            for memory runs again, alone, so it must be safe to run twice.
        cpus: cores that one task keeps busy; for threads, a number below 1 is the part
            of its time that a task computes.
        key: a function that returns a unique text or number for an item, or the name
            of a field; with a journal, None takes a hash of the item.
        journal: the SQLite file that stores the outcomes, and from which the next start
            continues. It belongs to one function (by name), the arguments bound to it
            by `functools.partial`, and one shard. A lock file and a ``.status.json``
            file are beside it.
        shard: a `Shard`, "i/n", or "auto" for the index in an array job; None takes
            CORESIZE_SHARD, or all items if that is not set. The variable is for one
            batch of a program and never for a batch in a task; "0/1" always means all
            items.
        retries: how often a failed task runs again, after 0.5 s, 1 s ... 60 s.
        timeout: seconds that a task may take, without the time in which it could not
            run; only with "process".
        on_error: "collect" leaves failures in the outcomes; "raise" raises them
            together after all tasks have ended.
        progress: True for a bar at a terminal (with the extra ``progress``) or lines on
            standard error; None for lines in the log "coresize", at INFO; False for
            nothing; or a function of each `coresize.batch.progress.Progress`.
        retry: statuses such as ("failed", "oom"): a task that ended with one of them at
            an earlier start runs again.
        retry_timeouts: ``retries`` also apply to tasks that exceeded the timeout.
        oom_retries: how often a task that was killed for memory runs again, as for
            `coresize.ProcessPoolExecutor`.
        serializer: how the journal stores values: "json", or "pickle" for any type;
            reading a pickle runs code of whoever wrote it.
        shard_by: how "i/n" assigns items: "index" in turn, "key" by a hash of the key.
        buffersize: the most tasks in flight or waiting; None adapts it to the rate.
        history: record what tasks took under the function's name, or this name, for
            ``plan_workers(profile="history:NAME")``; None follows the settings.
        item_size: a function that returns the size of an item for the history; None
            takes the value of a number, and the length of an item that has one.
        share_from: the size from which on buffers lie in memory that workers share, as
            for `coresize.ProcessPoolExecutor`; only with "process".
        writable: what tasks may do with shared arrays, likewise.

    Returns:
        The batch; its tasks start when it is read.

    Raises:
        ConfigError: an argument is not valid, or two items have the same key.
        JournalError: the journal belongs to another run, is in use, or cannot be
            written.
        TransferError: the function cannot be sent to another process.
        TypeError: the function is ``async def``.

    >>> from coresize import run_batch
    >>> run = run_batch(abs, [-1, -2, -3], executor="serial")
    >>> [(outcome.index, outcome.status, outcome.value) for outcome in run]
    [(0, 'ok', 1), (1, 'ok', 2), (2, 'ok', 3)]
    >>> run.report.counts["ok"], run.report.failed
    (3, 0)
    """
    if not callable(fn):
        raise ConfigError("fn", fn, "a function")
    check_sync(fn)
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
        share_from=share_from,
        writable=writable,
    )
    refuse_while_importing("run no batch")
    return BatchRun(fn, items, options)


def parallel_map(
    fn: Callable[[Any], T], items: Iterable[Any], **options: Any
) -> list[T]:
    """Return the values of a function for all items, in the order of the items.

    This is a short form of `run_batch`. The first failure ends it: tasks that have not
    begun are cancelled, and the error of the task is raised, with a note that names the
    item. It ignores CORESIZE_SHARD.

    Args:
        fn: as for `run_batch`.
        items: as for `run_batch`.
        options: as for `run_batch`.

    Raises:
        BaseException: the error that a task raised, or that says how it ended.

    >>> from coresize import parallel_map
    >>> parallel_map(abs, [-1, -2, -3], executor="thread")
    [1, 2, 3]
    """
    values: dict[int, T] = {}
    # The map is one step of a larger program; CORESIZE_SHARD does not split this step.
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
    """A batch that runs while it is read.

    Iterate over it for the outcome of each task, as tasks end. The number of tasks in
    flight is bounded, so the batch pauses when its reader does. ``results()`` returns
    the values, and ``wait()`` drops them; each reads the batch to its end, once. To
    close the batch, or to leave its ``with`` block, cancels tasks that have not begun.
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
        """Return an iterator over the outcomes, as tasks end.

        Raises:
            ExceptionGroup: at the end, tasks have failed, with ``on_error="raise"``.
            CoresizeError: the executor is broken, or the journal cannot be written.
        """
        self._begun = True
        return self._reader

    def results(self) -> list[T | BaseException]:
        """Return the values in the order of the input, with those of earlier starts.

        A task without a value has its error there, as with
        ``asyncio.gather(return_exceptions=True)``.

        Raises:
            CoresizeError: the outcomes were read already.
            ExceptionGroup: tasks have failed, with ``on_error="raise"``.
        """
        if self._begun:
            msg = "outcomes were read already: either iterate, or call results()"
            raise CoresizeError(msg)
        found: dict[int, T | BaseException] = {}
        for one in self:
            found[one.index] = one.value if one.error is None else one.error
        return [found[index] for index in sorted(found)]

    def wait(self) -> BatchReport:
        """Run to the end for the journal or for side effects; drop the values."""
        for _ in self:
            pass
        return self._engine.report()

    @property
    def report(self) -> BatchReport:
        """The report of the batch so far; a batch that nobody has read is run first."""
        return self._engine.report() if self._begun else self.wait()

    def close(self) -> None:
        """Cancel tasks that have not begun, wait for the rest, write their outcomes."""
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
        """Close the batch; after Ctrl-C, do not wait for tasks that are running."""
        self._begun = True
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._reader.close(interrupted=interrupted)

    def __del__(self) -> None:
        """Warn if nobody has read the batch; the `Reader` ends it."""
        if not getattr(self, "_begun", True) and self._reader.is_here:
            text = f"the batch of {self._name} was never read, so nothing of it ran"
            warnings.warn(text, RuntimeWarning, stacklevel=2, source=self)
