"""The variables that tell other programs how much they may use. Pure.

Each was tried with the real program (tests/live/test_programs.py) or is in its
documentation (docs/reference/exports.md).
"""

from __future__ import annotations

import re


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from coresize.planning.values import WorkerPlan

#: Variables for the number of processes, or for the number of CPUs that a program
#: derives it from.
PROCESSES = (
    "PYTHON_CPU_COUNT",
    "LOKY_MAX_CPU_COUNT",
    "PYTEST_XDIST_AUTO_NUM_WORKERS",
    "CMAKE_BUILD_PARALLEL_LEVEL",
    "MC_CORES",
    "R_PARALLELLY_AVAILABLECORES_FALLBACK",
    "R_PARALLELLY_AVAILABLECORES_SYSTEM",
)

#: Variables for the number of threads of one process.
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

#: The default size of libuv's thread pool. Its threads wait for files and host names
#: more than they compute; in a smaller pool one slow request blocks all others (libuv,
#: "Thread pool").
_LIBUV_DEFAULT = 4

#: Variables that hold several options, each with the pattern of the option we set.
OPTIONS = {
    "JAVA_TOOL_OPTIONS": re.compile(r"^-XX:ActiveProcessorCount="),
    # Option letters may be combined, and the first word needs no dash (GNU make,
    # "Communicating Options to a Sub-make").
    "MAKEFLAGS": re.compile(r"^(--jobs\b|-?[a-zA-Z]*j[0-9]*$)"),
}


#: The variable that lists what coresize has set: "NAME=value NAME=value". A variable
#: that has another value now was set by the user.
SET = "CORESIZE_SET"


def variables(plan: WorkerPlan, *, alone: bool) -> dict[str, str]:
    """All export variables with their values.

    Args:
        plan: the number of processes, and what each may use.
        alone: whether the program is a single process, which may use all cores and all
            memory itself, unless ``parallel`` is off.

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
    values = dict.fromkeys(PROCESSES, str(workers))
    values.update(dict.fromkeys(THREADS, str(threads)))
    values["UV_THREADPOOL_SIZE"] = str(max(_LIBUV_DEFAULT, threads))
    values["JAVA_TOOL_OPTIONS"] = f"-XX:ActiveProcessorCount={threads}"
    values["MAKEFLAGS"] = f"-j{workers}"
    if memory is not None:
        values["GOMEMLIMIT"] = str(memory)
    return values


def wanted(
    variables: Mapping[str, str], present: Mapping[str, str], *, force: bool = False
) -> dict[str, str]:
    """The variables to set, given those that are present already.

    Variables that the user has set keep their values, unless ``force`` is true. In a
    variable of options, ours goes in front of the user's, which take precedence there.

    >>> wanted({"MC_CORES": "4", "MAKEFLAGS": "-j4"}, {"MC_CORES": "2"})
    {'MAKEFLAGS': '-j4'}
    >>> wanted({"MAKEFLAGS": "-j4"}, {"MAKEFLAGS": "k --no-print-directory"})
    {'MAKEFLAGS': '-j4 -k --no-print-directory'}
    """
    changes = {}
    for name, value in variables.items():
        old = present.get(name, "")
        if not old:
            changes[name] = value
        elif name in OPTIONS:
            changes.update(_combined(name, value, old, force=force))
        elif force:
            changes[name] = value
    return changes


def of_user(present: Mapping[str, str]) -> dict[str, str]:
    """The present variables without those that ``coresize run`` or a pool has set.

    >>> of_user({"OMP_NUM_THREADS": "4", "MC_CORES": "2", SET: "OMP_NUM_THREADS=4"})
    {'MC_CORES': '2', 'CORESIZE_SET': 'OMP_NUM_THREADS=4'}
    """
    ours = _ours(present)
    return {name: value for name, value in present.items() if ours.get(name) != value}


def python_path(present: str, folder: str, separator: str) -> str:
    """PYTHONPATH with a folder in front, once.

    >>> python_path("", "/a", ":"), python_path("/b", "/a", ":")
    ('/a', '/a:/b')
    >>> python_path("/b:/a", "/a", ":"), python_path("/b", "/a:c", ":")
    ('/b:/a', '/b')
    """
    # An empty entry would be the working directory; a folder with a separator in its
    # name cannot be an entry.
    if separator in folder or folder in present.split(separator):
        return present
    return separator.join(filter(None, (folder, present)))


def marked(present: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """The present variables with changes, and with a note of the changes in `SET`.

    >>> marked({"A": "1"}, {"MC_CORES": "2"})
    {'A': '1', 'MC_CORES': '2', 'CORESIZE_SET': 'MC_CORES=2'}
    """
    # Not noted: variables of options, which may hold the user's options as well.
    plain = {name: value for name, value in changes.items() if name not in OPTIONS}
    ours = {**_ours(present), **plain}
    note = " ".join(f"{name}={value}" for name, value in ours.items())
    return {**present, **changes, SET: note}


def _ours(present: Mapping[str, str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in present.get(SET, "").split())
    return {name: value for name, _, value in pairs}


def _combined(name: str, value: str, old: str, *, force: bool) -> dict[str, str]:
    """Our option in front of the user's; nothing if the user has set that option."""
    ours = OPTIONS[name]
    words = old.split(" ")
    if name == "MAKEFLAGS" and words[0].isalpha():
        words[0] = f"-{words[0]}"  # only the first word may lack the dash
    if force:
        words = [word for word in words if not ours.match(word)]
    elif any(ours.match(word) for word in words):
        return {}
    return {name: " ".join([value, *words])}
