"""The variables that tell other programs how much they may use. Pure.

What each obeys was tried with the real program (tests/live/test_programs.py) or is in
its documentation (docs/reference/exports.md).
"""

from __future__ import annotations

import re


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from coresize.planning.values import WorkerPlan

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
)

#: What libuv starts by itself: its threads wait for files and names more than they
#: compute, and with fewer a single slow one stops all others (libuv, "Thread pool").
_LIBUV_DEFAULT = 4

#: Variables that hold options of several kinds, and how to know one that is ours.
OPTIONS = {
    "JAVA_TOOL_OPTIONS": re.compile(r"^-XX:ActiveProcessorCount="),
    # Letters may stand together, and in the first word without a dash (GNU make,
    # "Communicating Options to a Sub-make").
    "MAKEFLAGS": re.compile(r"^(--jobs\b|-?[a-zA-Z]*j[0-9]*$)"),
}


#: What was set by us: "NAME=value NAME=value". A variable that has another value by now
#: was set by the user.
SET = "CORESIZE_SET"


def variables(plan: WorkerPlan, *, alone: bool) -> dict[str, str]:
    """All variables with their values.

    Args:
        plan: how many processes there are, and what each may use.
        alone: the program is one process and may use all cores and all memory itself,
            unless everything is to be serial.

    >>> from coresize import plan_workers
    >>> variables(plan_workers(tasks=1), alone=False)["MC_CORES"]
    '1'
    """
    workers, threads = plan.workers, plan.threads_per_worker
    memory = plan.memory_per_worker
    if plan.binding == "parallel":
        threads = 1
    elif alone:
        threads = max(1, plan.bounds["cpu"])
        memory = memory and memory * workers
    found = dict.fromkeys(PROCESSES, str(workers))
    found.update(dict.fromkeys(THREADS, str(threads)))
    found["UV_THREADPOOL_SIZE"] = str(max(_LIBUV_DEFAULT, threads))
    found["JAVA_TOOL_OPTIONS"] = f"-XX:ActiveProcessorCount={threads}"
    found["MAKEFLAGS"] = f"-j{workers}"
    if memory is not None:
        found["GOMEMLIMIT"] = str(memory)
    return found


def wanted(
    variables: Mapping[str, str], present: Mapping[str, str], *, force: bool = False
) -> dict[str, str]:
    """What is to be set beside what is set already.

    What the user has set stays, unless forced. To the user's own options ours is added
    in front, where it gives way to them.

    >>> wanted({"MC_CORES": "4", "MAKEFLAGS": "-j4"}, {"MC_CORES": "2"})
    {'MAKEFLAGS': '-j4'}
    >>> wanted({"MAKEFLAGS": "-j4"}, {"MAKEFLAGS": "k --no-print-directory"})
    {'MAKEFLAGS': '-j4 -k --no-print-directory'}
    """
    found = {}
    for name, value in variables.items():
        there = present.get(name, "")
        if not there:
            found[name] = value
        elif name in OPTIONS:
            found.update(_added(name, value, there, force=force))
        elif force:
            found[name] = value
    return found


def of_user(present: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that ``coresize run`` or a pool has set.

    >>> of_user({"OMP_NUM_THREADS": "4", "MC_CORES": "2", SET: "OMP_NUM_THREADS=4"})
    {'MC_CORES': '2', 'CORESIZE_SET': 'OMP_NUM_THREADS=4'}
    """
    ours = _ours(present)
    return {name: value for name, value in present.items() if ours.get(name) != value}


def marked(present: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Variables with others that are set, and with a note of what was set by us.

    >>> marked({"A": "1"}, {"MC_CORES": "2"})
    {'A': '1', 'MC_CORES': '2', 'CORESIZE_SET': 'MC_CORES=2'}
    """
    # To options the user's own are added.
    plain = {name: value for name, value in given.items() if name not in OPTIONS}
    ours = {**_ours(present), **plain}
    note = " ".join(f"{name}={value}" for name, value in ours.items())
    return {**present, **given, SET: note}


def _ours(present: Mapping[str, str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in present.get(SET, "").split())
    return {name: value for name, _, value in pairs}


def _added(name: str, value: str, there: str, *, force: bool) -> dict[str, str]:
    """Our option with the user's own, or nothing where that is among them."""
    ours = OPTIONS[name]
    words = there.split(" ")
    if name == "MAKEFLAGS" and words[0].isalpha():
        words[0] = f"-{words[0]}"  # it is no longer the first
    if force:
        words = [word for word in words if not ours.match(word)]
    elif any(ours.match(word) for word in words):
        return {}
    return {name: " ".join([value, *words])}
