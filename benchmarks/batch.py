"""What a batch costs: per task over the bare executor, at a resume, and in memory.

    python benchmarks/batch.py [ITEMS]

ITEMS (a million by default) is how many keys a journal has that is gone on from, and
how many items there are where the memory of the parent is measured.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from pathlib import Path

from turns import least_in_turns

from coresize import ProcessPoolExecutor, ThreadPoolExecutor, run_batch


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Quick tasks of one measure.
TASKS = 20_000
MOST_COST, MOST_GROWTH = 60.0, 50.0

#: Prints by how many MiB the parent grew at most, and the microseconds of an item.
MEMORY = """\
import sys, time
from coresize import processes, run_batch
from coresize.processes import memory
if __name__ == "__main__":
    executor, count, journal = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
    def held():
        return memory.status(processes.read("self", "status")).high / 1024**2
    words = {"executor": executor, "progress": False}
    for _ in run_batch(abs, iter(range(2000)), **words):
        pass
    before, start = held(), time.perf_counter()
    for _ in run_batch(abs, iter(range(count)), journal=journal, **words):
        pass
    print(held() - before, (time.perf_counter() - start) / count * 1e6)
"""


def main() -> None:
    """Print the tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        _costs(Path(folder))
        _memory(Path(folder), count)


def _costs(folder: Path) -> None:
    """The time that a quick task takes, over executors that are there already."""
    print(f"\nus a task, {TASKS} quick tasks, 2 workers")
    print(f"{'':12}{'bare':>8}{'batch':>8}{'journal':>9}")
    pools: list[Executor] = [ThreadPoolExecutor(2), ProcessPoolExecutor(2)]
    for pool in pools:
        with pool:
            name = type(pool).__name__.removesuffix("PoolExecutor").lower()
            measures = {
                "bare": _timed(_bare, pool, None),
                "batch": _timed(_batch, pool, None),
                "journal": _timed(_batch, pool, folder),
            }
            least = least_in_turns(measures, rounds=5)
        costs = [seconds / TASKS * 1e6 for seconds in least.values()]
        more = costs[2] - costs[0]
        judged = f"{more:+.1f}, at most {MOST_COST:+.0f}: {_judged(more, MOST_COST)}"
        print(f"{name:12}{costs[0]:8.1f}{costs[1]:8.1f}{costs[2]:9.1f}   {judged}")


def _judged(value: float, most: float) -> str:
    return "ok" if value <= most else "NO"


def _timed(
    work: Callable[[Executor, Path | None], None], pool: Executor, folder: Path | None
) -> Callable[[], float]:
    def measure() -> float:
        start = time.perf_counter()
        work(pool, folder)
        return time.perf_counter() - start

    return measure


def _bare(pool: Executor, _folder: Path | None) -> None:
    """As many tasks by hand, a bounded number of them in flight."""
    futures = set()
    for item in range(TASKS):
        futures.add(pool.submit(abs, item))
        if len(futures) >= 1024:
            _, futures = wait(futures, return_when=FIRST_COMPLETED)
    wait(futures)


def _batch(pool: Executor, folder: Path | None) -> None:
    journal = None if folder is None else folder / f"{time.monotonic_ns()}.sqlite"
    run = run_batch(abs, range(TASKS), executor=pool, journal=journal, progress=False)
    deque(run, maxlen=0)


def _memory(folder: Path, count: int) -> None:
    """What the parent grows by, and what it takes to go on from so many keys."""
    print(f"\n{count} items   {'MiB':>8}{'us an item':>12}")
    cases = [
        ("serial", "serial", ""),
        ("thread", "thread", ""),
        ("process", "process", ""),
        ("with a journal", "thread", "new.sqlite"),
        ("resume", "thread", "new.sqlite"),
    ]
    for name, executor, journal in cases:
        path = str(folder / journal) if journal else ""
        words = [sys.executable, "-c", MEMORY, executor, str(count), path]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        grown, cost = map(float, done.stdout.split())
        judged = f"at most {MOST_GROWTH:.0f} MiB: {_judged(grown, MOST_GROWTH)}"
        print(f"{name:18}{grown:8.1f}{cost:12.1f}   {judged}", flush=True)


if __name__ == "__main__":
    main()
