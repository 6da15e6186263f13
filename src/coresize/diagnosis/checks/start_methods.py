"""The cost of starting a worker here, by start method."""

from __future__ import annotations

from coresize.diagnosis.findings import Finding
from coresize.diagnosis.interpreter import run_python


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.context import Context

#: A start that takes more seconds than this is slow.
_LONG = 0.5


def methods(context: Context) -> Iterator[Finding]:
    """Seconds to start and end a worker, by start method.

    Raises:
        Skipped: there is too little memory to try.
    """
    output = run_python(context, "-c", _FRESH).out
    costs, refused = {}, {}
    for line in output.splitlines():
        name, _, text = line.partition(" ")
        try:
            costs[name] = float(text)
        except ValueError:
            refused[name] = text
    for name, text in refused.items():
        yield _refused(name, text)
    if not costs:
        return
    seen = ", ".join(f"{name} {cost * 1000:.0f} ms" for name, cost in costs.items())
    slow = costs.get("spawn", 0.0) > _LONG
    yield Finding(
        severity="warning" if slow else "note",
        code="slow-process-start" if slow else "process-start",
        check="start methods",
        title="starting a Python process takes long here"
        if slow
        else "starting a worker",
        seen=f"{seen} (an empty program)",
        where="measured",
        why="each worker needs this time, and the time of its imports; on network "
        "disks, this takes seconds",
        advice="start fewer workers and keep them (no max_tasks_per_child), and put "
        "the virtual environment on a local disk"
        if slow
        else "keep workers for many tasks: coresize starts a worker when it is needed, "
        "by forkserver on Linux",
    )


def _refused(name: str, text: str) -> Finding:
    return Finding(
        severity="warning",
        code="start-method-refused",
        check="start methods",
        title=f"processes cannot be started by {name}",
        seen=text,
        where="measured",
        why="forkserver needs a socket in the temporary folder: one that is writable, "
        "and whose path is short"
        if name == "forkserver"
        else "the system or a sandbox refuses it",
        advice="set TMPDIR to a short path of a writable folder; pools of others: "
        'multiprocessing.get_context("spawn")'
        if name == "forkserver"
        else "look at the limits of processes (ulimit -u) and at the sandbox",
    )


#: A program that times one process per start method; it is a text, so that spawn has no
#: main module to import.
_FRESH = """
import multiprocessing, time
from time import sleep
for method in multiprocessing.get_all_start_methods():
    context = multiprocessing.get_context(method)
    answer = 1e9
    try:
        for _ in range(3):
            start = time.perf_counter()
            process = context.Process(target=sleep, args=(0,))
            process.start(); process.join()
            if process.exitcode:
                raise RuntimeError(f"exit code {process.exitcode}")
            answer = min(answer, time.perf_counter() - start)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print(method, answer, flush=True)
"""
