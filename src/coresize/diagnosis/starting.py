"""What it costs to start a worker here, and what makes it so."""

from __future__ import annotations

import subprocess
import sys

from coresize.diagnosis.findings import Finding


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.patient import Patient

#: Seconds that an import may take, and that it should not.
_LONG, _TOO_LONG = 0.5, 2.0

#: Modules that are named, and seconds of one that is worth it.
_NAMED, _WORTH = 5, 0.05

_PATIENCE = 60.0


def methods(patient: Patient) -> Iterator[Finding]:
    """Seconds to start and end a worker, by start method."""
    del patient
    told = run_python("-c", _FRESH)
    costs = dict(line.split() for line in told.splitlines() if line.count(" ") == 1)
    if not costs:
        return
    seen = ", ".join(
        f"{name} {float(cost) * 1000:.0f} ms" for name, cost in costs.items()
    )
    slow = float(costs.get("spawn", 0.0)) > _LONG
    yield Finding(
        severity="warning" if slow else "note",
        check="start methods",
        title="starting a Python process takes long here"
        if slow
        else "starting a worker",
        seen=f"{seen} (an empty program)",
        where="measured",
        why="each worker pays that, and its imports on top; on network disks it is "
        "seconds",
        advice="start fewer workers and keep them (no max_tasks_per_child), and put "
        "the virtual environment on a local disk"
        if slow
        else "nothing: coresize uses forkserver on Linux, and starts workers on demand",
    )


#: One process a method, timed by who starts it; the program is a text, so that spawn
#: has no main module to import.
_FRESH = """
import multiprocessing, time
from time import sleep
for method in multiprocessing.get_all_start_methods():
    context = multiprocessing.get_context(method)
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        process = context.Process(target=sleep, args=(0,))
        process.start(); process.join()
        best = min(best, time.perf_counter() - start)
    print(method, best)
"""


def main_module(patient: Patient) -> Iterator[Finding]:
    """Seconds that a worker takes to import the main module, as spawn does it."""
    path = patient.main or _own_main()
    if path is None:
        return
    told = run_python("-c", _IMPORT_MAIN, path)
    seconds, _, failure = told.partition(" ")
    if failure.strip():
        yield Finding(
            severity="error",
            check="main module",
            title=f"{path} cannot be imported by workers",
            seen=failure.strip().splitlines()[-1],
            where=path,
            why="spawn and forkserver import the main module in each worker",
            advice='put what starts work below if __name__ == "__main__":',
        )
    elif seconds and float(seconds) > _LONG:
        yield Finding(
            severity="error" if float(seconds) > _TOO_LONG * 2 else "warning",
            check="main module",
            title=f"each worker imports {path} for {float(seconds):.1f} s",
            seen=f"{float(seconds):.2f} s",
            where=path,
            why="spawn and forkserver import the main module in each worker, with all "
            "that stands outside of its guard",
            advice='move what is slow below if __name__ == "__main__":, or into the '
            "functions that need it",
        )


_IMPORT_MAIN = """
import runpy, sys, time, traceback, io, contextlib
path = sys.argv[1]
sys.argv = [path]
sys.path.insert(0, path.rpartition("/")[0] or ".")
start = time.perf_counter()
try:
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(path, run_name="__mp_main__")
except BaseException as error:
    print(0, "".join(traceback.format_exception_only(error)))
else:
    print(time.perf_counter() - start)
"""


def imports(patient: Patient) -> Iterator[Finding]:
    """The heaviest modules that are imported already, measured in a fresh process."""
    del patient
    names = sorted(_installed())
    if not names:
        return
    told = run_python("-c", _IMPORT_ALL, *names)
    costs = sorted(
        (
            (float(cost), name)
            for name, _, cost in (line.partition(" ") for line in told.splitlines())
        ),
        reverse=True,
    )
    heavy = [(cost, name) for cost, name in costs[:_NAMED] if cost >= _WORTH]
    total = sum(cost for cost, _ in costs)
    if not heavy:
        return
    seen = ", ".join(f"{name} {cost:.2f} s" for cost, name in heavy)
    yield Finding(
        severity="warning" if total > _TOO_LONG else "note",
        check="imports",
        title=f"what is imported here takes {total:.1f} s in each worker",
        seen=seen,
        where="sys.modules, imported anew in a fresh process",
        why="each worker that is spawned imports what its tasks need",
        advice="import heavy modules inside the functions that need them, and start "
        "fewer workers that live longer",
    )


_IMPORT_ALL = """
import importlib, sys, time
for name in sys.argv[1:]:
    start = time.perf_counter()
    try:
        importlib.import_module(name)
    except BaseException:
        continue
    print(name, time.perf_counter() - start)
"""


def _installed() -> set[str]:
    """Top-level packages of this process that are neither Python's nor ours."""
    known = {*sys.stdlib_module_names, "coresize", "__main__"}
    found = set()
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top not in known and getattr(module, "__file__", None):
            found.add(top)
    return {name for name in found if not name.startswith("_")}


def _own_main() -> str | None:
    """The file of the program, but of the command ``coresize``."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    if file is None or (
        spec is not None and spec.name.startswith(("coresize", "pytest"))
    ):
        return None
    return None if file.endswith(("/coresize", "/pytest")) else str(file)


def run_python(*words: str) -> str:
    """What a fresh interpreter prints; nothing where it takes too long or fails."""
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
