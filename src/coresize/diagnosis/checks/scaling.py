"""A benchmark of two seconds: the kinds of work that more workers do not speed up."""

from __future__ import annotations

import pickle
import tempfile
import time
from typing import TYPE_CHECKING

from coresize.diagnosis.findings import Finding, Skipped
from coresize.executor.process import ProcessPoolExecutor
from coresize.executor.sizing import warm
from coresize.model import Value
from coresize.processes.schedstat import Mark
from coresize.units import format_count


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.diagnosis.context import Context

#: Seconds to measure each kind of work with each number of workers.
_EACH = 0.15

#: The most tries for a kind of work that is slower than expected.
_TRIES = 3

#: A poor and a bad speedup, as parts of the expected one.
_POOR, _BAD = 0.7, 0.4

#: A speedup below the first number counts as "no faster than 1"; above the second part
#: of the time, a finding mentions that cores were missing.
_SAME, _MISSED = 1.05, 0.1

#: Work that computes for a larger part of its time than this is limited by cores.
_COMPUTES = 0.5

#: The most workers: more show nothing new, and take long to start.
_MOST = 16

_MEGABYTE = bytes(1024**2)
_BLOCK = 16 * 1024**2

#: Bytes of a worker, including the blocks that it copies.
_MEMORY = 72 * 1024**2


def compute(_folder: str) -> None:
    """Compute within the CPU caches."""
    total = 0
    for number in range(20_000):
        total += number * number


def copy(_folder: str) -> None:
    """Copy a block that is too large for the caches."""
    bytearray(_BLOCK)[:] = bytes(_BLOCK)


def pickling(_folder: str) -> None:
    """Pickle and unpickle about a megabyte."""
    pickle.loads(pickle.dumps(list(range(100_000)), 5))  # noqa: S301 - our own


def write(folder: str) -> None:
    """Write a small file in the temporary folder."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(_MEGABYTE)


class Workload(Value):
    """One kind of work.

    Attributes:
        title: the name of the work.
        run: a function that does a little of the work; it takes the temporary folder.
        why: why more workers may not be faster.
        advice: what to do then.
        computes: whether the work needs a core all the time.
    """

    title: str
    run: Callable[[str], None]
    why: str
    advice: str
    computes: bool


KINDS = {
    "compute": Workload(
        title="pure computing",
        run=compute,
        why="the cores are shared with other programs, throttled, or hyper-threads, "
        "so computing does not get faster with more workers",
        advice="look for other programs that compute on this machine; coresize sweep "
        "finds the best number of workers for your task",
        computes=True,
    ),
    "copy": Workload(
        title="memory bandwidth",
        run=copy,
        why="the cores share the memory bandwidth, and a few cores use all of it",
        advice="use fewer workers for tasks that read large arrays; coresize sweep "
        "finds the best number",
        computes=True,
    ),
    "pickling": Workload(
        title="pickling of 1 MB",
        run=pickling,
        why="the time is spent on memory access, not on computing",
        advice="send workers paths or ranges in place of large objects",
        computes=True,
    ),
    "write": Workload(
        title="files in the temporary folder",
        run=write,
        why="the workers share the disk, and a few workers use all of its bandwidth",
        advice="set TMPDIR to a faster disk, or let tasks write less",
        computes=False,
    ),
}


def scaling(context: Context) -> Iterator[Finding]:
    """Kinds of work that two workers, or one per core, do not speed up as expected.

    Raises:
        Skipped: there is only one core, everything runs serially, or there is too
            little memory to try.
    """
    if not context.settings.parallel:
        reason = f"everything runs serially, by {context.settings.origins['parallel']}"
        raise Skipped(reason)
    most = min(context.real_cores, _MOST)
    if most < 2:
        reason = "there is one core"
        raise Skipped(reason)
    context.require(most * _MEMORY)
    expected = min(most, context.limits.cpu.limit or most)
    with ProcessPoolExecutor(most, threads=1) as pool:
        warm(pool, most)  # otherwise the measurements would include the imports
        computes_poorly = False
        for name, kind in KINDS.items():
            # If cores are missing, all computing work is slow, and one finding is
            # enough. A slow disk is another matter: its workers hardly compute.
            if computes_poorly and kind.computes:
                continue
            speeds = _speedups(pool, name, most, expected)
            if speeds[most].times >= _POOR * expected:
                continue
            if not computes_poorly or speeds[most].computed < _COMPUTES:
                yield _finding(name, speeds, expected)
            computes_poorly |= name == "compute"


class Speed(Value):
    """The speed of some workers together.

    Attributes:
        times: the speed, as a multiple of that of one worker.
        waited: the part of the time in which workers were ready but had no core.
        computed: the part of the remaining time in which workers computed.
    """

    times: float
    waited: float
    computed: float


def _speedups(
    pool: ProcessPoolExecutor, name: str, most: int, expected: float
) -> dict[int, Speed]:
    """The speed of several workers compared with one worker, by number of workers.

    Poor results are measured again, and the best result of each count decides, because
    other programs can only make a result worse. Only pure computing reveals missing
    cores; for all other work, only the time with a core counts.
    """
    folder = tempfile.gettempdir()
    counts = sorted({2, most})
    best = dict.fromkeys((1, *counts), (0.0, 0.0, 0.0))
    for _ in range(_TRIES):
        for count in (1, *counts, 1):
            best[count] = max(best[count], _rate(pool, name, folder, count))
        single = best[1][0]
        speeds = {
            count: Speed(times=rate / single, waited=waited, computed=computed)
            for count in counts
            for rate, waited, computed in [best[count]]
        }
        if speeds[most].times >= _POOR * expected:
            break
    return speeds


def _rate(
    pool: ProcessPoolExecutor, name: str, folder: str, count: int
) -> tuple[float, float, float]:
    """Rounds a second of some workers together, and the parts of `Speed`.

    The rate is the number of all rounds divided by the time of the slowest worker. On a
    slow disk that serves one worker after the other, a round may take longer than the
    measurement, and the worker that is served first would look fast.
    """
    futures = [pool.submit(repeat, name, folder, _EACH) for _ in range(count)]
    done = [future.result() for future in futures]
    part = sum(waited / wall for _, wall, waited, _ in done) / count
    computed = sum(ran / (wall - waited) for _, wall, waited, ran in done) / count
    all_time = name == "compute"
    longest = max(wall if all_time else wall - waited for _, wall, waited, _ in done)
    return sum(rounds for rounds, *_ in done) / longest, part, computed


def repeat(name: str, folder: str, seconds: float) -> tuple[int, float, float, float]:
    """Measure rounds of work in this process.

    Returns:
        The number of rounds, the seconds, the seconds without a core, and the seconds
        of computing.
    """
    run = KINDS[name].run
    mark, start, ran = Mark(), time.perf_counter(), time.thread_time()
    rounds = 0
    while time.perf_counter() < start + seconds:
        run(folder)
        rounds += 1
    wall = time.perf_counter() - start
    return rounds, wall, mark.waited(wall), time.thread_time() - ran


def _finding(name: str, speeds: dict[int, Speed], expected: float) -> Finding:
    kind, most = KINDS[name], max(speeds)
    times, waited = speeds[most].times, speeds[most].waited
    seen = ", ".join(
        f"{format_count(n, 'worker')} {s.times:.2f} times" for n, s in speeds.items()
    )
    missed = f"; {waited:.0%} of the time they had no core" if waited > _MISSED else ""
    are = "is" if most == 1 else "are"
    fast = "no faster than 1" if times < _SAME else f"{times:.2g} times as fast"
    return Finding(
        severity="warning" if times < _BAD * expected and name == "compute" else "note",
        code="poor-scaling",
        check="scaling",
        title=f"{kind.title}: {format_count(most, 'worker')} {are} {fast}",
        seen=f"{seen} as fast as 1; {expected:.3g} were to be expected{missed}",
        where="measured",
        why=kind.why,
        advice=kind.advice,
    )
