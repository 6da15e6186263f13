"""Threads of BLAS and OpenMP, times workers."""

from __future__ import annotations

from coresize import exports
from coresize.detection.parse import format_count
from coresize.diagnosis.findings import Finding
from coresize.planning import plan_workers


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.patient import Patient

#: From this factor on threads wait for each other more than they compute.
_MUCH = 1.5


#: OpenMP takes a number for each level of nesting; rayon takes 0 for "as many as CPUs".
_BY_LEVEL, _AUTOMATIC = ("OMP_NUM_THREADS",), ("RAYON_NUM_THREADS", "0")


def blas(patient: Patient) -> Iterator[Finding]:
    """How many threads all workers together would keep busy."""
    plan = plan_workers(limits=patient.limits, settings=patient.settings)
    given = {}
    for name, text in patient.variable(*exports.THREADS).items():
        first = text.partition(",")[0] if name in _BY_LEVEL else text
        if first.strip().isascii() and first.strip().isdigit() and int(first):
            given[int(first)] = name
        elif (name, text) != _AUTOMATIC:
            yield _no_number(name, text)
    if given:  # of several the greatest: some library obeys it
        most = max(given)
        yield from _product(patient, f"{given[most]}={most}", most, plan.workers)
        return
    for library, threads in _loaded():
        if threads > patient.real_cores * _MUCH:
            yield from _product(patient, library, threads, 1)


def _product(
    patient: Patient, named: str, threads: int, workers: int
) -> Iterator[Finding]:
    total, cores = threads * workers, patient.real_cores
    if total < _MUCH * cores or threads == 1:
        return
    of = (
        f"{workers} workers x {threads} threads"
        if workers > 1
        else f"{threads} threads"
    )
    yield Finding(
        severity="warning",
        check="threads",
        title=f"{of} on {format_count(cores, 'core')}",
        seen=f"{named}: {total} threads in all, {round(total / cores, 1):g} for each "
        "core",
        where=named,
        why="threads of BLAS and OpenMP spin while they wait: more of them than cores "
        "are many times slower than as many",
        advice=f"set it to {max(1, cores // workers)}, or leave it to "
        "coresize.ProcessPoolExecutor, which gives each worker its share",
    )


def _no_number(name: str, text: str) -> Finding:
    return Finding(
        severity="warning",
        check="threads",
        title=f"{name}={text} is no number of threads",
        seen=f"{name}={text}",
        where=name,
        why="libraries ignore it, and take as many threads as they count CPUs",
        advice=f"set {name} to a number above 0, or unset it",
    )


def _loaded() -> list[tuple[str, int]]:
    """Libraries of threads in this process, where threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [
        (f"{one.get('internal_api', '?')} in this process", int(one["num_threads"]))
        for one in threadpool_info()
    ]
