"""Trials of a function over a sample of items."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from coresize.batch.run import run_batch
from coresize.errors import ConfigError, CoresizeError
from coresize.executor.process import ProcessPoolExecutor
from coresize.executor.sizing import warm
from coresize.executor.threads import ThreadPoolExecutor
from coresize.planning.settings import load_settings
from coresize.sweeping.measurements import Watch


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor
    from typing import Any

    from coresize.batch.outcomes import Outcome
    from coresize.sweeping.measurements import Trial

#: The least number of tasks per worker.
_TASKS = 4

#: A pass over the sample is aborted after this many times its serial duration, or this
#: many times the ``seconds`` of a trial: a count that slow will not be recommended.
_HOPELESS = 4


class Calls:
    """Trials of a function over a sample of items.

    Args:
        function: the function to call.
        sample: the items, at least one.
        executor: "process" or "thread".
        seconds: the least time to watch the steady state of a trial.
        timeout: seconds that one task may take, above 0; only with "process".

    Raises:
        ConfigError: the sample is empty or not iterable, or the executor is not valid.
        CoresizeError: a setting makes every pool serial.
    """

    unit = "tasks"

    def __init__(
        self,
        function: Callable[[Any], object],
        sample: Iterable[Any],
        executor: object,
        seconds: float,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(executor, str) or executor not in _POOLS:
            raise ConfigError("executor", executor, '"process" or "thread"')
        settings = load_settings()
        if not settings.parallel:
            origin = settings.origins["parallel"]
            msg = f"{origin} makes every pool serial: take it away to try workers"
            raise CoresizeError(msg)
        self._function = function
        self._sample = _listed(sample)
        self._seconds = seconds
        self._timeout = timeout
        self.threads = executor == "thread"
        self._make = _POOLS[executor]
        if timeout is not None:
            if executor != "process":
                allowed = 'None: only executor="process" can end what takes too long'
                raise ConfigError("timeout", timeout, allowed)
            self._make = partial(ProcessPoolExecutor, timeout=timeout)
        self._pass = 0.0  # seconds of one serial pass over the sample
        self._failing = 0.0  # the part of the tasks that fail serially

    def serial(self) -> Trial:
        """Run the items one after the other in one worker: the baseline.

        Only the function counts, not the start of the worker or the transfer of items.
        With a timeout, each item is a task of its own, which can be killed, and is
        timed in the worker; otherwise the whole sample is one task.
        """
        with self._make(1) as pool:
            watch = Watch()
            try:
                warm(pool, 1, self._function)
                watch = Watch()  # the worker has started
                passes = self._serially(pool)
                if passes.failed == passes.done:
                    pool.submit(self._function, self._sample[0]).result()
            except CoresizeError as error:
                watch.stop()
                return watch.trial(1, 0, cpu=0.0, error=str(error))
            watch.stop(passes.seconds)
        self._pass = watch.seconds * len(self._sample) / passes.done
        self._failing = passes.failed / passes.done
        return watch.trial(1, passes.done, cpu=passes.cpu, failed=self._failing)

    def run(self, workers: int) -> Trial:
        """Run the items with this number of workers, whose start is timed apart."""
        with self._make(workers) as pool:
            start = time.perf_counter()
            error = self._start(pool, workers)
            startup = time.perf_counter() - start
            watch, sums = Watch(), _Sums(self._failing, len(self._sample))
            for outcome in [] if error else self._outcomes(pool, workers):
                sums.add(outcome)
            watch.stop()
        return watch.trial(
            workers,
            sums.done,
            cpu=sums.cpu,
            failed=sums.failed / max(1, sums.done),
            startup=startup,
            peak_memory=sums.peak or None,
            error=error or sums.error(),
        )

    def _start(self, pool: Executor, workers: int) -> str:
        """Start all workers; returns the error, or an empty text."""
        try:
            warm(pool, workers, self._function)
        except Exception as error:  # noqa: BLE001 - it is a row of the table
            return str(error)
        return ""

    def _serially(self, pool: Executor) -> Passes:
        """Call `_serial` in a pool of one worker."""
        least = self._seconds
        if self._timeout is None:
            return pool.submit(_serial, self._function, self._sample, least).result()
        parts: list[Passes] = []
        end = time.perf_counter() + least
        while not parts or time.perf_counter() < end:
            parts += [
                pool.submit(_serial, self._function, [item], 0.0).result()
                for item in self._sample
            ]
        return Passes(*map(sum, zip(*parts, strict=True)))

    def _outcomes(self, pool: Executor, workers: int) -> Iterable[Outcome]:
        items = self._items(workers * _TASKS)
        return run_batch(self._function, items, executor=pool, progress=False)

    def _items(self, least: int) -> Iterator[Any]:
        """The sample, repeated until the steady state has lasted long enough."""
        start, count = time.perf_counter(), 0
        patience = _HOPELESS * max(self._seconds, self._pass)
        while count < least or time.perf_counter() - start < self._seconds:
            for item in self._sample:
                if time.perf_counter() - start > patience:
                    return
                yield item
                count += 1


class _Sums:
    """Sums over the outcomes of tasks, without their values.

    Args:
        failing: the part of the tasks that fail serially.
        sample: the number of items in the sample.
    """

    def __init__(self, failing: float, sample: int) -> None:
        self.done = self.failed = self.lost = self.peak = 0
        self.cpu = 0.0
        self._failing, self._sample = failing, sample
        self._first: dict[bool, str] = {}

    def add(self, outcome: Outcome) -> None:
        own = outcome.status in ("ok", "failed")
        if not outcome.ok:
            self._first.setdefault(own, f"{outcome.status}: {outcome.error}")
        if not own:
            self.lost += 1
            return
        self.done += 1
        self.failed += not outcome.ok
        self.cpu += outcome.cpu
        self.peak = max(self.peak, outcome.peak_memory or 0)

    def error(self) -> str:
        """A phrase about the tasks that failed; empty if no more fail than serially."""
        total = self.done + self.lost
        if self.lost:
            return f"{self.lost} of {total} {self._first[False]}"
        if self.failed > self._most_failed():
            return f"{self.failed} of {total} {self._first[True]}"
        return ""

    def _most_failed(self) -> float:
        """How many tasks may fail by chance, and by the last pass being incomplete.

        The number of tasks that fail of ``done`` has a binomial distribution; more than
        three standard deviations above its mean come from the number of workers.
        """
        mean = self.done * self._failing
        return (
            mean
            + 3 * math.sqrt(mean * (1 - self._failing))
            + (self._sample * self._failing)
        )


_POOLS: dict[str, Callable[[int], Executor]] = {
    "process": ProcessPoolExecutor,
    "thread": ThreadPoolExecutor,
}


def _listed(sample: Iterable[Any]) -> list[Any]:
    """The sample as a list, checked."""
    allowed = "items to try, such as a list with at least one"
    try:
        items = iter(sample)
    except TypeError:
        raise ConfigError("sample", sample, allowed) from None
    known = list(items)
    if not known:
        raise ConfigError("sample", sample, allowed)
    return known


class Passes(NamedTuple):
    """Whole passes over the sample.

    Attributes:
        done: the number of tasks.
        failed: the number among them that raised an error.
        seconds: the seconds of all tasks.
        cpu: their seconds of CPU time.
    """

    done: int
    failed: int
    seconds: float
    cpu: float


def _serial(
    function: Callable[[Any], object], sample: Sequence[Any], least: float
) -> Passes:
    """Run whole passes over the sample for at least this many seconds."""
    cpu, start = time.process_time(), time.perf_counter()
    done, failed, seconds = 0, 0, 0.0
    while not done or seconds < least:
        for item in sample:
            try:
                function(item)
            except Exception:  # noqa: BLE001 - a failed task is a result
                failed += 1
        done += len(sample)
        seconds = time.perf_counter() - start
    return Passes(done, failed, seconds, time.process_time() - cpu)
