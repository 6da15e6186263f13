"""Threads of BLAS and OpenMP, multiplied by workers."""

from __future__ import annotations

from coresize.diagnosis.findings import Finding
from coresize.host import Live
from coresize.planning import exports
from coresize.planning.plan import plan_workers
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.context import Context

#: With this many threads per core or more, threads mostly wait for each other.
_MUCH = 1.5


#: OpenMP accepts one number per level of nesting; rayon reads 0 as "one per CPU".
_BY_LEVEL, _AUTOMATIC = ("OMP_NUM_THREADS",), ("RAYON_NUM_THREADS", "0")


def blas(context: Context) -> Iterator[Finding]:
    """Too many threads of all workers together."""
    numbers = {}
    for name, text in context.variable(*exports.THREADS).items():
        first = text.partition(",")[0] if name in _BY_LEVEL else text
        if first.strip().isascii() and first.strip().isdigit() and int(first):
            numbers[int(first)] = name
        elif (name, text) != _AUTOMATIC:
            yield _no_number(name, text)
    if numbers:  # some library obeys the greatest
        most = max(numbers)
        yield from _product(context, f"{numbers[most]}={most}", most)
    elif isinstance(context.host, Live):  # the libraries are those of this process
        yield from compare(context, _loaded())


def is_limited(context: Context) -> bool:
    """Whether a variable limits the threads of some library."""
    return bool(context.variable(*exports.THREADS))


def compare(context: Context, loaded: dict[str, int]) -> Iterator[Finding]:
    """The threads that libraries have started in a process, multiplied by workers."""
    if loaded:
        named = max(loaded, key=lambda name: loaded[name])
        yield from _product(context, named, loaded[named], is_set=False)


def _product(
    context: Context, named: str, threads: int, *, is_set: bool = True
) -> Iterator[Finding]:
    """A finding if threads multiplied by workers are too many for the cores.

    Without a setting, each library starts one thread per core; those are too many only
    in pools that do not limit them.
    """
    plan = plan_workers(limits=context.limits, settings=context.settings)
    workers, cores = plan.workers, context.real_cores
    total, share = threads * workers, max(1, cores // workers)
    if total < _MUCH * cores or threads == 1:
        return
    ours = "coresize.ProcessPoolExecutor gives each worker its share"
    advice = f"set it to {share}, or unset it: {ours}"
    if not is_set:
        advice = (
            f"{ours}; for workers of other libraries: coresize run --workers {workers} "
            f"-- CMD, which sets OMP_NUM_THREADS={share} and similar variables"
        )
    of = (
        f"{workers} workers x {format_count(threads, 'thread')}"
        if workers > 1
        else format_count(threads, "thread")
    )
    yield Finding(
        severity="warning" if is_set or threads > _MUCH * cores else "note",
        code="too-many-threads",
        check="threads",
        title=f"{of} on {format_count(cores, 'core')}",
        seen=f"{named}: {total} threads in all, {round(total / cores, 1):g} for each "
        "core",
        where=named,
        why="threads of BLAS and OpenMP spin while they wait: with more threads than "
        "cores, they are many times slower",
        advice=advice,
    )


def _no_number(name: str, text: str) -> Finding:
    return Finding(
        severity="warning",
        code="thread-count-invalid",
        check="threads",
        title=f"{name}={text} is not a number of threads",
        seen=f"{name}={text}",
        where=name,
        why="libraries ignore it, and start one thread for each CPU that they count",
        advice=f"set {name} to a number above 0, or unset it",
    )


def _loaded() -> dict[str, int]:
    """The threads of each library in this process, if threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return {}
    threads: dict[str, int] = {}
    for pool in threadpool_info():
        name = f"{pool.get('internal_api', '?')} in this process"
        threads[name] = max(threads.get(name, 0), int(pool["num_threads"]))
    return threads
