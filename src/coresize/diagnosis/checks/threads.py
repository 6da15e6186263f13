"""Threads of BLAS and OpenMP, times workers."""

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

#: From this factor on threads wait for each other more than they compute.
_MUCH = 1.5


#: OpenMP takes a number for each level of nesting; rayon takes 0 for "as many as CPUs".
_BY_LEVEL, _AUTOMATIC = ("OMP_NUM_THREADS",), ("RAYON_NUM_THREADS", "0")


def blas(context: Context) -> Iterator[Finding]:
    """How many threads all workers together would keep busy."""
    given = {}
    for name, text in context.variable(*exports.THREADS).items():
        first = text.partition(",")[0] if name in _BY_LEVEL else text
        if first.strip().isascii() and first.strip().isdigit() and int(first):
            given[int(first)] = name
        elif (name, text) != _AUTOMATIC:
            yield _no_number(name, text)
    if given:  # of several the greatest: some library obeys it
        most = max(given)
        yield from _product(context, f"{given[most]}={most}", most)
    elif isinstance(context.host, Live):  # it is this process
        yield from compare(context, _loaded())


def compare(context: Context, loaded: dict[str, int]) -> Iterator[Finding]:
    """The threads that libraries have started in a process, times workers."""
    if loaded:
        named = max(loaded, key=lambda name: loaded[name])
        yield from _product(context, named, loaded[named], is_set=False)


def _product(
    context: Context, named: str, threads: int, *, is_set: bool = True
) -> Iterator[Finding]:
    """Threads times workers, where that is too many.

    Unless somebody set the number it is what each library takes by itself, as many as
    there are cores: too many only in a pool that leaves it so.
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
        f"{workers} workers x {threads} threads"
        if workers > 1
        else f"{threads} threads"
    )
    yield Finding(
        severity="warning" if is_set or threads > _MUCH * cores else "note",
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
        check="threads",
        title=f"{name}={text} is not a number of threads",
        seen=f"{name}={text}",
        where=name,
        why="libraries ignore it, and start one thread for each CPU that they count",
        advice=f"set {name} to a number above 0, or unset it",
    )


def _loaded() -> dict[str, int]:
    """Threads by library of this process, where threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return {}
    found: dict[str, int] = {}
    for one in threadpool_info():
        name = f"{one.get('internal_api', '?')} in this process"
        found[name] = max(found.get(name, 0), int(one["num_threads"]))
    return found
