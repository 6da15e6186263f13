"""Large arrays: time and memory of pools whose tasks share one array, or get many.

    python benchmarks/sharing.py [MIB]

Each contender runs in a program of its own, in turns; the least time of three counts,
and of the memory the least peak: PSS of the whole tree of processes, looked at every 20
ms, without what the program held before. MIB is the size of the shared array, by
default 400.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import joblib
import numpy as np
import psutil

import coresize


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MIB = 1024**2
ROUNDS = 3

#: Bytes of each of 30 arrays that differ.
EACH = 100 * 10**6


def total(array: np.ndarray, _number: int) -> float:
    """Read a part of an array."""
    return float(array[:: 4096 // 8].sum())


def length(array: np.ndarray) -> int:
    """Take an array as an argument."""
    return len(array)


def fresh(number: int) -> np.ndarray:
    """Return a large array."""
    return np.full(EACH // 8, float(number))


def _pool(workers: int) -> Any:  # noqa: ANN401 - of several libraries
    return coresize.ProcessPoolExecutor(workers)


def _calls(
    make: Callable[[int], Any], function: Callable[..., Any], items: Iterable[Any]
) -> None:
    with make(WORKERS) as pool:
        for _ in pool.map(function, items):
            pass


def _joblib(
    backend: str, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
) -> None:
    with joblib.parallel_config(backend):
        work = (joblib.delayed(function)(*args) for args in calls)
        for _ in joblib.Parallel(WORKERS, return_as="generator")(work):
            pass


WORKERS = 2


def shared(contender: str, tasks: int, size: int) -> Callable[[], None]:
    """Tasks that share one array."""
    array = np.random.default_rng(0).random(size * MIB // 8)
    if contender in {"coresize", "standard library"}:
        make = _pool if contender == "coresize" else ProcessPoolExecutor
        return lambda: _calls(make, partial(total, array), range(tasks))
    backend = contender.partition(" ")[2]
    return lambda: _joblib(backend, total, ((array, n) for n in range(tasks)))


def arguments(contender: str, tasks: int, size: int) -> Callable[[], None]:
    """Tasks that get an array each."""
    del size
    arrays = (np.full(EACH // 8, float(number)) for number in range(tasks))
    if contender in {"coresize", "standard library"}:
        make = _pool if contender == "coresize" else ProcessPoolExecutor
        return lambda: _calls(make, length, arrays)
    backend = contender.partition(" ")[2]
    return lambda: _joblib(backend, length, ((array,) for array in arrays))


def results(contender: str, tasks: int, size: int) -> Callable[[], None]:
    """Tasks that return an array each."""
    del size
    if contender in {"coresize", "standard library"}:
        make = _pool if contender == "coresize" else ProcessPoolExecutor
        return lambda: _calls(make, fresh, range(tasks))
    backend = contender.partition(" ")[2]
    return lambda: _joblib(backend, fresh, ((number,) for number in range(tasks)))


KINDS = {"shared": shared, "arguments": arguments, "results": results}


def tree() -> int:
    """PSS of this process and all that descend from it, in bytes."""
    me = psutil.Process()
    size = 0
    for process in (me, *me.children(recursive=True)):
        try:
            size += process.memory_full_info().pss
        except psutil.Error:
            continue
    return size


def measure(kind: str, contender: str, tasks: int, size: int) -> tuple[float, int]:
    """Seconds, and the most bytes of the tree beyond those before."""
    if contender.startswith("joblib"):
        from coresize.adapters.joblib import register

        register()
    work = KINDS[kind](contender, tasks, size)
    before, most, over = tree(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.02):
            most = max(most, tree())

    watching = threading.Thread(target=watch)
    watching.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    over.set()
    watching.join()
    return seconds, most - before


CONTENDERS = ("coresize", "joblib coresize", "joblib loky", "standard library")


def main(size: int) -> None:
    """Print one line a row and contender: seconds and MiB, and ratios to joblib."""
    rows = [("shared", 12), ("shared", 200), ("arguments", 30), ("results", 30)]
    print(f"{'':32} seconds  ratio      MiB  ratio")
    for kind, tasks in rows:
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in CONTENDERS}
        for _ in range(ROUNDS):
            for contender in CONTENDERS:
                if tasks > 100 and contender == "standard library":
                    continue  # it takes minutes
                words = [sys.executable, __file__, kind, contender, str(tasks)]
                done = subprocess.run(
                    [*words, str(size)], capture_output=True, text=True, check=True
                )
                found[contender].append(tuple(json.loads(done.stdout)))
        best = {
            name: [min(values) for values in zip(*runs, strict=True)]
            for name, runs in found.items()
            if runs
        }
        base = best["joblib loky"]
        for name, (seconds, memory) in best.items():
            print(
                f"{kind:9} {tasks:3} {name:18} {seconds:7.2f} {seconds / base[0]:6.2f} "
                f"{memory / MIB:8.0f} {memory / max(base[1], 1):6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        chosen, who, count, mib = sys.argv[1:]
        print(json.dumps(measure(chosen, who, int(count), int(mib))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
