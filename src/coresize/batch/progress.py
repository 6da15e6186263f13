"""The progress of a batch: counts, rate, time left; as a line, a bar or a callback."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time

from coresize import processes
from coresize.batch.outcomes import BAD, STATUSES
from coresize.model import Value
from coresize.processes.memory import read_memory
from coresize.texts import format_left
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TextIO, TypeAlias

    from coresize.batch.outcomes import Outcome

    #: None: lines to the log. True: a bar at a terminal, else lines to standard error.
    #: False: nothing. Or a function that is called with each `Progress`.
    Show: TypeAlias = bool | Callable[["Progress"], object] | None


# -----------------------------------------------------------------------------
# Standard error, for people: lines, and a bar on a terminal that has room for one.
#
# A run must not depend on who reads standard error: text that cannot be written, as the
# disk is full or the reader has gone, is dropped.


def say(line: object) -> None:
    """Write a line to standard error, if it is open and can be written."""
    if sys.stderr is not None:
        with unhurt():
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - it was asked for


@contextlib.contextmanager
def unhurt() -> Iterator[None]:
    """Ignore errors of writing to standard error in the block."""
    try:
        yield
    except (OSError, ValueError):  # ValueError: it is closed
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Empty the buffer of a stream that cannot be written.

    Otherwise Python writes the buffer again at exit, and exits with status 120.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()
        kept = os.dup(number)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, number)
            stream.flush()
        finally:
            os.dup2(kept, number)
            os.close(kept)
            os.close(nowhere)


def bar(total: int | None) -> Any:
    """A bar of tqdm, if standard error is a terminal and tqdm is installed; or None."""
    if not _has_room():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    try:
        return tqdm(total=total, unit="task", smoothing=0.1, dynamic_ncols=True)
    except OSError:
        discard(sys.stderr)
        return None


def _fit(bar: Any) -> None:
    """Draw a bar anew if the terminal has another width by now.

    tqdm returns to the beginning of a row, and pads the bar to its old width; but a
    terminal that has become narrower wraps the bar.
    """
    wide = bar.dynamic_ncols(bar.fp)[0] if bar.dynamic_ncols else None
    if not wide or not bar.ncols or wide == bar.ncols:
        return
    above = -(-bar.ncols // wide) - 1
    bar.fp.write("\r\x1b[K" + "\x1b[A\x1b[K" * above)
    bar.sp = bar.status_printer(bar.fp)  # it knows no old width
    bar.refresh()


def _has_room() -> bool:
    """Whether standard error is a terminal with rows and columns."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        return all(os.get_terminal_size(sys.stderr.fileno()))
    except OSError:  # the size is not known
        return True


_log = logging.getLogger("coresize")

#: Seconds between two lines: the first interval, the longest, and the growth factor.
_FIRST, _MOST, _GROWTH = 1.0, 60.0, 1.5

#: Seconds between two updates of a bar or calls of a callback.
_OFTEN = 0.1

#: The largest part of the run's time that showing the progress may take.
_SHARE = 0.005


class Progress(Value):
    """The progress of a batch.

    Attributes:
        done: number of tasks that have ended, with those that a resume skipped.
        total: number of all tasks; None if the input has no length.
        counts: number of tasks by status.
        failed: number of tasks that have failed.
        skipped: number of tasks that were ok at an earlier start.
        elapsed: seconds since the start.
        rate: tasks per second, without skipped tasks.
        eta: seconds that are left; None if that is not known.
        workers: number of workers now.
        memory: bytes that this process and its workers hold; None if that is not known.
    """

    done: int
    total: int | None
    counts: dict[str, int]
    failed: int
    skipped: int
    elapsed: float
    rate: float
    eta: float | None
    workers: int
    memory: int | None

    def __str__(self) -> str:
        parts = [
            f"{self.done}/{self.total}" if self.total is not None else f"{self.done}",
            f"{self.rate:.1f}/s",
        ]
        if self.eta is not None:
            parts.append(f"ETA {format_left(self.eta)}")
        parts += [f"{self.failed} failed", *_skipped(self.skipped)]
        parts.append(format_count(self.workers, "worker"))
        if self.memory is not None:
            parts.append(format_bytes(self.memory))
        return " | ".join(parts)


def _skipped(count: int) -> list[str]:
    return [f"{count} skipped"] if count else []


class Throttle:
    """Limits how often an action is done, and the part of the time that it takes.

    Args:
        interval: the least seconds between two actions.
        share: the largest part of the time that the action may take.
    """

    def __init__(self, interval: float, share: float = _SHARE) -> None:
        self.interval = interval
        self._share = share
        self._begun = time.monotonic()
        self._next = self._begun + interval

    def due(self) -> bool:
        """Whether the next action is due."""
        return time.monotonic() >= self._next

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_error: object) -> None:
        now = time.monotonic()
        self._next = now + max(self.interval, (now - self._begun) / self._share)


class Tally:
    """The counts of one run.

    Args:
        total: number of all tasks; None if the input has no length.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.counts = dict.fromkeys(STATUSES, 0)
        self.retries = self.earlier = 0
        self.peak_memory = 0
        self.startup = 0.0
        self._start: float | None = time.time()
        self._clock = time.perf_counter()
        self._ended: float | None = None

    def add(self, outcome: Outcome, *, earlier: bool = False) -> None:
        """Count an outcome; ``earlier``: its task ran at an earlier start."""
        self.counts[outcome.status] += 1
        self.earlier += earlier
        self.peak_memory = max(self.peak_memory, outcome.peak_memory or 0)

    def begun(self, moment: float) -> None:
        """Note when a task began (seconds since 1970); the first ends the start-up."""
        if self._start is not None:
            self.startup, self._start = max(0.0, moment - self._start), None

    def stop(self) -> None:
        """Stop the clock: the run has ended."""
        self._ended = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds from the start to now, or to the end."""
        return (self._ended or time.perf_counter()) - self._clock

    @property
    def done(self) -> int:
        """Number of tasks that have ended."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """Number of tasks that have failed."""
        return sum(self.counts[status] for status in BAD)

    @property
    def rate(self) -> float:
        """Tasks per second, without those of earlier starts."""
        run = self.done - self.earlier
        return run / self.elapsed if run else 0.0

    def progress(self, workers: int, memory: int | None) -> Progress:
        """The progress now."""
        eta = None
        if self.total is not None and self.rate:
            eta = max(0, self.total - self.done) / self.rate
        return Progress(
            done=self.done,
            total=self.total,
            counts=dict(self.counts),
            failed=self.failed,
            skipped=self.counts["skipped"],
            elapsed=self.elapsed,
            rate=self.rate,
            eta=eta,
            workers=workers,
            memory=memory,
        )

    def closing(self, *, stopped: bool = False) -> str:
        """The last line of the run.

        Args:
            stopped: the run was ended before all tasks were done.
        """
        run, skipped = self.done - self.earlier, self.counts["skipped"]
        each = self.elapsed / run if run else 0.0
        parts = [f"{run} done in {self.elapsed:.1f} s ({each:.2f} s each)"]
        if stopped:
            of = "" if self.total is None else f" of {self.total}"
            done = self.done - self.counts["cancelled"]
            parts = [f"stopped: {done}{of} done in {self.elapsed:.1f} s"]
        before = f", {self.earlier - skipped} before" if self.earlier > skipped else ""
        parts += [f"{self.failed} failed{before}", *_skipped(skipped)]
        if self.counts["cancelled"]:
            parts.append(f"{self.counts['cancelled']} cancelled")
        return " | ".join(parts)


class Display:
    """Shows the progress of a run, not too often.

    Args:
        show: how the progress is shown.
        tally: the counts.
        workers: a function that returns the number of workers.
    """

    def __init__(self, show: Show, tally: Tally, workers: Callable[[], int]) -> None:
        self._tally = tally
        self._workers = workers
        self._bar = _bar(show, tally)
        self._call = _line(show) if self._bar is None else self._move
        self._closing = _closing(show)
        self._often = self._bar is not None or callable(show)
        self._throttle = Throttle(_OFTEN if self._often else _FIRST)

    def tick(self) -> None:
        """Show the progress, if that is due."""
        if self._call is not None and self._throttle.due():
            with self._throttle:
                self._show()
            if not self._often:
                self._throttle.interval = min(self._throttle.interval * _GROWTH, _MOST)

    def _show(self) -> None:
        if self._call is not None:
            memory = None if self._bar is not None else held()
            self._call(self._tally.progress(self._workers(), memory))

    def close(self, *, stopped: bool = False) -> None:
        """Show the end of the run.

        Args:
            stopped: the run was ended before all tasks were done.
        """
        if self._often:
            self._show()
        if self._bar is not None:
            with unhurt():
                self._bar.close()
        if self._closing is not None:
            self._closing(self._tally.closing(stopped=stopped))

    def _move(self, progress: Progress) -> None:
        with unhurt():
            _fit(self._bar)
            self._bar.set_postfix_str(f"{progress.failed} failed", refresh=False)
            self._bar.update(progress.done - self._bar.n)


def _bar(show: Show, tally: Tally) -> Any:
    return bar(tally.total) if show is True else None


def _line(show: Show) -> Callable[[Progress], object] | None:
    """The function that is called with each progress, or None."""
    if show is None:
        return lambda progress: _log.info("%s", progress)
    if show is True:
        return say
    return show if callable(show) else None


def _closing(show: Show) -> Callable[[str], object] | None:
    if show is None:
        return lambda text: _log.info("%s", text)
    return say if show is True else None


def held() -> int | None:
    """Bytes that this process and its descendants hold, without files; or None."""
    total = None
    for pid in processes.descendants(processes.own()):
        memory = read_memory(pid)
        if memory is not None:
            total = (total or 0) + memory.private
    return total
