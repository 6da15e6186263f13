"""What programs count in a real container: alone, by `coresize run`, and with --pin.

The answers are the table in docs/how-to/other-programs.md. With CORESIZE_WRITE_TABLE=1
the test writes the rows of the programs that are installed here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live import containers
from live.containers import Container


pytestmark = pytest.mark.skipif(
    containers.missing() is not None or len(os.sched_getaffinity(0)) < 2,
    reason=str(containers.missing() or "there is one CPU"),
)

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "other-programs.md"
BEGIN, END = "<!-- counts -->\n", "<!-- end of counts -->\n"
QUOTAS = (1.5, 1.0)
#: Seconds until a container is given up: it runs 60 programs on one busy CPU.
_PATIENCE = 600
CPUS = sorted(os.sched_getaffinity(0))[:2]

C = """\
#include <omp.h>
#include <stdio.h>
int main(void) { printf("%d\\n", omp_get_max_threads()); return 0; }
"""
CPP = """\
#include <cstdio>
#include <thread>
int main() { std::printf("%u\\n", std::thread::hardware_concurrency()); }
"""
RUST = 'fn main() { println!("{}", std::thread::available_parallelism().unwrap()); }'
CMAKE = """\
include(ProcessorCount)
ProcessorCount(count)
message("${count}")
"""
BLAS = (
    "import numpy, threadpoolctl\n"
    "print(max(pool['num_threads'] for pool in threadpoolctl.threadpool_info()))"
)
#: A Go program whose runtime tells its number once it has time to. The program waits
#: for a reader of its log, who comes when the number is there.
GO = """\
log=/dev/shm/log && mkfifo $log
GODEBUG=schedtrace=1 runc --log $log features 2>&1 | { head -1; cat $log; }
rm $log
"""
GO_SAYS = r"gomaxprocs=([0-9]+)"
#: A number on a line of its own.
NUMBER = r"(?m)^(?:\[1\] )?([0-9]+)$"


def _of_python(module, text):
    """A package of this Python, if it is installed."""
    if importlib.util.find_spec(module) is None:
        return None
    return [sys.executable, "-c", text], NUMBER


def _of(words, pattern=NUMBER):
    """A program, if it is installed."""
    return (words, pattern) if shutil.which(words[0]) else None


def _compiled(folder, name, text, *words):
    """A program that is compiled, if its compiler is installed."""
    if not shutil.which(words[0]):
        return None
    (folder / name).write_text(text)
    program = folder / f"{name}.out"
    command = [*words, folder / name, "-o", program]
    done = subprocess.run(command, capture_output=True, check=False)
    return None if done.returncode else ([str(program)], NUMBER)


def _python(minor, text):
    """One Python, by its own path: a name of pyenv's may lead nowhere."""
    words = [f"python3.{minor}", "-c", "import sys; print(sys.executable)"]
    with contextlib.suppress(OSError):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return [done.stdout.strip(), "-c", text], NUMBER
    return None


def programs(folder):
    """Each program by name: its command, and where its output has the number."""
    (folder / "cores.cmake").write_text(CMAKE)
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    lto = ["g++", "-x", "c", "-flto=auto", "-O1", "-v", str(folder / "empty.c")]
    count, threads = "import os; print(os.cpu_count())", "print(get())"
    return {
        "Python 3.11, `os.cpu_count()`": _python(11, count),
        "Python 3.12, `multiprocessing.cpu_count()`": _python(
            12, "import multiprocessing; print(multiprocessing.cpu_count())"
        ),
        "Python 3.13, `os.process_cpu_count()`": _python(
            13, "import os; print(os.process_cpu_count())"
        ),
        "NumPy (OpenBLAS), threads": _of_python("threadpoolctl", BLAS),
        "loky and joblib": _of_python("loky", "import loky; print(loky.cpu_count())"),
        "numba": _of_python(
            "numba", f"from numba import get_num_threads as get; {threads}"
        ),
        "polars": _of_python(
            "polars", f"from polars import thread_pool_size as get; {threads}"
        ),
        "DuckDB": _of_python(
            "duckdb",
            "from duckdb import sql\n"
            "print(sql(\"select current_setting('threads')\").fetchall()[0][0])",
        ),
        "OpenMP (GCC)": _compiled(folder, "omp.c", C, "gcc", "-fopenmp"),
        "C++, `hardware_concurrency()`": _compiled(folder, "hw.cc", CPP, "g++"),
        "`g++ -flto=auto`": _of([*lto, "-o", "/dev/shm/empty"], r"-fwpa=([0-9]+)"),
        "Rust, `available_parallelism()`": _compiled(folder, "n.rs", RUST, "rustc"),
        "Go (runc), `GOMAXPROCS`": shutil.which("runc") and (["sh", "-c", GO], GO_SAYS),
        "Java": _of(
            ["java", "-Xlog:gc+init", "-XX:-UsePerfData", "-version"],
            r"CPUs: [0-9]+ total, ([0-9]+) available",
        ),
        "node, `os.availableParallelism()`": _of(
            ["node", "-e", "console.log(os.availableParallelism())"]
        ),
        "R, `parallel::detectCores()`": _of(
            ["Rscript", "-e", "parallel::detectCores()"]
        ),
        "R, `parallelly::availableCores()`": _of(
            ["Rscript", "-e", "cat(parallelly::availableCores())"]
        ),
        "nproc": _of(["nproc"]),
        "ninja, default jobs": _of(
            ["ninja", "--help"], r"default=([0-9]+) on this system"
        ),
        "CMake, `ProcessorCount`": _of(["cmake", "-P", str(folder / "cores.cmake")]),
        "`xz -T0`": _of(["xz", "--info-memory"], r"processor threads: *([0-9]+)"),
    }


#: In the container: each program alone, then all by `coresize run`, then with --pin.
DRIVER = """\
import json, os, re, subprocess, sys
if sys.argv[2:]:
    counts = {}
    for name, (words, pattern) in json.load(open(sys.argv[1])).items():
        done = subprocess.run(words, capture_output=True, text=True)
        found = re.search(pattern, done.stdout + done.stderr)
        counts[name] = found[1] if found else "?"
    print(json.dumps(counts))
else:
    run = [sys.executable, "-m", "coresize", "run", "-q"]
    for prefix in ([], [*run, "--"], [*run, "--pin", "--"]):
        words = [*prefix, sys.executable, __file__, sys.argv[1], "count"]
        subprocess.run(words, check=True)
"""


def test_the_table_of_counts(tmp_path):
    every = programs(tmp_path)
    known = {name: how for name, how in every.items() if how}
    (tmp_path / "programs.json").write_text(json.dumps(known))
    (tmp_path / "driver.py").write_text(DRIVER)
    rows: dict[str, list[str]] = {name: [] for name in known}
    words = [str(tmp_path / "driver.py"), str(tmp_path / "programs.json")]
    env = {"TMPDIR": "/dev/shm", "HOME": "/dev/shm", "PATH": os.environ["PATH"]}
    for quota in QUOTAS:
        folder = tmp_path / str(quota)
        folder.mkdir()
        cpuset = ",".join(map(str, CPUS))
        container = Container(quota=quota, cpuset=cpuset, env=env)
        with containers.started(container, words, folder) as process:
            out, err = process.communicate(timeout=_PATIENCE)
        assert process.returncode == 0, err
        for line in out.splitlines():
            for name, count in json.loads(line).items():
                rows[name].append(count)
    kept = _read()
    if os.environ.get("CORESIZE_WRITE_TABLE"):
        _write({name: rows.get(name) or kept[name] for name in every})
        return
    # Some count the machine's CPUs, which may be more than two.
    columns = slice(None) if len(os.sched_getaffinity(0)) == 2 else slice(1, 3)
    assert {name: row[columns] for name, row in rows.items()} == {
        name: kept[name][columns] for name in rows
    }


def _read():
    """The rows of the table on the page, by program."""
    _, _, rest = PAGE.read_text().partition(BEGIN)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in rest.partition(END)[0].splitlines()
        if re.match(r"\| .*[0-9?] \|$", line) and "quota" not in line
    ]
    return {name: counts for name, *counts in rows}


def _write(rows):
    heads = ["program"]
    for quota in QUOTAS:
        heads += [f"quota {quota:g}: alone", "`run`", "`run --pin`"]
    lines = [heads, ["---"] * len(heads), *([name, *row] for name, row in rows.items())]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
