"""Pools of several libraries, each as a function from items to results as they come.

All have the same form, so that one loop measures them. It is imported by workers of
every pool: libraries are imported where they are used.
"""

from __future__ import annotations

import concurrent.futures
import sys
import time
from concurrent.futures import as_completed


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeAlias

    from coresize.executor.admission.needs import MemoryNeed

    #: What to call, with what, by how many workers.
    Contender: TypeAlias = Callable[
        [Callable[[int], Any], Sequence[int], int], Iterator[Any]
    ]

MIB = 1024**2
WAIT = 0.5


def hold(size: int) -> tuple[int, float]:
    """Take so many MiB, wait half a second; the size, and the seconds of it all."""
    start = time.perf_counter()
    kept = bytearray(b"x") * (size * MIB)
    time.sleep(WAIT)
    return len(kept) // MIB, time.perf_counter() - start


def need(size: int) -> int:
    """What `hold` needs, in bytes."""
    return size * MIB


def run(name: str, sizes: list[int], workers: int) -> None:
    """Print when each result came, and what it says; then how it ended."""
    start = time.perf_counter()
    try:
        for size, seconds in CONTENDERS[name](hold, sizes, workers):
            now = time.perf_counter() - start
            print(f"{now:.3f} {size} {seconds:.3f}", flush=True)
    except Exception as error:  # noqa: BLE001 - it is what is measured
        print(type(error).__name__, file=sys.stderr)


def _of_executor(
    pool: concurrent.futures.Executor,
    function: Callable[[int], Any],
    items: Sequence[int],
) -> Iterator[Any]:
    with pool:
        yield from _results([pool.submit(function, item) for item in items])


def _results(futures: list[concurrent.futures.Future[Any]]) -> Iterator[Any]:
    """Results that came; then an error, if there was one."""
    first: BaseException | None = None
    for future in as_completed(futures):
        if (error := future.exception()) is None:
            yield future.result()
        else:
            first = first or error
    if first is not None:
        raise first


def _coresize(
    function: Callable[[int], Any],
    items: Sequence[int],
    workers: int,
    memory: MemoryNeed | None = None,
) -> Iterator[Any]:
    from coresize import ProcessPoolExecutor

    return _of_executor(ProcessPoolExecutor(workers, memory=memory), function, items)


def _declared(
    function: Callable[[int], Any], items: Sequence[int], workers: int
) -> Iterator[Any]:
    return _coresize(function, items, workers, memory=need)


def _learned(
    function: Callable[[int], Any], items: Sequence[int], workers: int
) -> Iterator[Any]:
    return _coresize(function, items, workers, memory="auto")


def _standard(
    function: Callable[[int], Any], items: Sequence[int], workers: int
) -> Iterator[Any]:
    pool = concurrent.futures.ProcessPoolExecutor(workers)
    return _of_executor(pool, function, items)


def _loky(
    function: Callable[[int], Any], items: Sequence[int], workers: int
) -> Iterator[Any]:
    import loky

    return _of_executor(loky.ProcessPoolExecutor(workers), function, items)


def _joblib(
    function: Callable[[int], Any], items: Sequence[int], workers: int
) -> Iterator[Any]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, return_as="generator_unordered")
    results: Iterator[Any] = parallel(delayed(function)(item) for item in items)
    return results


def _pebble(
    function: Callable[[int], Any], items: Sequence[int], workers: int
) -> Iterator[Any]:
    import pebble

    with pebble.ProcessPool(workers) as pool:
        yield from _results([pool.schedule(function, (item,)) for item in items])


def _mpire(
    function: Callable[[int], Any], items: Sequence[int], workers: int
) -> Iterator[Any]:
    from mpire.pool import WorkerPool

    with WorkerPool(n_jobs=workers) as pool:
        yield from pool.imap_unordered(function, items, chunk_size=1)


CONTENDERS: dict[str, Contender] = {
    "coresize, declared": _declared,
    "coresize, auto": _learned,
    "coresize, without memory=": _coresize,
    "standard library": _standard,
    "loky": _loky,
    "joblib": _joblib,
    "pebble": _pebble,
    "mpire": _mpire,
}
