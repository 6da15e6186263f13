"""Programs of every kind: their own functions run in workers, or an error says why not.

What is submitted at the end of a program, and what a worker inherits, is in
`test_worker_start`.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import zipapp
from pathlib import Path

import pytest

from coresize.processes import main_module


#: Uses its own functions and classes, with ALL in all ways; NAMED lacks cloudpickle.
PROGRAM = """
import os, sys
if os.environ.get("NAMED"):
    sys.modules["cloudpickle"] = None
import coresize
from coresize import ProcessPoolExecutor

class Own:
    def __init__(self, number):
        self.number = number

class OwnError(Exception):
    pass

def double(number):
    return Own(2 * number.number)

def fail(number):
    raise OwnError(number.number)

def use():
    with ProcessPoolExecutor(1) as pool:
        values = [one.number for one in pool.map(double, map(Own, [1, 2, 3]))]
        assert type(pool.submit(double, Own(1)).result()) is Own
        assert type(pool.submit(fail, Own(7)).exception()) is OwnError
    if not os.environ.get("ALL"):
        return values
    (last,) = coresize.run_batch(double, [Own(4)], max_workers=1).results()
    assert type(last) is Own
    return values, last.number, coresize.profile_task(double, Own(1)).peak_memory > 0

"""
ANSWER = "[2, 4, 6]"
MAIN = 'if __name__ == "__main__": print(use())\n'

#: Programs that change their own main module.
CHANGED = {
    "removed": MAIN.replace("print", "os.unlink(__file__); print"),
    "moved": MAIN.replace("print", "os.chdir('/'); print"),
    "no spec": f"del __spec__\n{MAIN}",
    "no file": MAIN.replace("print", "del __file__; print"),
}

#: A main module that is made by hand, of a file that does not exist.
MADE = f"""
import sys, types
made = types.ModuleType("__main__")
made.__file__ = "/nowhere/program.so"
sys.modules["__main__"] = made
exec(compile({PROGRAM + MAIN!r}, "program.pyx", "exec"), made.__dict__)
"""

#: How a program is started: words, and its standard input.
STARTS = {
    "file": (["program.py"], ""),
    "odd name": (["my prögram"], ""),
    "module": (["-m", "package.module"], ""),
    "package": (["-m", "package"], ""),
    "folder": (["package"], ""),
    "zip": (["program.pyz"], ""),
    "command": (["-c", PROGRAM + MAIN], ""),
    "input": (["-"], PROGRAM + MAIN),
    "pdb": (["-m", "pdb", "-c", "continue", "program.py"], ""),
    "pdb -m": (["-m", "pdb", "-c", "continue", "-m", "package.module"], ""),
    "profiler": (["-m", "cProfile", "-o", os.devnull, "program.py"], ""),
    "prompt": (["-i", "empty.py"], f"exec({PROGRAM!r})\nprint(use())\n"),
    "console": (["-m", "code"], f"exec({PROGRAM!r})\nprint(use())\n"),
    "exec": (["executes.py"], ""),
    "made": (["-c", MADE], ""),
    **{name: ([f"{name}.py"], "") for name in CHANGED},
}

#: Programs whose functions have no name in a worker.
BY_VALUE = ["package", "prompt", "removed"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    for path in (
        "program.py",
        "my prögram",
        "package/module.py",
        "package/__main__.py",
    ):
        (folder / path).write_text(PROGRAM + MAIN)
    (folder / "executes.py").write_text(f"exec({PROGRAM + MAIN!r})")
    (folder / "empty.py").write_text("")
    zipapp.create_archive(package, folder / "program.pyz")
    return folder


def _run(start, folder, **variables):
    words, program = STARTS[start]
    if start in CHANGED:
        (folder / f"{start}.py").write_text(PROGRAM + CHANGED[start])
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        input=program,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **variables},
        check=False,
    )


@pytest.mark.parametrize("start", STARTS)
def test_functions_of_every_program_run_in_workers(start, folder):
    done = _run(start, folder)
    assert ANSWER in done.stdout, done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize("start", ["file", "input", "pdb"])
def test_functions_of_a_program_run_in_batches_and_are_measured(start, folder):
    done = _run(start, folder, ALL="1")
    assert "([2, 4, 6], 8, True)" in done.stdout, done.stderr


@pytest.mark.parametrize("start", BY_VALUE)
def test_functions_without_a_name_need_cloudpickle(start, folder):
    done = _run(start, folder, NAMED="1")
    assert ANSWER not in done.stdout
    told = "define it at the top level of a module, or install the extra coresize[clou"
    assert told in done.stderr


@pytest.mark.parametrize("start", ["module", "no spec"])
def test_functions_with_a_name_need_nothing(start, folder):
    assert ANSWER in _run(start, folder, NAMED="1").stdout


def test_a_program_that_was_changed_is_told(tmp_path):
    program = PROGRAM + MAIN.replace("print", "open(__file__, 'w').write('('); print")
    (tmp_path / "program.py").write_text(program)
    words = [sys.executable, "program.py"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "program.py was changed while the program runs" in done.stderr
    assert "if __name__" not in done.stderr.splitlines()[-1]


def _typed(filename, module="__main__"):
    names = {"__name__": module}
    exec(compile("def function(): pass", filename, "exec"), names)
    return names["function"]


class _Task:
    def __init__(self, func):
        self.func = func


@pytest.mark.parametrize(
    ("filename", "module", "expected"),
    [
        ("/a/program.py", "__main__", True),
        ("<stdin>", "__main__", False),
        ("<console>", "__main__", False),
        ("<string>", "__main__", False),
        ("<string>", "module", True),
        ("<made-by-a-decorator>", "__main__", True),
    ],
)
def test_which_functions_a_worker_finds_in_the_main_module(filename, module, expected):
    function = _typed(filename, module)
    for one in (function, functools.partial(function), _Task(_Task(function))):
        assert main_module.defines(one) == expected


@pytest.mark.parametrize("value", [abs, Path, functools.partial(abs), None])
def test_a_worker_finds_what_is_no_function_of_the_program(value):
    assert main_module.defines(value)


# --- Programs without a guard -------------------------------------------------

WORK = """
import multiprocessing, os, sys
import coresize
from coresize import ProcessPoolExecutor

def double(number):
    return 2 * number
"""

UNGUARDED = {
    "map": "with ProcessPoolExecutor(2) as pool:\n    print(*pool.map(double, [1, 2]))",
    "spawn": """
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            print(*pool.map(double, [1, 2]))""",
    "gate": """
        pool = coresize.limit_memory(ProcessPoolExecutor(2), memory="1MB")
        print(pool.submit(double, 1).result())""",
    "batch": "print(coresize.run_batch(double, [1, 2]).results())",
    "profile": "print(coresize.profile_task(double, 1))",
    "sweep": "print(coresize.sweep(double, [1], workers=[1, 2], seconds=0.01))",
}

#: joblib's workers import no main module, and so need no guard.
JOBLIB = """
import joblib
from coresize.adapters.joblib import register
register()
with joblib.parallel_config("coresize", n_jobs=2):
    print(joblib.Parallel()(joblib.delayed(double)(n) for n in (1, 2)))
"""

GUARD = 'put what starts the work below if __name__ == "__main__":'


def _run_unguarded(text, folder):
    path = folder / "program.py"
    path.write_text(WORK + textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", UNGUARDED)
def test_a_missing_guard_is_told_once_and_briefly(name, tmp_path):
    done = _run_unguarded(UNGUARDED[name], tmp_path)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stderr.count(GUARD)) == (1, 1)
    assert len(lines) <= 5, done.stderr
    assert GUARD in lines[-1]
    assert str(tmp_path / "program.py") in lines[-1]


def test_joblib_needs_no_guard(tmp_path):
    done = _run_unguarded(JOBLIB, tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[2, 4]\n")


def test_a_missing_guard_is_told_if_no_result_is_read(tmp_path):
    text = "pool = ProcessPoolExecutor(2)\npool.submit(double, 1)"
    done = _run_unguarded(text, tmp_path)
    assert done.stderr.count(GUARD) == 1
    assert "Traceback" not in done.stderr


def test_other_errors_are_printed_as_usual(tmp_path):
    text = (
        "try:\n    ProcessPoolExecutor(1).submit(double, 1).result()\nfinally:\n    1/0"
    )
    done = _run_unguarded(text, tmp_path)
    assert "ZeroDivisionError" in done.stderr.splitlines()[-1]
    assert "Traceback (most recent call last)" in done.stderr
