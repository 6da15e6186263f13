"""The loop of a batch: input to flights, flights to journal, journal to outcomes.

Rule 1: an outcome is given out after it is written. Rule 2: what is taken from the
input, is in flight, or waits to be written is bounded, whatever the input.
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


if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, Self

    from coresize.batch.inputs import Entry
    from coresize.batch.options import Options
    from coresize.batch.outcomes import Outcome
    from coresize.batch.shards import Shard
    from coresize.planning.settings import Settings


# -----------------------------------------------------------------------------
# What a batch needs by its options: an executor, a journal, a history.


def open_recorder(
    function: Callable[[Any], Any], options: Options, settings: Settings
) -> Recorder | None:
    """What keeps the history, where that is asked for, here or in the settings."""
    asked = settings.history if options.history is None else options.history
    if not asked:
        return None
    name = asked if isinstance(asked, str) else name_of(function)
    return Recorder(name, options.item_size)


def open_journal(
    function: Callable[[Any], Any], shard: Shard | None, options: Options
) -> Journal | None:
    """The journal, where one is asked for."""
    if options.journal is None:
        return None
    identity = identify(function, shard, options.serializer)
    try:
        return Journal(options.journal, identity)
    except JournalError:
        # Maybe of a run that was dropped, and is about to end; a task may not wait for
        # that, as it may be of that very run.
        if nesting.is_task() or not exit_hooks.wait():
            raise
    return Journal(options.journal, identity)


def open_pool(options: Options, settings: Settings) -> Pool:
    """The executor, made where it is not the caller's own."""
    return Pool(
        options.executor,
        max_workers=options.max_workers,
        memory=options.memory,
        cpus=options.cpus,
        timeout=options.timeout,
        oom_retries=options.oom_retries,
        settings=settings,
    )


#: Seconds between two looks at the clock while nothing ends.
_LOOK = 0.5

#: Seconds between two commits to the journal: what ends meanwhile is written together.
_COMMIT = 0.05

#: Seconds between two writes of the status.
_STATUS = 1.0

#: Changes of the count of workers that are kept.
_KEPT = 1000

#: What becomes of tasks when a run is stopped, and their workers with it, as by Ctrl-C:
#: at the next start they run again.
_LOST = ("cancelled", "killed", "crashed")

#: Outcomes of earlier starts that are read from the journal at once.
_SKIPPED = 1000


class Engine:
    """What runs one batch.

    Args:
        function: what is called with each item.
        items: the input.
        options: how.
    """

    def __init__(
        self, function: Callable[[Any], Any], items: Iterable[Any], options: Options
    ) -> None:
        self._options = options
        self._journal: Journal | None = None
        with contextlib.ExitStack() as undo:  # of what is open where the rest fails
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
            if self._pool.traits.pickles:  # an error now, and not one for each task
                transfer.dump(function, function)
            self._journal = open_journal(function, shard, options)
            undo.callback(self._close_journal)
            self._prepare(function, claim)
            undo.pop_all()

    def _prepare(self, function: Callable[[Any], Any], claim: Claim) -> None:
        """What needs nothing but memory, and a first status."""
        options = self._options
        self._status = [
            StatusFile(path, str(claim.shard or "0/1"))
            for path in paths(options.journal, claim.status)
        ]
        self._throttle = Throttle(_STATUS)
        encode = ENCODERS[options.serializer] if self._journal else None
        self._decode = journals.DECODERS[options.serializer] if self._journal else None
        task = Task(function, encode, crosses=self._pool.traits.pickles)
        self._in_flight = InFlight(self._pool, task, options.buffersize)
        self._tally = Tally(self._input.total)
        self._display = Display(options.progress, self._tally, self._count_workers)
        self._workers: list[tuple[float, int]] = []
        self._known: list[Outcome] = []
        self._again = (None, "cancelled", *options.retry)
        self._ended: list[tuple[Outcome, object]] = []
        self._committed = 0.0
        self._stopped = False
        self._ending = threading.Lock()
        self._write_status("running")

    # --- The loop ---------------------------------------------------------------

    def steps(self) -> Generator[Outcome, None, None]:
        """The outcomes as they come; who reads them calls `end` when that is over.

        There is nothing to clean up here, since the garbage collector may close it.

        Raises:
            CoresizeError: the executor is broken.
            ConfigError: a key comes twice.
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
        """Submit what there is room for; True where the input has ended."""
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
        """Whether an earlier start has done it; its outcome is then known."""
        if self._journal is None:
            return False
        result = self._journal.take(entry.key, entry.index)
        if result is None or result[0] in self._again:
            return False
        known = self._journal.recalled(entry.key, entry.index, result)
        self._known.append(known)
        return True

    def _settle(self, *, last: bool) -> Iterator[Outcome]:
        """The outcomes of what has ended, after they are written."""
        self._land(self._patience())
        overdue = time.monotonic() - self._committed >= _COMMIT
        # In the caller nothing is ever in flight, though the next may end at once.
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
            else:
                self._ended.append((outcome, written))

    def _is_retried(self, entry: Entry, outcome: Outcome) -> bool:
        retried = ("failed", "timeout") if self._options.retry_timeouts else ("failed",)
        return outcome.status in retried and entry.tries <= self._options.retries

    def _write(self, ended: list[tuple[Outcome, object]]) -> None:
        if self._journal:
            # Of which task an executor died nobody knows: all of them run again.
            told = [one for one in ended if not _is_lost(one[0])]
            self._journal.write(told)
            self._committed = time.monotonic()
        for outcome, _ in ended:
            self._tally.add(outcome)

    # --- Around it --------------------------------------------------------------

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
            progress = self._tally.progress(self._count_workers(), held())
            for file in self._status:
                file.write(progress, state)

    def end(self, *, done: bool = False, interrupted: bool = False) -> None:
        """Cancel what has not begun, wait for what runs, write what has ended; once.

        Args:
            done: all has been run.
            interrupted: what runs is killed, where that can be, and not waited for.
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
            # It was said; what is lost will run again.
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
        """End what was never begun."""
        if self._ending.acquire(blocking=False):
            self._pool.close(interrupted=False)
            self._write_status("stopped")
            self._close_journal()

    def kill(self) -> None:
        """End what runs, where that can be."""
        self._pool.close(interrupted=True)

    def _close_journal(self) -> None:
        if self._journal:
            self._journal.close()

    def report(self) -> BatchReport:
        """What it has come to so far."""
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
    """Whether the executor broke, and not a task that has raised the same error."""
    return outcome.status == "crashed" and isinstance(outcome.error, BrokenExecutor)


# -----------------------------------------------------------------------------
# The outcomes of one batch, as somebody reads them; and its end, whoever brings it.
#
# A batch is over when it was read to its end, fails, is closed, or when nobody holds it
# any more. In the first three somebody waits for what still runs. The last is told by
# the garbage collector, in any thread at all: there a thread is started that ends the
# batch, since a finalizer never waits (`coresize.processes.exit_hooks`). For that
# reason this is no generator: its ``finally`` could not tell who closes it.


#: Failures that are raised together at the end, at most.
_RAISED = 1000


class Reader:
    """An iterator over the outcomes of a batch.

    Args:
        engine: runs the batch.
        name: of its function.
        raises: errors are raised together at the end.

    Attributes:
        begun: somebody has asked for outcomes, or closed it.
    """

    def __init__(self, engine: Engine, name: str, *, raises: bool) -> None:
        self.begun = False
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
            StopIteration: there is none.
            BaseExceptionGroup: tasks have failed, where that is to be raised.
            CoresizeError: the batch cannot go on.
        """
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
        """End it: cancel what has not begun, and wait for what runs, or kill that.

        Args:
            interrupted: what runs is killed, where that can be.
        """
        self._steps.close()  # which raises where another thread is reading
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

    def _keep(self, outcome: Outcome, error: BaseException) -> None:
        if len(self._errors) < _RAISED:
            transfer.add_note(error, f"of task {outcome.key}, {outcome.status}")
            self._errors.append(error)

    def _raise(self) -> None:
        if self._errors:
            msg = f"{self._engine.report().failed} tasks of {self._name} have failed"
            raise BaseExceptionGroup(msg, self._errors)

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            self._over = True
            engine = self._engine
            end = engine.end if self.begun else engine.abandon
            exit_hooks.later(end, hurry=engine.kill)


#: Those that are to be ended before the program ends.
_open: weakref.WeakSet[Reader] = weakref.WeakSet()


@atexit.register  # before the pools: the last that registers goes first
def _finish() -> None:
    """At the end of the program: what was left early is ended, and its journal closed.

    One that another thread is reading, a daemon's, is left alone.
    """
    interrupted = exit_hooks.is_interrupted()
    for reader in list(_open):
        with contextlib.suppress(ValueError):
            reader.close(interrupted=interrupted)
