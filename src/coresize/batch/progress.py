"""How far a batch is: counts, rate, time left; as a line, a bar, or for a callback."""

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
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TextIO, TypeAlias

    from coresize.batch.outcomes import Outcome

    #: None: lines to the log. True: a bar at a terminal, else lines to standard error.
    #: False: nothing. Or what is called with each `Progress`.
    Show: TypeAlias = bool | Callable[["Progress"], object] | None


# -----------------------------------------------------------------------------
# Standard error as people watch it: lines, and a bar where there is room for one.
#
# Whether anybody can see them is nothing that a run depends on: what cannot be written,
# as the disk is full or the reader has gone, is left out.


def say(line: object) -> None:
    """A line to standard error, if there is one that can be written."""
    if sys.stderr is not None:
        with unhurt():
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - it was asked for


@contextlib.contextmanager
def unhurt() -> Iterator[None]:
    """Errors of writing to standard error do no harm."""
    try:
        yield
    except (OSError, ValueError):  # or it has been closed
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Empty the buffer of a stream that cannot be written.

    Python would try again when the program ends, and end with status 120.
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
    """A bar of tqdm, where there is a terminal, and it is installed; else None."""
    if not _has_room():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    try:
        return tqdm(total=total, unit="task", smoothing=0.1)
    except OSError:
        discard(sys.stderr)
        return None


def _has_room() -> bool:
    """Whether standard error is a terminal, and has rows and columns."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        return all(os.get_terminal_size(sys.stderr.fileno()))
    except OSError:  # one that does not tell
        return True


_log = logging.getLogger("coresize")

#: Seconds between two lines: at first few, later many.
_FIRST, _MOST, _GROWTH = 1.0, 60.0, 1.5

#: Seconds between two calls of a bar or a callback.
_OFTEN = 0.1

#: The part of the run's time that showing it may take.
_SHARE = 0.005


class Progress(Value):
    """How far a batch is.

    Attributes:
        done: tasks that have ended, with those that a resume skipped.
        total: how many there are; None where the input does not tell.
        counts: how many of each status.
        failed: how many have no value.
        skipped: how many were ok at an earlier start.
        elapsed: seconds since the start.
        rate: tasks a second, without skipped ones.
        eta: seconds that are left; None where that cannot be told.
        workers: how many there are now.
        memory: bytes that this process and its workers hold; None where nobody tells.
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
            parts.append(f"ETA {self.eta / 60:.1f} min")
        parts += [f"{self.failed} failed", *_skipped(self.skipped)]
        parts.append(format_count(self.workers, "worker"))
        if self.memory is not None:
            parts.append(format_bytes(self.memory))
        return " | ".join(parts)


def _skipped(count: int) -> list[str]:
    return [f"{count} skipped"] if count else []


class Throttle:
    """Says when something is due again: not too often, nor for much of the time.

    Args:
        interval: seconds between two times, at least.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._begun = time.monotonic()
        self._next = self._begun + interval

    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._next

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_error: object) -> None:
        now = time.monotonic()
        self._next = now + max(self.interval, (now - self._begun) / _SHARE)


class Tally:
    """The counts of one run.

    Args:
        total: how many tasks there are, None where the input does not tell.
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
        """Count one more; of an earlier start, where it was not run now."""
        self.counts[outcome.status] += 1
        self.earlier += earlier
        self.peak_memory = max(self.peak_memory, outcome.peak_memory or 0)

    def begun(self, moment: float) -> None:
        """A task began (seconds since 1970); that of the first ends the start-up."""
        if self._start is not None:
            self.startup, self._start = max(0.0, moment - self._start), None

    def stop(self) -> None:
        """The run has ended."""
        self._ended = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds from the start to now, or to the end."""
        return (self._ended or time.perf_counter()) - self._clock

    @property
    def done(self) -> int:
        """Tasks that have ended."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """Tasks that have ended without a value."""
        return sum(self.counts[status] for status in BAD)

    @property
    def rate(self) -> float:
        """Tasks a second that were not skipped."""
        run = self.done - self.earlier
        return run / self.elapsed if run else 0.0

    def progress(self, workers: int, memory: int | None) -> Progress:
        """How far it is now."""
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
        """The last line.

        Args:
            stopped: it was ended before all was done.
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
    """Shows how far a run is, not too often.

    Args:
        show: how.
        tally: the counts.
        workers: tells how many workers there are.
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
        """Show it, if it is time."""
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
        """Show the end.

        Args:
            stopped: it comes before all is done.
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
            self._bar.set_postfix_str(f"{progress.failed} failed", refresh=False)
            self._bar.update(progress.done - self._bar.n)


def _bar(show: Show, tally: Tally) -> Any:
    return bar(tally.total) if show is True else None


def _line(show: Show) -> Callable[[Progress], object] | None:
    """What is called with each progress."""
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
    """Bytes that this process and its descendants hold apart from files."""
    total = None
    for pid in processes.descendants(processes.own()):
        memory = read_memory(pid)
        if memory is not None:
            total = (total or 0) + memory.private
    return total
