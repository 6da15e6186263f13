"""The loop of a batch: it submits items, writes outcomes and reports them.

Rule 1: an outcome is written before it is reported. Rule 2: the number of items that
are taken from the input, in flight, or waiting to be written is bounded for any input.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from concurrent.futures import BrokenExecutor, wait
from typing import TYPE_CHECKING

from coresize.batch.executors import Pool
from coresize.batch.inflight import InFlight, outcome_of
from coresize.batch.inputs import Input
from coresize.batch.journal import writer as journals
from coresize.batch.journal.identity import identify, name_of
from coresize.batch.journal.status import StatusFile, paths
from coresize.batch.journal.writer import Journal
from coresize.batch.outcomes import BatchReport
from coresize.batch.progress import Display, Tally, Throttle, held
from coresize.batch.recorder import Recorder
from coresize.batch.shards import Claim
from coresize.batch.task import ENCODERS, Task
from coresize.errors import CoresizeError, JournalError
from coresize.planning.settings import load_settings
from coresize.processes import exit_hooks, nesting, transfer
from coresize.processes.ownership import Owner
from coresize.units import format_count


if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, Self

    from coresize.batch.inputs import Entry
    from coresize.batch.options import Options
    from coresize.batch.outcomes import Outcome
    from coresize.batch.shards import Shard
    from coresize.planning.settings import Settings


# -----------------------------------------------------------------------------
# The executor, journal and history that the options of a batch ask for.


def open_recorder(
    function: Callable[[Any], Any], options: Options, settings: Settings
) -> Recorder | None:
    """The recorder of the history, if the options or the settings ask for it."""
    asked = settings.history if options.history is None else options.history
    if not asked:
        return None
    name = asked if isinstance(asked, str) else name_of(function)
    return Recorder(name, options.item_size)


def open_journal(
    function: Callable[[Any], Any], shard: Shard | None, options: Options
) -> Journal | None:
    """The journal, if the options ask for one."""
    if options.journal is None:
        return None
    identity = identify(function, shard, options.serializer)
    try:
        return Journal(options.journal, identity)
    except JournalError:
        # The journal may belong to a run that was dropped and is about to end. A task
        # must not wait for that, since it may be a task of that run.
        if nesting.is_task() or not exit_hooks.wait():
            raise
    return Journal(options.journal, identity)


def open_pool(options: Options, settings: Settings) -> Pool:
    """The executor: the caller's, or a new one."""
    return Pool(
        options.executor,
        max_workers=options.max_workers,
        memory=options.memory,
        cpus=options.cpus,
        timeout=options.timeout,
        oom_retries=options.oom_retries,
        share_from=options.share_from,
        writable=options.writable,
        settings=settings,
    )


#: The most seconds that the loop waits for a task to end.
_LOOK = 0.5

#: Seconds between two commits to the journal; each writes all tasks that have ended.
_COMMIT = 0.05

#: Seconds between two writes of the status, and the largest part of the time that they
#: may take. The memory in it takes longer to measure, and is measured less often.
_STATUS, _STATUS_SHARE = 1.0, 0.05

#: The most changes of the number of workers that the report has.
_KEPT = 1000

#: Statuses of tasks that end because their run is stopped, as by Ctrl-C, and their
#: workers with it: the next start runs these tasks again.
_LOST = ("cancelled", "killed", "crashed")

#: The most outcomes of earlier starts that are read before they are reported.
_SKIPPED = 1000


class Engine:
    """Runs one batch.

    Args:
        function: the function; it is called with one item.
        items: the input.
        options: the other arguments of `run_batch`.
    """

    def __init__(
        self, function: Callable[[Any], Any], items: Iterable[Any], options: Options
    ) -> None:
        self._options = options
        self._journal: Journal | None = None
        with contextlib.ExitStack() as undo:  # closes everything if a step fails
            claim = Claim(
                options.shard,
                by=options.shard_by,
                journal=options.journal,
                name=name_of(function),
            )
            undo.callback(claim.release)
            shard = claim.shard
            keyed = options.journal is not None
            self._input = Input(items, options.key, shard, keyed=keyed)
            self._input.check()
            settings = load_settings()
            self._recorder = open_recorder(function, options, settings)
            self._pool = open_pool(options, settings)
            undo.callback(self._pool.close, interrupted=False)
            if self._pool.traits.pickles:  # one error now instead of one for each task
                transfer.check(function)
            self._journal = open_journal(function, shard, options)
            undo.callback(self._close_journal)
            self._prepare(function, claim)
            undo.pop_all()

    def _prepare(self, function: Callable[[Any], Any], claim: Claim) -> None:
        """Make the parts that cannot fail, and write the first status."""
        options = self._options
        self._status = [
            StatusFile(path, str(claim.shard or "0/1"), options.journal)
            for path in paths(options.journal, claim.status)
        ]
        self._throttle = Throttle(_STATUS, share=_STATUS_SHARE)
        self._measuring = Throttle(_STATUS)
        self._held = held() if self._status else None
        encode = ENCODERS[options.serializer] if self._journal else None
        self._decode = journals.DECODERS[options.serializer] if self._journal else None
        traits = self._pool.traits
        task = Task(
            function,
            encode,
            crosses=traits.pickles,
            watches=not traits.measures,
            sent=self._pool.once(function),
        )
        self._in_flight = InFlight(self._pool, task, options.buffersize)
        self._tally = Tally(self._input.total)
        self._display = Display(options.progress, self._tally, self._count_workers)
        self._workers: list[tuple[float, int]] = []
        self._known: list[Outcome] = []
        self._again = (None, "cancelled", *options.retry, *claim.retry)
        self._ended: list[tuple[Outcome, object]] = []
        self._committed = 0.0
        self._stopped = False
        self._ending = threading.Lock()
        self._write_status("running")

    # --- The loop ---------------------------------------------------------------

    def steps(self) -> Generator[Outcome, None, None]:
        """Yield the outcomes as tasks end; the caller then calls `end`.

        The generator cleans nothing up, since the garbage collector may close it.

        Raises:
            CoresizeError: the executor is broken.
            ConfigError: two items have the same key.
            JournalError: the journal cannot be written.
        """
        entries: Iterator[Entry] | None = iter(self._input)
        if self._journal:
            self._journal.note_items(self._input.whole)
        while entries or self._in_flight.pending or self._ended:
            for entry in self._in_flight.due():
                self._in_flight.start(entry)
            if entries and self._fill(entries):
                entries = None
            if entries is None:
                self._in_flight.start_suspect()
            known, self._known = self._known, []
            for outcome in known:
                self._tally.add(outcome, earlier=True)
                yield outcome
            yield from self._settle(last=entries is None)
            self._tick()
            if self._in_flight.broken and not (self._in_flight.futures or self._ended):
                break
        if self._in_flight.broken:
            raise self._broken(self._in_flight.broken) from self._in_flight.broken
        if self._journal:
            self._journal.check_kept()

    def _broken(self, reason: RuntimeError) -> CoresizeError:
        return CoresizeError(
            "the executor is broken, and what has not run yet cannot be run: "
            f"{reason}{self._pool.hint}"
        )

    def _fill(self, entries: Iterator[Entry]) -> bool:
        """Submit items while there is room; returns True at the end of the input."""
        rate, ended = self._tally.rate, len(self._ended)
        while len(self._known) < _SKIPPED and self._in_flight.has_room(rate, ended):
            entry = next(entries, None)
            if entry is None:
                if self._journal:
                    self._journal.note_items(self._input.read)
                return True
            if not self._recall(entry):
                self._in_flight.start(entry)
        return False

    def _recall(self, entry: Entry) -> bool:
        """Whether an earlier start has run the task; `_known` then has its outcome."""
        if self._journal is None:
            return False
        result = self._journal.take(entry.key, entry.index)
        if result is None or result[0] in self._again:
            return False
        known = self._journal.recalled(entry.key, entry.index, result)
        self._known.append(known)
        return True

    def _settle(self, *, last: bool) -> Iterator[Outcome]:
        """Write the outcomes of tasks that have ended, then yield them."""
        self._land(self._patience())
        overdue = time.monotonic() - self._committed >= _COMMIT
        # A serial executor has no task in flight here, though the next may end at once.
        idle = not self._in_flight.pending and (last or not self._pool.is_serial)
        if not self._ended or not (overdue or idle):
            return
        ended, self._ended = self._ended, []
        self._write(ended)
        for outcome, _ in ended:
            yield outcome

    def _patience(self) -> float:
        """Seconds to wait for a task to end."""
        if self._known or not self._in_flight.pending:
            return 0.0
        if self._ended:
            return max(0.0, self._committed + _COMMIT - time.monotonic())
        return _LOOK

    def _land(self, patience: float) -> None:
        for entry, future in self._in_flight.completed(patience):
            outcome, written, began = outcome_of(entry, future, self._decode)
            if self._journal:
                outcome, written = self._journal.fitted(outcome, written)
            if began is not None:
                self._tally.begun(began)
            if _is_lost(outcome) and isinstance(outcome.error, BrokenExecutor):
                self._in_flight.broken = outcome.error
            if self._recorder:
                self._recorder.add(entry.item, outcome)
            if self._is_retried(entry, outcome):
                self._tally.retries += 1
                self._in_flight.retry(entry)
            elif self._in_flight.suspects(entry, outcome):
                self._tally.retries += 1
            else:
                self._ended.append((outcome, written))

    def _is_retried(self, entry: Entry, outcome: Outcome) -> bool:
        retried = ("failed", "timeout") if self._options.retry_timeouts else ("failed",)
        tries = entry.tries - entry.alone
        return outcome.status in retried and tries <= self._options.retries

    def _write(self, ended: list[tuple[Outcome, object]]) -> None:
        # No one knows which task broke the executor: all lost tasks run again, and so
        # neither journal nor status counts them as done.
        known = [one for one in ended if not _is_lost(one[0])]
        if self._journal:
            self._journal.write(known)
            self._committed = time.monotonic()
        for outcome, _ in known:
            self._tally.add(outcome)

    # --- Status, end and report -------------------------------------------------

    def _count_workers(self) -> int:
        return self._pool.observe().workers

    def _tick(self) -> None:
        self._display.tick()
        if self._status and self._throttle.due():
            with self._throttle:
                self._write_status("running")
                if self._journal:
                    self._journal.expect()
        count = self._count_workers()
        if not self._workers or self._workers[-1][1] != count:
            self._workers.append((round(self._tally.elapsed, 3), count))
            if len(self._workers) > _KEPT:
                del self._workers[1::2]

    def _write_status(self, state: str) -> None:
        if self._status:
            if self._measuring.due():
                with self._measuring:
                    self._held = held()
            progress = self._tally.progress(self._count_workers(), self._held)
            for file in self._status:
                file.write(progress, state)

    def end(self, *, done: bool = False, interrupted: bool = False) -> None:
        """Cancel tasks that have not begun, wait for the rest, write outcomes; once.

        Args:
            done: all tasks have been run.
            interrupted: running tasks are killed, if possible, and not waited for.
        """
        if not self._ending.acquire(blocking=False):
            return
        self._in_flight.cancel()
        self._stopped = not done
        try:
            if not interrupted:
                wait(self._in_flight.futures)
            self._pool.close(interrupted=interrupted)
        except BaseException:  # Ctrl-C, maybe again
            self.kill()
            raise
        finally:
            # The error was reported already; tasks that are not written run again.
            with contextlib.suppress(JournalError):
                self._land(0.0)
                self._write([one for one in self._ended if one[0].status not in _LOST])
                if self._journal:
                    self._journal.expect()
            self._ended.clear()
            self._tally.stop()
            if self._recorder:
                most = max((count for _, count in self._workers), default=0)
                self._recorder.save(workers=most, throughput=self._tally.rate)
            self._write_status("done" if done else "stopped")
            self._close_journal()
            self._display.close(stopped=self._stopped)

    def abandon(self) -> None:
        """End a batch that was never read."""
        if self._ending.acquire(blocking=False):
            self._pool.close(interrupted=False)
            self._write_status("stopped")
            self._close_journal()

    def kill(self) -> None:
        """Kill the running tasks, if possible."""
        self._pool.close(interrupted=True)

    def _close_journal(self) -> None:
        if self._journal:
            self._journal.close()

    def report(self) -> BatchReport:
        """The report so far."""
        tally, state = self._tally, self._pool.observe()
        return BatchReport(
            done=tally.done,
            total=tally.total,
            counts=dict(tally.counts),
            failed=tally.failed,
            retries=tally.retries,
            elapsed=tally.elapsed,
            rate=tally.rate,
            startup=tally.startup,
            workers=tuple(self._workers),
            kills=max(state.kills, tally.counts["oom"]),
            evictions=state.evictions,
            need=state.need,
            peak_memory=tally.peak_memory or None,
            line=tally.closing(stopped=self._stopped),
        )


def _is_lost(outcome: Outcome) -> bool:
    """Whether the executor broke; a task that raises the same error is not lost."""
    return outcome.status == "crashed" and isinstance(outcome.error, BrokenExecutor)


# -----------------------------------------------------------------------------
# The reader of the outcomes of one batch, and the four ways in which a batch ends.
#
# A batch ends when it was read to its end, fails, is closed, or has no reference left.
# In the first three cases the caller waits for running tasks. In the last case the
# garbage collector calls the finalizer, in any thread. A finalizer must not wait, so it
# starts a thread that ends the batch (`coresize.processes.exit_hooks`). This is why the
# reader is no generator: a ``finally`` block cannot tell who closes it.


#: The most failures that are raised together at the end.
_RAISED = 1000


class Reader:
    """An iterator over the outcomes of a batch.

    Args:
        engine: the engine that runs the batch.
        name: the name of the function.
        raises: the errors of tasks are raised together at the end.

    Attributes:
        begun: an outcome was requested, or the reader was closed.
    """

    def __init__(self, engine: Engine, name: str, *, raises: bool) -> None:
        self.begun = False
        self._owner = Owner()
        self._over = False
        self._engine = engine
        self._name = name
        self._raises = raises
        self._errors: list[BaseException] = []
        self._steps = engine.steps()
        _open.add(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        """The next outcome.

        Raises:
            StopIteration: all outcomes were read.
            BaseExceptionGroup: tasks have failed, and `raises` was set.
            CoresizeError: the batch cannot go on.
            InheritedError: this is a fork of the process that runs the batch.
        """
        self._owner.check("batch", "run it in one process, or one batch in each")
        if self._over:
            raise StopIteration
        try:
            self.begun = True
            outcome = next(self._steps)
            if self._raises and outcome.error is not None:
                self._keep(outcome, outcome.error)
        except StopIteration:
            self._end(done=True)
            self._raise()
            raise
        except BaseException as error:
            self._end(interrupted=isinstance(error, KeyboardInterrupt))
            raise
        return outcome

    def close(self, *, interrupted: bool = False) -> None:
        """End the batch: cancel tasks that have not begun, wait for or kill the rest.

        Args:
            interrupted: running tasks are killed, if possible.
        """
        if not self._owner.is_here:
            return
        self._steps.close()  # raises an error if another thread is reading
        self._end(interrupted=interrupted)

    def _end(self, *, done: bool = False, interrupted: bool = False) -> None:
        if self._over:
            return
        self._over = True
        if self.begun:
            self._engine.end(done=done, interrupted=interrupted)
        else:
            self.begun = True
            self._engine.abandon()

    @property
    def is_here(self) -> bool:
        """Whether this process runs the batch; False in a fork of it."""
        owner: Owner | None = getattr(self, "_owner", None)
        return owner is not None and owner.is_here

    def _keep(self, outcome: Outcome, error: BaseException) -> None:
        if len(self._errors) < _RAISED:
            transfer.add_note(error, f"of task {outcome.key}, {outcome.status}")
            self._errors.append(error)

    def _raise(self) -> None:
        if self._errors:
            failed = self._engine.report().failed
            tasks = format_count(failed, "task")
            msg = f"{tasks} of {self._name} {'has' if failed == 1 else 'have'} failed"
            raise BaseExceptionGroup(msg, self._errors)

    def __del__(self) -> None:
        if self.is_here and not self._over:
            self._over = True
            engine = self._engine
            end = engine.end if self.begun else engine.abandon
            exit_hooks.later(end, hurry=engine.kill)


#: The readers to close before the program ends.
_open: weakref.WeakSet[Reader] = weakref.WeakSet()


@atexit.register  # runs before the pools' hooks: the last one registered runs first
def _finish() -> None:
    """End the batches that are still open, and close their journals, at exit.

    A batch that a daemon thread is reading is left alone.
    """
    interrupted = exit_hooks.is_interrupted()
    for reader in list(_open):
        with contextlib.suppress(ValueError):
            reader.close(interrupted=interrupted)
