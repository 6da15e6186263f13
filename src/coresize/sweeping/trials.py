"""One trial: so many workers, how much they get done, and what that took."""

from __future__ import annotations

import time
from itertools import repeat
from typing import TYPE_CHECKING

from coresize import counters, processes
from coresize.batch.run import run_batch
from coresize.errors import ConfigError, CoresizeError
from coresize.executor.pressure import Kills
from coresize.executor.process import ProcessPoolExecutor
from coresize.executor.threads import ThreadPoolExecutor
from coresize.measuring.commands import measure_command
from coresize.model import Value


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor
    from typing import Any

    from coresize.batch.outcomes import Outcome

#: Seconds that the steady state is to be watched, at least, and tasks for each worker.
_STEADY, _TASKS = 0.5, 4

#: Seconds that a worker is kept busy, so that another has to be started.
_WARM = 0.05
_MOST_ROUNDS = 20


class Trial(Value):
    """What so many workers got done, once.

    Attributes:
        workers: how many.
        throughput: tasks a second, or runs of a command; 0 where none ended.
        startup: seconds until all workers were there; 0 where that is not told apart.
        cores: cores that were busy, on average.
        peak_memory: bytes of one worker, or of a command with all that it starts; None
            where it was not measured.
        throttled: the part of the quota's periods that were throttled, 0 without one.
        swapped: pages that the machine swapped out meanwhile.
        error: why this is no measure; empty where it is one.
    """

    __slots__ = (  # noqa: RUF023
        "workers",
        "throughput",
        "startup",
        "cores",
        "peak_memory",
        "throttled",
        "swapped",
        "error",
    )

    workers: int
    throughput: float
    startup: float
    cores: float
    peak_memory: int | None
    throttled: float
    swapped: int
    error: str


class Watch:
    """What the kernel counts while a trial runs."""

    def __init__(self) -> None:
        self._throttling = counters.throttling()
        self._swapped = counters.swapped_out() or 0
        self._start = time.perf_counter()
        self.seconds = 0.0

    def stop(self) -> None:
        """The trial has ended."""
        self.seconds = time.perf_counter() - self._start

    def trial(
        self,
        workers: int,
        done: int,
        *,
        cpu: float,
        startup: float = 0.0,
        peak_memory: int | None = None,
        error: str = "",
    ) -> Trial:
        """What came of it.

        Args:
            workers: how many there were.
            done: tasks that have ended well.
            cpu: seconds of CPU time that they took.
            startup: seconds.
            peak_memory: bytes.
            error: why this is no measure.
        """
        tightest = counters.tightest(counters.throttling(), self._throttling)
        return Trial(
            workers=workers,
            throughput=done / self.seconds,
            startup=startup,
            cores=cpu / self.seconds,
            peak_memory=peak_memory,
            throttled=tightest.share if tightest else 0.0,
            swapped=(counters.swapped_out() or 0) - self._swapped,
            error=error,
        )


class Calls:
    """Trials of a function over a sample of items.

    Args:
        function: what is called.
        sample: the items, at least one.
        executor: "process" or "thread".

    Raises:
        ConfigError: the sample is empty, or the executor is another.
    """

    unit = "tasks"

    def __init__(
        self, function: Callable[[Any], object], sample: Sequence[Any], executor: str
    ) -> None:
        if not sample:
            raise ConfigError("sample", sample, "at least one item")
        if executor not in _POOLS:
            raise ConfigError("executor", executor, '"process" or "thread"')
        self._function = function
        self._sample = sample
        self._make = _POOLS[executor]
        self._each = 0.0

    def serial(self) -> Trial:
        """One after the other, without sending anything: the baseline."""
        with self._make(1) as pool:
            pool.submit(_ready, self._function, 0.0).result()
            watch = Watch()
            try:
                done, cpu = pool.submit(_serial, self._function, self._sample).result()
            except CoresizeError as error:
                watch.stop()
                return watch.trial(1, 0, cpu=0.0, error=str(error))
            watch.stop()
        self._each = watch.seconds / done
        return watch.trial(1, done, cpu=cpu)

    def run(self, workers: int) -> Trial:
        """So many workers, all of them started before the clock is."""
        with self._make(workers) as pool:
            began = time.perf_counter()
            error = _warm(pool, self._function, workers)
            startup = time.perf_counter() - began
            watch, sums = Watch(), _Sums()
            for outcome in [] if error else self._outcomes(pool, workers):
                sums.add(outcome)
            watch.stop()
        return watch.trial(
            workers,
            sums.good,
            cpu=sums.cpu,
            startup=startup,
            peak_memory=sums.peak or None,
            error=error or sums.told(),
        )

    def _outcomes(self, pool: Executor, workers: int) -> Iterable[Outcome]:
        wanted = max(len(self._sample), workers * _TASKS)
        if self._each:
            wanted = max(wanted, int(_STEADY * workers / self._each))
        rounds = -(-wanted // len(self._sample))
        items = (item for again in repeat(self._sample, rounds) for item in again)
        return run_batch(self._function, items, executor=pool, progress=False)


class _Sums:
    """What tasks have come to, without their values."""

    def __init__(self) -> None:
        self.good = self.bad = self.peak = 0
        self.cpu = 0.0
        self._first = ""

    def add(self, outcome: Outcome) -> None:
        if outcome.ok:
            self.good += 1
            self.cpu += outcome.cpu
            self.peak = max(self.peak, outcome.peak_memory or 0)
            return
        self._first = self._first or f"{outcome.status}: {outcome.error}"
        self.bad += 1

    def told(self) -> str:
        """What went wrong with some, as a sentence."""
        return f"{self.bad} of {self.good + self.bad} {self._first}" if self.bad else ""


_POOLS: dict[str, Callable[[int], Executor]] = {
    "process": ProcessPoolExecutor,
    "thread": ThreadPoolExecutor,
}


def _warm(pool: Executor, function: Callable[[Any], object], workers: int) -> str:
    """Have all workers started; why that cannot be, or nothing."""
    for _ in range(_MOST_ROUNDS):
        ready = [pool.submit(_ready, function, _WARM) for _ in range(workers)]
        try:
            for future in ready:
                future.result()
        except Exception as error:  # noqa: BLE001 - it is a row of the table
            return str(error)
        if not isinstance(pool, ProcessPoolExecutor):
            break
        if pool.observe().workers >= workers:
            break
    return ""


def _ready(_function: object, seconds: float) -> None:
    """A task that only imports what the function needs, and keeps its worker busy."""
    time.sleep(seconds)


def _serial(
    function: Callable[[Any], object], sample: Sequence[Any]
) -> tuple[int, float]:
    """How many tasks, and the seconds of CPU time that they took."""
    before, end = time.process_time(), time.perf_counter() + _STEADY
    done = 0
    while not done or time.perf_counter() < end:
        for item in sample:
            function(item)
        done += len(sample)
    return done, time.process_time() - before


class Commands:
    """Trials of a command line, in which {workers} is the number.

    Args:
        words: the program and its arguments.

    Raises:
        ConfigError: {workers} is not among them.
    """

    unit = "runs"

    def __init__(self, words: Sequence[str]) -> None:
        if not any("{workers}" in word for word in words):
            allowed = "a command with {workers} in it, where the number is to stand"
            raise ConfigError("CMD", " ".join(words), allowed)
        self._words = words

    def serial(self) -> Trial:
        """With one worker: the baseline."""
        return self.run(1)

    def run(self, workers: int) -> Trial:
        """With so many workers, from its start to its end.

        Raises:
            OSError: it cannot be started.
        """
        words = [word.replace("{workers}", str(workers)) for word in self._words]
        kills = Kills(processes.own())
        watch = Watch()
        run = measure_command(
            words, variables={"CORESIZE_WORKERS": str(workers)}, quiet=True
        )
        watch.stop()
        error = ""
        if run.exit_code != 0:
            killed = kills.moved() != "no"
            error = "killed for memory" if killed else f"exit status {run.exit_code}"
        return watch.trial(
            workers, 0 if error else 1, cpu=run.cpu, peak_memory=run.peak, error=error
        )
