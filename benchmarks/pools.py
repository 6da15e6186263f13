"""What a task costs in pools of several libraries, measured in turns in one run.

A task that does nothing, the start of workers, large arguments and results, and what a
long map makes the parent grow by. With --write the tables are kept in
docs/reference/pools.md.

    python benchmarks/pools.py --write
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import tables
from turns import least_in_turns


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

SUBMITTED, MAPPED = 2000, 20_000
LARGE, TIMES = 10 * 10**6, 10
STARTED = (1, 8, 64)
NAP = 0.05

#: Tasks of a long map; fewer where the whole input is taken at once.
LONG = {
    "coresize, buffersize=1000": 1_000_000,
    "coresize": 1_000_000,
    "joblib, generator": 1_000_000,
    "mpire, imap": 1_000_000,
    "standard library": 50_000,
    "loky": 50_000,
}


def _ours(workers: int) -> Any:  # noqa: ANN401 - of several libraries
    from coresize import ProcessPoolExecutor as Ours

    return Ours(workers)


def _loky(workers: int) -> Any:  # noqa: ANN401 - as above
    from loky import ProcessPoolExecutor as Loky

    return Loky(workers)


def _pebble(workers: int) -> Any:  # noqa: ANN401 - as above
    from pebble import ProcessPool

    return ProcessPool(workers)


#: Workers import the main module again: so it imports no library before it is used.
POOLS: dict[str, Callable[[int], Any]] = {
    "coresize": _ours,
    "standard library": ProcessPoolExecutor,
    "loky": _loky,
}


def nothing(_item: object) -> None:
    """Cost what any task costs."""


def receive(_content: bytes) -> None:
    """Take much."""


def give(size: int) -> bytes:
    """Give much."""
    return bytes(size)


def nap(_item: object) -> None:
    """Keep a worker busy, so that the next task needs another."""
    time.sleep(NAP)


def main() -> None:
    """Print the tables, and keep them where that is asked for."""
    if len(sys.argv) > 2:
        print(json.dumps(_stream(sys.argv[2])))
        return
    text = (
        f"{tables.machine('loky', 'joblib', 'mpire', 'pebble')}; 2 workers but where "
        "the table says more. Least of repeated runs, in turns."
    )
    lines = [text, "", *_tasks(), "", *_starts(), "", *_streams()]
    print("\n".join(lines))
    if "--write" in sys.argv:
        tables.keep("reference/pools.md", "pools", lines)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# --- One task -------------------------------------------------------------------


def _tasks() -> list[str]:
    """Microseconds of a task, and MB/s, once all workers have started."""
    from joblib import Parallel, delayed
    from mpire.pool import WorkerPool

    pools = {name: make(2) for name, make in POOLS.items()}
    with (
        _pebble(2) as flint,
        WorkerPool(2, keep_alive=True) as empire,
        Parallel(2) as parallel,
    ):
        submits: dict[str, Callable[..., Any]] = {
            name: pool.submit for name, pool in pools.items()
        }
        submits["pebble"] = lambda function, item: flint.schedule(function, (item,))
        maps: dict[str, Callable[..., Iterable[Any]]] = {
            name: pool.map for name, pool in pools.items()
        }
        maps["mpire"] = empire.map
        maps["joblib"] = lambda function, items: parallel(
            delayed(function)(item) for item in items
        )
        lines = _compare(submits, maps)
    for pool in pools.values():
        pool.shutdown()
    return lines


def _compare(
    submits: dict[str, Callable[..., Any]], maps: dict[str, Callable[..., Any]]
) -> list[str]:
    def submit_all(name: str, function: object, items: Iterable[Any]) -> None:
        for future in [submits[name](function, item) for item in items]:
            future.result()

    def map_all(name: str, function: object, items: Iterable[Any]) -> None:
        for _ in maps[name](function, items):
            pass

    content = bytes(LARGE)
    columns = [
        _column(submits, submit_all, nothing, range(SUBMITTED)),
        _column(maps, map_all, nothing, range(MAPPED)),
        _column(submits, submit_all, receive, [content] * TIMES),
        _column(submits, submit_all, give, [LARGE] * TIMES),
    ]
    base = ["standard library", "joblib", "standard library", "standard library"]
    scale = [1e6 / SUBMITTED, 1e6 / MAPPED]
    rows = []
    for name in dict.fromkeys([*submits, *maps]):
        cells = [name]
        for place, column in enumerate(columns):
            if name not in column:
                cells += ["-", "-"]
                continue
            seconds, of = column[name], column[base[place]]
            large = TIMES * LARGE / 1e6 / seconds if place > 1 else 0.0
            shown = f"{large:.0f}" if place > 1 else f"{seconds * scale[place]:.1f}"
            ratio = of / seconds if place > 1 else seconds / of
            cells += [shown, f"{ratio:.2f}"]
        rows.append(cells)
    heads = ["submit, us", "of the standard library's", "map, us", "of joblib's"]
    for what in ("arguments", "results"):
        heads += [f"10 MB {what}, MB/s", "of the standard library's"]
    return tables.table(["", *heads], rows)


def _column(
    names: Iterable[str],
    run: Callable[[str, object, Iterable[Any]], None],
    function: object,
    items: Iterable[Any],
) -> dict[str, float]:
    measures = {
        name: partial(_timed, partial(run, name, function, items)) for name in names
    }
    for measure in measures.values():
        measure()  # starts workers, and lets paces be learned
    return least_in_turns(measures, rounds=5)


# --- The start ------------------------------------------------------------------


def _starts() -> list[str]:
    """Seconds until the first of n naps has ended, and all of them."""
    makes: dict[str, Callable[[int], Any]] = {**POOLS, "pebble": _pebble}
    rows = {name: [name] for name in makes}
    for workers in STARTED:
        best = {name: (float("inf"), float("inf")) for name in makes}
        for _ in range(2 if workers > 8 else 4):
            for name, make in makes.items():
                best[name] = min(best[name], _start(make, workers))
        for name, (first, every) in best.items():
            rows[name] += [f"{first:.2f}", f"{every:.2f}"]
    heads = [
        f"{workers} workers: {what}, s"
        for workers in STARTED
        for what in ("first result", "all results")
    ]
    return tables.table(["", *heads], rows.values())


def _start(make: Callable[[int], Any], workers: int) -> tuple[float, float]:
    start = time.perf_counter()
    pool = make(workers)
    schedule = pool.schedule if hasattr(pool, "schedule") else None
    futures = [
        schedule(nap, (item,)) if schedule else pool.submit(nap, item)
        for item in range(workers)
    ]
    done: Iterator[Any] = as_completed(futures)
    next(done)
    first = time.perf_counter() - start
    for _ in done:
        pass
    every = time.perf_counter() - start
    if schedule:
        pool.close()
        pool.join()
    else:
        pool.shutdown()
    return first, every


# --- A long map -----------------------------------------------------------------


def _streams() -> list[str]:
    """MiB by which the parent grows, each in a process of its own."""
    rows = []
    for name, count in LONG.items():
        command = [sys.executable, __file__, "--stream", name]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        grown, seconds = json.loads(out)
        rows.append(
            [name, f"{count:,}", f"{grown:.0f}", f"{seconds / count * 1e6:.1f}"]
        )
    return tables.table(["a long map", "tasks", "parent grows, MiB", "us a task"], rows)


def _stream(name: str) -> tuple[float, float]:
    """MiB by which this process grows while it maps, and the seconds of that."""
    items = iter(range(LONG[name]))
    if name.startswith("joblib"):
        from joblib import Parallel, delayed

        parallel = Parallel(2, return_as="generator")
        return _drain(lambda: parallel(delayed(nothing)(item) for item in items))
    if name.startswith("mpire"):
        from mpire.pool import WorkerPool

        with WorkerPool(2) as empire:
            return _drain(lambda: empire.imap(nothing, items, iterable_len=LONG[name]))
    with POOLS[name.partition(",")[0]](2) as pool:
        words = {"buffersize": 1000} if "buffersize" in name else {}
        return _drain(lambda: pool.map(nothing, items, **words))


def _drain(start: Callable[[], Iterable[object]]) -> tuple[float, float]:
    Path("/proc/self/clear_refs").write_text("5")
    before = _high()
    began = time.perf_counter()
    for _ in start():
        pass
    return (_high() - before) / 1024, time.perf_counter() - began


def _high() -> int:
    """KiB that were resident at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
