"""Real programs obey the variables that ``coresize run`` sets, whatever they see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest


#: More than any machine that runs these tests has, so that nothing but the variable
#: can be the reason.
CORES = 7
JAVA = (
    "public class Cores { public static void main(String[] words) {"
    " System.out.println(Runtime.getRuntime().availableProcessors()); } }"
)
#: All threads of the process, once something has started those of libuv.
NODE = """\
const { readdirSync, stat } = require("fs");
stat("/", () => console.log(readdirSync("/proc/self/task").length));
"""
R = "cat(parallelly::availableCores(methods = c('system', 'mc.cores', 'fallback')))"
R_BY_HAND = "library(parallel); cat(getOption('mc.cores', 2L))"


def run(*words, env=None, folder=None, options=()):
    command = [sys.executable, "-m", "coresize", "run", *options, "--", *words]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "CORESIZE_OVERRIDE_CORES": str(CORES), **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def needs(program):
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed"
    )


@needs("java")
def test_java(tmp_path):
    (tmp_path / "Cores.java").write_text(JAVA)
    assert run("java", "Cores.java", folder=tmp_path) == str(CORES)


@needs("node")
def test_node():
    alone = int(run("node", "-e", NODE, env={"UV_THREADPOOL_SIZE": "1"}))
    assert int(run("node", "-e", NODE)) == alone + CORES - 1


@needs("Rscript")
def test_r():
    assert run("Rscript", "-e", R) == str(CORES)
    assert run("Rscript", "-e", R_BY_HAND) == str(CORES)


@needs("Rscript")
def test_r_whatever_order_it_loads_its_packages_in():
    late = "library(parallelly); Sys.setenv(MC_CORES = '2'); "
    assert run("Rscript", "-e", late + R) == str(CORES)


@needs("make")
def test_make(tmp_path):
    """As many recipes at a time as there are cores, and no more."""
    names = " ".join(f"t{number}" for number in range(CORES + 3))
    recipe = "@echo start; sleep 0.3; echo end"
    makefile = f"all: {names}\n{names}:\n\t{recipe}\n"
    (tmp_path / "Makefile").write_text(makefile)
    running = most = 0
    for line in run("make", "-s", folder=tmp_path).splitlines():
        running += 1 if line == "start" else -1
        most = max(most, running)
    assert most == CORES


@pytest.mark.parametrize(
    "program",
    [
        "import loky; print(loky.cpu_count())",
        "import os; print(os.cpu_count() if sys.version_info >= (3, 13) else cores)",
        "from coresize import available_cores; print(available_cores())",
    ],
    ids=["loky", "cpython", "coresize"],
)
def test_python(program):
    text = f"import sys; cores = {CORES}; {program}"
    seen = int(run(sys.executable, "-c", text, env={"LOKY_MAX_CPU_COUNT": ""}))
    if "loky" in program:  # it is a cap there: never more than there are
        assert seen == min(CORES, len(os.sched_getaffinity(0)))
    else:
        assert seen == CORES


def test_openblas():
    text = (
        "import numpy, threadpoolctl\n"
        "numpy.ones((2, 2)) @ numpy.ones((2, 2))\n"
        "print(max(pool['num_threads'] for pool in threadpoolctl.threadpool_info()))"
    )
    one = {"CORESIZE_OVERRIDE_CORES": "1"}  # more than it sees it does not take
    assert run(sys.executable, "-c", text, env=one) == "1"


def test_pytest_xdist(tmp_path):
    (tmp_path / "test_one.py").write_text("def test(worker_id): print(worker_id)\n")
    words = (sys.executable, "-m", "pytest", "-n", "auto", "-p", "no:cacheprovider")
    assert f"created: {CORES}/{CORES}" in run(*words, folder=tmp_path)
    fewer = run(*words, folder=tmp_path, options=("--tasks", "2"))
    assert "created: 2/2" in fewer
