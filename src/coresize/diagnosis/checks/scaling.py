"""A benchmark of two seconds: what does not get faster with more workers here."""

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


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.diagnosis.context import Context

#: Seconds of each kind, with one worker and with many.
_EACH = 0.15

#: How often that is tried where it is less than it should be.
_TRIES = 3

#: Parts of what so many workers should get done.
_POOR, _BAD = 0.7, 0.4

#: What is told: no faster than one, and a part of the time that cores were missing.
_SAME, _MISSED = 1.05, 0.1

#: Work that computes for a larger part of its time than this is limited by cores.
_COMPUTES = 0.5

#: More workers show nothing more, and take long to start.
_MOST = 16

_MEGABYTE = bytes(1024**2)
_BLOCK = 16 * 1024**2

#: Bytes of a worker with what it copies.
_MEMORY = 72 * 1024**2


def compute(_folder: str) -> None:
    """Pure CPU, in the caches."""
    total = 0
    for number in range(20_000):
        total += number * number


def copy(_folder: str) -> None:
    """Memory bandwidth: a block that no cache holds."""
    bytearray(_BLOCK)[:] = bytes(_BLOCK)


def pickling(_folder: str) -> None:
    """A megabyte there and back."""
    pickle.loads(pickle.dumps(list(range(100_000)), 5))  # noqa: S301 - our own


def write(folder: str) -> None:
    """A small file in the temporary folder."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(_MEGABYTE)


class Kind(Value):
    """One kind of work.

    Attributes:
        title: what it is called.
        run: does a little of it, with the temporary folder.
        why: more workers may not be faster.
        advice: what to do then.
        computes: it wants a core all the time.
    """

    title: str
    run: Callable[[str], None]
    why: str
    advice: str
    computes: bool


KINDS = {
    "compute": Kind(
        title="pure computing",
        run=compute,
        why="the cores are shared with other programs, throttled, or hyper-threads, "
        "so computing does not get faster with more workers",
        advice="look for other programs that compute on this machine; coresize sweep "
        "finds the best number of workers for your task",
        computes=True,
    ),
    "copy": Kind(
        title="memory bandwidth",
        run=copy,
        why="the cores share the memory bandwidth, and a few cores use all of it",
        advice="use fewer workers for tasks that read large arrays; coresize sweep "
        "finds the best number",
        computes=True,
    ),
    "pickling": Kind(
        title="pickling of 1 MB",
        run=pickling,
        why="the time is spent on memory access, not on computing",
        advice="send workers paths or ranges in place of large objects",
        computes=True,
    ),
    "write": Kind(
        title="files in the temporary folder",
        run=write,
        why="the workers share the disk, and a few workers use all of its bandwidth",
        advice="set TMPDIR to a faster disk, or let tasks write less",
        computes=False,
    ),
}


def scaling(context: Context) -> Iterator[Finding]:
    """Each kind with one worker, with two, and with as many as there are cores.

    Raises:
        Skipped: there is one core, all runs serially, or memory is too little to try.
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
        warm(pool, most)  # else the imports are in what one worker gets done
        computes_poorly = False
        for name, kind in KINDS.items():
            # Where cores are missing, all that computes is slow, which is no news. A
            # slow disk is: workers wait for it, and hardly compute.
            if computes_poorly and kind.computes:
                continue
            found = _speedups(pool, name, most, expected)
            if found[most].times >= _POOR * expected:
                continue
            if not computes_poorly or found[most].computed < _COMPUTES:
                yield _finding(name, found, expected)
            computes_poorly |= name == "compute"


class Speed(Value):
    """What some workers got done together.

    Attributes:
        times: as much as one.
        waited: the part of the time that they were ready and had no core.
        computed: the part of the other time that they used it.
    """

    times: float
    waited: float
    computed: float


def _speedups(
    pool: ProcessPoolExecutor, name: str, most: int, expected: float
) -> dict[int, Speed]:
    """How many times as fast as one some workers are, by their number.

    Measured once more where it is little. Of each the best counts, of one as of many:
    what others do meanwhile makes it less. And that a core was missing is told by pure
    computing alone: of all else, the time counts in which there was one.
    """
    folder = tempfile.gettempdir()
    counts = sorted({2, most})
    best = dict.fromkeys((1, *counts), (0.0, 0.0, 0.0))
    for _ in range(_TRIES):
        for count in (1, *counts, 1):
            best[count] = max(best[count], _rate(pool, name, folder, count))
        single = best[1][0]
        found = {
            count: Speed(times=rate / single, waited=waited, computed=computed)
            for count in counts
            for rate, waited, computed in [best[count]]
        }
        if found[most].times >= _POOR * expected:
            break
    return found


def _rate(
    pool: ProcessPoolExecutor, name: str, folder: str, count: int
) -> tuple[float, float, float]:
    """Rounds a second of some workers together, and the parts of `Speed`.

    All rounds count over the time of the worker that took longest: where a round takes
    longer than is measured, as on a slow disk that serves one worker after the other,
    the first to end has had what the others waited for.
    """
    futures = [pool.submit(repeat, name, folder, _EACH) for _ in range(count)]
    done = [future.result() for future in futures]
    part = sum(waited / wall for _, wall, waited, _ in done) / count
    computed = sum(ran / (wall - waited) for _, wall, waited, ran in done) / count
    all_time = name == "compute"
    longest = max(wall if all_time else wall - waited for _, wall, waited, _ in done)
    return sum(rounds for rounds, *_ in done) / longest, part, computed


def repeat(name: str, folder: str, seconds: float) -> tuple[int, float, float, float]:
    """Rounds of this process, the seconds, and those of it without and with a core."""
    run = KINDS[name].run
    mark, start, ran = Mark(), time.perf_counter(), time.thread_time()
    rounds = 0
    while time.perf_counter() < start + seconds:
        run(folder)
        rounds += 1
    wall = time.perf_counter() - start
    return rounds, wall, mark.waited(wall), time.thread_time() - ran


def _finding(name: str, found: dict[int, Speed], expected: float) -> Finding:
    kind, most = KINDS[name], max(found)
    times, waited = found[most].times, found[most].waited
    told = ", ".join(f"{n} workers {one.times:.2f} times" for n, one in found.items())
    missed = f"; {waited:.0%} of the time they had no core" if waited > _MISSED else ""
    fast = "are no faster than 1" if times < _SAME else f"are {times:.2g} times as fast"
    return Finding(
        severity="warning" if times < _BAD * expected and name == "compute" else "note",
        check="scaling",
        title=f"{kind.title}: {most} workers {fast}",
        seen=f"{told} as fast as 1; {expected:.3g} were to be expected{missed}",
        where="measured",
        why=kind.why,
        advice=kind.advice,
    )
