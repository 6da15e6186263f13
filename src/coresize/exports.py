"""The variables that tell other programs how much they may use. Pure.

What each obeys was tried with the real program (tests/live/test_programs.py) or is in
its documentation (docs/reference/exports.md).
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: How many processes, or what a program that makes them takes for the machine's CPUs.
PROCESSES = (
    "PYTHON_CPU_COUNT",
    "LOKY_MAX_CPU_COUNT",
    "PYTEST_XDIST_AUTO_NUM_WORKERS",
    "CMAKE_BUILD_PARALLEL_LEVEL",
    "MC_CORES",
    "R_PARALLELLY_AVAILABLECORES_FALLBACK",
    "R_PARALLELLY_AVAILABLECORES_SYSTEM",
)

#: How many threads one process has.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "GOMAXPROCS",
    "UV_THREADPOOL_SIZE",
)

#: Variables that hold options of several kinds, with the start of the option that is
#: ours: where the user has set others, ours is added.
OPTIONS = {
    "JAVA_TOOL_OPTIONS": "-XX:ActiveProcessorCount",
    "MAKEFLAGS": "-j",
}


def variables(*, workers: int, threads: int, memory: int | None) -> dict[str, str]:
    """All variables with their values.

    Args:
        workers: processes that may run side by side.
        threads: threads that each may keep busy.
        memory: bytes that each may use; None where that is not known.

    >>> variables(workers=4, threads=2, memory=None)["OMP_NUM_THREADS"]
    '2'
    """
    found = dict.fromkeys(PROCESSES, str(workers))
    found.update(dict.fromkeys(THREADS, str(threads)))
    found["JAVA_TOOL_OPTIONS"] = f"-XX:ActiveProcessorCount={threads}"
    found["MAKEFLAGS"] = f"-j{workers}"
    if memory is not None:
        found["GOMEMLIMIT"] = str(memory)
    return found


def wanted(
    variables: Mapping[str, str], present: Mapping[str, str], *, force: bool = False
) -> dict[str, str]:
    """What is to be set beside what is set already.

    What the user has set stays, unless forced; options are added to the user's own.

    >>> wanted({"MC_CORES": "4", "MAKEFLAGS": "-j4"}, {"MC_CORES": "2"})
    {'MAKEFLAGS': '-j4'}
    >>> wanted({"MAKEFLAGS": "-j4"}, {"MAKEFLAGS": "k --no-print-directory"})
    {'MAKEFLAGS': 'k --no-print-directory -j4'}
    """
    found = {}
    for name, value in variables.items():
        there = present.get(name, "")
        if not there:
            found[name] = value
        elif name in OPTIONS:
            theirs = there.split()
            if force:
                theirs = [word for word in theirs if not word.startswith(OPTIONS[name])]
            if not any(word.startswith(OPTIONS[name]) for word in theirs):
                found[name] = " ".join([*theirs, value])
        elif force:
            found[name] = value
    return found
