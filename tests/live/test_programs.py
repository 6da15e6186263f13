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
ONE = {"CORESIZE_OVERRIDE_CORES": "1"}
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
@pytest.mark.parametrize("first", ["parallel", "parallelly"])
def test_r_whatever_order_it_loads_its_packages_in(first):
    """With all that it looks at itself; so fewer than it finds."""
    load = f"library({first}); library(parallelly); library(parallel); "
    text = load + "cat(availableCores(), getOption('mc.cores'))"
    assert run("Rscript", "-e", text, env=ONE) == "1 1"


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


def test_loky():
    """It takes a bound, so one below what it finds shows that it is obeyed."""
    text = "import loky; print(loky.cpu_count())"
    assert run(sys.executable, "-c", text, env=ONE) == "1"


def test_cpython():
    newer = "getattr(os, 'process_cpu_count', os.cpu_count)()"
    text = f"import os; print(os.cpu_count(), {newer})"
    assert run(sys.executable, "-c", text) == f"{CORES} {CORES}"


def test_coresize():
    text = (
        "import os; del os.environ['CORESIZE_OVERRIDE_CORES']\n"
        "from coresize import available_cores; print(available_cores())"
    )
    assert run(sys.executable, "-c", text, env=ONE) == "1"


def test_openblas():
    text = (
        "import numpy, threadpoolctl\n"
        "numpy.ones((2, 2)) @ numpy.ones((2, 2))\n"
        "print(max(pool['num_threads'] for pool in threadpoolctl.threadpool_info()))"
    )
    # More threads than it sees CPUs it does not take.
    assert run(sys.executable, "-c", text, env=ONE) == "1"


def test_pytest_xdist(tmp_path):
    (tmp_path / "test_one.py").write_text("def test(worker_id): print(worker_id)\n")
    words = (sys.executable, "-m", "pytest", "-n", "auto", "-p", "no:cacheprovider")
    assert f"created: {CORES}/{CORES}" in run(*words, folder=tmp_path)
    fewer = run(*words, folder=tmp_path, options=("--tasks", "2"))
    assert "created: 2/2" in fewer
