"""Large arrays: time and memory of pools whose tasks share one array, or get many.

    python benchmarks/sharing.py [MIB] [KIND ...]

Each contender runs in a program of its own, in turns; the least time of three counts,
and of the memory the least peak. There are two peaks: PSS of the whole tree of
processes, looked at every 20 ms, without what the program held before; and what the
kernel tells of a cgroup of its own, if one can be made. MIB is the size of the shared
array, by default 400; the table of scikit-learn has half of it. KIND is of those that
the first column shows, by default all.

Ray runs on, as a service: its start, which takes seconds, does not count. Contenders
and kinds whose library is not installed are left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import psutil

import coresize


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeAlias

    Work: TypeAlias = Callable[[], object]

MIB = 1024**2
ROUNDS = 3

#: Bytes of each of 30 arrays that differ.
EACH = 100 * 10**6

#: Columns of the table for scikit-learn.
COLUMNS = 1000


class Row(NamedTuple):
    """What is measured: a kind of work, its number of tasks, and of workers."""

    kind: str
    tasks: int
    workers: int


ROWS = (
    Row("shared", 12, 2),
    Row("shared", 200, 2),
    Row("shared", 200, 8),
    Row("arguments", 30, 2),
    Row("results", 30, 2),
    Row("grid", 12, 2),
    Row("grid", 12, 4),
    Row("forest", 20, 2),
    Row("validation", 6, 2),
)

#: The libraries of contenders and kinds.
LIBRARIES = {
    "ray": "ray",
    "grid": "sklearn",
    "forest": "sklearn",
    "validation": "sklearn",
}

#: The contenders of all kinds, and of those of scikit-learn; and the one with which the
#: others are compared.
POOLS = ("coresize", "joblib loky", "joblib coresize", "standard library", "ray")
BACKENDS = ("joblib coresize", "joblib loky")
LEARNING = frozenset({"grid", "forest", "validation"})
BASE = "joblib loky"


def total(array: np.ndarray, _number: int) -> float:
    """Read a part of an array."""
    return float(array[:: 4096 // 8].sum())


def length(array: np.ndarray) -> int:
    """Take an array as an argument."""
    return len(array)


def fresh(number: int) -> np.ndarray:
    """Return a large array."""
    return np.full(EACH // 8, float(number))


# -----------------------------------------------------------------------------
# Each library's way to call a function with what all calls share, and an item.


def calls(
    contender: str,
    workers: int,
    function: Callable[..., Any],
    common: tuple[Any, ...],
    items: Iterable[Any],
) -> None:
    """Make the calls, and drop the results."""
    if contender == "ray":
        values = _by_ray(workers, function, common, items)
    elif contender.startswith("joblib"):
        values = _by_joblib(contender, workers, function, common, items)
    else:
        make = _POOLS[contender]
        values = _by_pool(make, workers, partial(function, *common), items)
    for _ in values:
        pass


_POOLS: dict[str, Callable[[int], Any]] = {
    "coresize": coresize.ProcessPoolExecutor,
    "standard library": ProcessPoolExecutor,
}


def _by_pool(
    make: Callable[[int], Any],
    workers: int,
    function: Callable[..., Any],
    items: Iterable[Any],
) -> Iterator[Any]:
    with make(workers) as pool:
        yield from pool.map(function, items)


def _by_joblib(
    contender: str,
    workers: int,
    function: Callable[..., Any],
    common: tuple[Any, ...],
    items: Iterable[Any],
) -> Iterator[Any]:
    with joblib.parallel_config(_backend(contender)):
        work = (joblib.delayed(function)(*common, item) for item in items)
        yield from joblib.Parallel(workers, return_as="generator")(work)


def _backend(contender: str) -> str:
    return contender.partition(" ")[2]


def _by_ray(
    workers: int,
    function: Callable[..., Any],
    common: tuple[Any, ...],
    items: Iterable[Any],
) -> Iterator[Any]:
    ray = _ray(workers)
    remote = ray.remote(function)
    stored = [ray.put(value) for value in common]
    waiting: list[Any] = []
    for item in items:
        waiting.append(remote.remote(*stored, item))
        if len(waiting) > 2 * workers:
            yield ray.get(waiting.pop(0))
    while waiting:
        yield ray.get(waiting.pop(0))


def _ray(workers: int) -> Any:  # noqa: ANN401 - a module
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    return ray


# -----------------------------------------------------------------------------
# Kinds of work. Each function makes its data, and returns what is measured.


def shared(contender: str, row: Row, size: int) -> Work:
    """Tasks that share one array."""
    array = np.random.default_rng(0).random(size * MIB // 8)
    return partial(calls, contender, row.workers, total, (array,), range(row.tasks))


def arguments(contender: str, row: Row, _size: int) -> Work:
    """Tasks that get an array each."""
    arrays = (np.full(EACH // 8, float(number)) for number in range(row.tasks))
    return partial(calls, contender, row.workers, length, (), arrays)


def results(contender: str, row: Row, _size: int) -> Work:
    """Tasks that return an array each."""
    return partial(calls, contender, row.workers, fresh, (), range(row.tasks))


def _table(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A table of half the size for a classifier, and its classes."""
    random = np.random.default_rng(0)
    table = random.random((size * MIB // 2 // 8 // COLUMNS, COLUMNS))
    return table, (table[:, 0] > table[:, 1]).astype(int)


def grid(contender: str, row: Row, size: int) -> Work:
    """A search for a setting, with three parts of the table for each candidate."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB

    values = {"var_smoothing": [10.0**-n for n in range(row.tasks // 3)]}
    search = GridSearchCV(GaussianNB(), values, cv=3, n_jobs=row.workers, refit=False)
    return partial(_learn, contender, search.fit, *_table(size))


def forest(contender: str, row: Row, size: int) -> Work:
    """Trees of a forest, each of a part of the table."""
    from sklearn.ensemble import RandomForestClassifier

    trees = RandomForestClassifier(
        row.tasks, max_depth=3, max_samples=0.1, n_jobs=row.workers, random_state=0
    )
    return partial(_learn, contender, trees.fit, *_table(size))


def validation(contender: str, row: Row, size: int) -> Work:
    """A classifier with several parts of the table."""
    from sklearn.model_selection import cross_val_score
    from sklearn.naive_bayes import GaussianNB

    score = partial(cross_val_score, GaussianNB(), cv=row.tasks, n_jobs=row.workers)
    return partial(_learn, contender, score, *_table(size))


def _learn(
    contender: str,
    function: Callable[..., Any],
    table: np.ndarray,
    classes: np.ndarray,
) -> None:
    with joblib.parallel_config(_backend(contender)):
        function(table, classes)


KINDS: dict[str, Callable[[str, Row, int], Work]] = {
    "shared": shared,
    "arguments": arguments,
    "results": results,
    "grid": grid,
    "forest": forest,
    "validation": validation,
}


# -----------------------------------------------------------------------------
# Measuring.


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


def measure(row: Row, contender: str, size: int) -> tuple[float, int]:
    """Seconds, and the most bytes of the tree beyond those before."""
    if contender == "joblib coresize":
        from coresize.adapters.joblib import register

        register()
    if contender == "ray":
        _ray(row.workers)
    work = KINDS[row.kind](contender, row, size)
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


@contextlib.contextmanager
def cgroup() -> Iterator[Path | None]:
    """A new cgroup for memory below the own one; None if none can be made."""
    folder = _own_cgroup() / f"coresize-sharing-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        yield folder if _peak(folder) is not None else None
    finally:
        _remove(folder)


def _own_cgroup() -> Path:
    """The folder of the own cgroup that counts memory, on cgroup v1 or v2."""
    paths: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            paths |= dict.fromkeys(controllers.split(","), path)
    if "memory" in paths:
        return Path(f"/sys/fs/cgroup/memory{paths['memory']}")
    return Path(f"/sys/fs/cgroup{paths.get('', '')}")


def _remove(folder: Path) -> None:
    for _attempt in range(200):  # the last process may still be on its way out
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)


def _peak(folder: Path) -> int | None:
    """The most bytes that a cgroup had, by version 1 or 2."""
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        with contextlib.suppress(OSError):
            return int((folder / name).read_text())
    return None


def run(row: Row, contender: str, size: int) -> tuple[float, ...]:
    """Measure in a new program: seconds, bytes of the tree, and of its cgroup."""
    words = [sys.executable, __file__, str(size), *map(str, row), contender]
    with cgroup() as folder:

        def join() -> None:
            if folder is not None:
                (folder / "cgroup.procs").write_text("0")

        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=join,
        )
        peak = None if folder is None else _peak(folder)
    return *json.loads(done.stdout.splitlines()[-1]), peak or 0


def contenders(row: Row) -> list[str]:
    """The contenders of a row that can run here."""
    names: tuple[str, ...] = BACKENDS if row.kind in LEARNING else POOLS
    if row.tasks > 100:  # it takes minutes
        names = tuple(name for name in names if name != "standard library")
    return [name for name in names if not _missing(name)]


def _missing(name: str) -> str:
    """The library that a contender or a kind lacks."""
    library = LIBRARIES.get(name)
    return library if library and not importlib.util.find_spec(library) else ""


def main(size: int, kinds: list[str]) -> None:
    """Print one line a row and contender: seconds and MiB, and ratios to joblib."""
    for name in filter(_missing, LIBRARIES):
        print(f"left out: {name}, since {_missing(name)} is not installed")
    print(f"{'':37} seconds  ratio      PSS  ratio   cgroup  ratio")
    for row in ROWS:
        if (not kinds or row.kind in kinds) and not _missing(row.kind):
            tell(row, size)


def tell(row: Row, size: int) -> None:
    """Measure the contenders of one row in turns, and print the least values."""
    names = contenders(row)
    rounds = [{name: run(row, name, size) for name in names} for _ in range(ROUNDS)]
    best = {
        name: [min(values) for values in zip(*(each[name] for each in rounds))]  # noqa: B905
        for name in names
    }
    for name, values in best.items():
        ratios = [own / max(base, 1e-9) for own, base in zip(values, best[BASE])]  # noqa: B905
        cells = [f"{values[0]:7.2f} {ratios[0]:6.2f}"]
        for value, ratio in list(zip(values, ratios))[1:]:  # noqa: B905
            cells.append(f"{value / MIB:8.0f} {ratio:6.2f}")
        label = f"{row.kind:10} {row.tasks:3} by {row.workers} {name:18}"
        print(label, *cells, flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) > 4 and given[1] in KINDS and given[2].isdigit():
        what = Row(given[1], int(given[2]), int(given[3]))
        print(json.dumps(measure(what, given[4], int(given[0]))))
    else:
        main(int(given[0]) if given else 400, given[1:])
