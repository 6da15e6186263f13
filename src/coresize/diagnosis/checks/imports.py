"""The imports of each worker: the main module, and the modules imported here."""

from __future__ import annotations

import json
import math
import sys
import textwrap
from importlib.machinery import PathFinder
from pathlib import Path

from coresize.diagnosis.checks import threads
from coresize.diagnosis.findings import Finding
from coresize.diagnosis.interpreter import PATIENCE, Late, run_python
from coresize.processes.main_module import known


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from coresize.diagnosis.context import Context
    from coresize.diagnosis.findings import Severity

#: The seconds of a slow import, and of a very slow one.
_LONG, _TOO_LONG = 0.5, 2.0

#: A main module that takes longer than this is imported once. A faster one is imported
#: twice and the shorter time counts: the first import may read files from the disk, and
#: neighbours may have disturbed it.
_CLEAR = 2 * _TOO_LONG

#: The most modules that a finding names, and the least seconds of a named one.
_NAMED, _WORTH = 5, 0.05

#: The most characters of an error that a finding shows.
_LONGEST = 240

_GUARD = 'if __name__ == "__main__":'

_BELOW = f"put the code that starts the work below {_GUARD}"

#: The advice for some kinds of error; for all others it is _BELOW.
_ADVICE = {
    "import": "fix this error first: the import fails in any process",
    "relative": "try it as a module: coresize diagnose --main PACKAGE.MODULE",
    "file": "save it as a file, which spawn and forkserver can import (the pools of "
    "coresize do not need one)",
    "arguments": "if the program needs arguments: coresize diagnose --main FILE -- "
    f"ARGUMENTS; otherwise {_BELOW}",
}


def main_module(context: Context) -> Iterator[Finding]:
    """Whether and how fast a worker imports the main module, as spawn does it."""
    path, module, *words = _arguments(context.main) if context.main else _own_main()
    if not path:
        return
    try:
        answer = _measure(context, path, module, *words)
    except Late:
        seen = f"it was not imported within {PATIENCE:g} s"
        yield _broken(path, seen)
        return
    if "seconds" not in answer:
        failure = answer.get("error") or "the worker ended without a word"
        text = failure.replace("\\n", " ")  # from the repr of another error
        kind = answer.get("kind", "")
        if kind == "usage":
            text = f"{text.rstrip()}: {_last(answer['err'])}"
        seen = textwrap.shorten(text, _LONGEST, placeholder=" ...")
        if not words and kind in ("usage", "index"):
            kind = "arguments"
        yield _broken(path, seen, kind)
        return
    if answer["seconds"] > _LONG:
        yield _slow(path, answer["seconds"], _by_module(answer["err"]))
    if answer["library"] and not threads.is_limited(context):
        # Libraries start a thread for each CPU of the affinity mask, when needed.
        named = f"{answer['library']}, imported by {path}"
        count = context.limits.cpu.affinity or context.real_cores
        yield from threads.compare(context, {named: count})


def _measure(context: Context, *words: str) -> dict[str, Any]:
    """The answer of one import, or of the faster of two."""
    answer = _import(context, *words)
    if not _LONG < answer.get("seconds", 0.0) < _CLEAR:
        return answer
    again = _import(context, *words)
    return min(answer, again, key=lambda result: result.get("seconds", math.inf))


def _import(context: Context, *words: str) -> dict[str, Any]:
    """The answer of `_IMPORT_MAIN`, and its standard error as "err"."""
    output = run_python(context, "-X", "importtime", "-c", _IMPORT_MAIN, *words)
    return {**json.loads(output.out or "{}"), "err": output.err}


def _broken(path: str, seen: str, kind: str = "") -> Finding:
    if path.startswith("<"):
        kind = "file"
    return Finding(
        severity="warning" if kind in ("file", "arguments") else "error",
        code="main-not-importable",
        check="main module",
        title=f"workers cannot import {path}",
        seen=seen,
        where=path,
        why="spawn and forkserver import the main module in each worker, and so run "
        "all code outside of its guard",
        advice=_ADVICE.get(kind, _BELOW),
    )


def _slow(path: str, seconds: float, costs: dict[str, float]) -> Finding:
    costs["its own lines"] = seconds - sum(costs.values())
    severity: Severity = "error" if seconds > _CLEAR else "warning"
    return Finding(
        severity=severity,
        code="slow-main-import",
        check="main module",
        title=f"each worker takes {seconds:.1f} s to import {path}",
        seen=f"{seconds:.2f} s: {_heaviest(costs)}",
        where=f"{path}, imported as spawn does it (-X importtime)",
        why="spawn and forkserver import the main module in each worker, and so run "
        "all code outside of its guard",
        advice=f"move slow code below {_GUARD}, or into the functions that need it",
    )


#: A program that imports the main module as spawn does in a worker, including the
#: refusal to start workers during the import; it refuses fork as well, because such a
#: program would fail on other systems. For a package, ``python -m`` runs its module
#: __main__, which spawn does not import.
_IMPORT_MAIN = """
import json, os, sys, time, traceback
from importlib.util import find_spec
from multiprocessing import process, spawn
path, module, *words = sys.argv[1:]
answer = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
folder = os.getcwd() if module else os.path.dirname(os.path.abspath(path))
sys.path.insert(0, folder)
data = {
    "sys_path": sys.path,
    "sys_argv": [path, *words],
    "start_method": "spawn",
}
process.current_process()._inheriting = True
print("#", file=sys.stderr, flush=True)
start = time.perf_counter()
try:
    spec = find_spec(module) if module not in ("", "__main__") else None
    if spec is not None and spec.submodule_search_locations is not None:
        inner = module + ".__main__"
        module = inner if find_spec(inner) else module
    data["init_main_from_name" if module else "init_main_from_path"] = module or path
    spawn.prepare(data)
    result = {"seconds": time.perf_counter() - start}
    threaded = ("numpy", "torch", "tensorflow", "jax", "numba", "polars")
    result["library"] = next((name for name in threaded if name in sys.modules), "")
except BaseException as error:
    text = "".join(traceback.format_exception_only(error))
    kind = "import" if isinstance(error, (ImportError, SyntaxError)) else ""
    kind = "relative" if "relative import" in text else kind
    if isinstance(error, SystemExit) and error.code == 2:  # as argparse does
        kind = "usage"
    kind = "index" if isinstance(error, IndexError) else kind
    result = {"error": text, "kind": kind}
print(json.dumps(result), file=answer, flush=True)
os._exit(0)
"""


def _by_module(text: str) -> dict[str, float]:
    """Seconds by top-level module that the main module imports, by -X importtime.

    The lines are "import time: self | cumulative | name"; imports of other modules are
    indented.
    """
    costs: dict[str, float] = {}
    for line in text.partition("#\n")[2].splitlines():
        head, _, name = line.rpartition("| ")
        number = head.rpartition("|")[2].strip()
        if line.startswith("import time:") and number.isdigit() and name[:1] != " ":
            top = name.partition(".")[0]
            costs[top] = costs.get(top, 0.0) + int(number) / 1e6
    return costs


def _heaviest(costs: dict[str, float]) -> str:
    """The slowest modules worth naming, with their seconds."""
    ordered = sorted(costs.items(), key=lambda item: item[1], reverse=True)
    heavy = [(name, cost) for name, cost in ordered[:_NAMED] if cost >= _WORTH]
    return ", ".join(f"{name} {cost:.2f} s" for name, cost in heavy)


def imports(context: Context) -> Iterator[Finding]:
    """The slowest modules that this process has imported, timed in a fresh process."""
    if not context.modules:
        return
    output = run_python(context, "-c", _IMPORT_ALL, *context.modules)
    costs: dict[str, float] = json.loads(output.out.rpartition("#")[2] or "{}")
    total = sum(costs.values())
    heavy = _heaviest(costs)
    if not heavy:
        return
    yield Finding(
        severity="warning" if total > _TOO_LONG else "note",
        code="slow-imports",
        check="imports",
        title=f"the imports of this program take {total:.1f} s in each worker",
        seen=heavy,
        where="sys.modules, imported again in a new process",
        why="each spawned worker imports the modules that its tasks need",
        advice="import heavy modules inside the functions that need them, and start "
        "fewer workers that live longer",
    )


_IMPORT_ALL = """
import importlib, json, sys, time
sys.path.insert(0, "")
costs = {}
for name in sys.argv[1:]:
    top = name.partition(".")[0]
    start = time.perf_counter()
    try:
        importlib.import_module(name)
    except BaseException:
        continue
    costs[top] = costs.get(top, 0.0) + time.perf_counter() - start
print("#" + json.dumps(costs))
"""


def loaded() -> tuple[str, ...]:
    """The imported modules that are neither Python's nor ours, in order of import."""
    known = {*sys.stdlib_module_names, "coresize", "__main__", "__mp_main__"}
    return tuple(
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in known and getattr(module, "__file__", None)
    )


def is_module(name: str) -> bool:
    """Whether a text may be the name of a module, as for ``python -m``.

    Only its first part is looked up: looking up the others would import the first.
    """
    first, *rest = name.split(".")
    if rest[-1:] == ["py"] or not all(part.isidentifier() for part in (first, *rest)):
        return False
    return PathFinder.find_spec(first, ["", *sys.path]) is not None


def _arguments(main: tuple[str, ...]) -> list[str]:
    """A program as a list: its path, its module name or "", and its arguments."""
    name, *words = main
    return [name, "" if Path(name).is_file() else name, *words]


def _own_main() -> list[str]:
    """This program in the same form; empty texts for coresize and pytest."""
    main = known()
    file, name = main.file or "", main.name or ""
    ours = name.startswith(("coresize", "pytest"))
    if not file or ours or file.endswith(("/coresize", "/pytest")):
        return ["", ""]
    return [file, name, *sys.argv[1:]]


def _last(text: str) -> str:
    """The last line of a program's own output, among the lines of -X importtime."""
    lines = text.partition("#\n")[2].splitlines()
    own = [line for line in lines if line and not line.startswith("import time:")]
    return own[-1] if own else ""
