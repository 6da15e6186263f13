"""Diagnosis: each finding where it is due, on machines written down and on this one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import commands
import pytest

from coresize import Diagnosis, diagnose, processes, storage
from coresize.cli import main
from coresize.detection import counters
from coresize.diagnosis import watch
from coresize.diagnosis.checks import (
    folders,
    gpus,
    imports,
    scaling,
    threads,
    throttling,
)
from coresize.diagnosis.context import collect
from coresize.diagnosis.findings import Finding, Skipped, order
from coresize.planning import exports
from coresize.testing import container, use_host


GIB = 1024**3
CGROUP = "/sys/fs/cgroup"
linux = pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")

#: Whoever runs the tests may ignore signals, and a shell gives that on.
COMMAND = ["env", "--default-signal", sys.executable, "-m", "coresize", "diagnose"]

#: These look at this machine's own folders, whatever host is asked.
FOLDERS = ("/dev/shm", "temporary folder")


def examine(host):
    """Everything but what is measured, of a machine that is written down."""
    with use_host(host):
        return diagnose(measure=False)


def found(diagnosis, check):
    return [one for one in diagnosis.findings if one.check == check]


class Diagnosed:
    """A diagnosis read from its JSON."""

    def __init__(self, answer):
        self.findings = [SimpleNamespace(**one) for one in answer["findings"]]


def recorded(files=None, **details):
    host = container(**details)
    host.files.update(
        {f"{CGROUP}/{name}": text for name, text in (files or {}).items()}
    )
    return host


# --- Machines that are written down -------------------------------------------


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"cpus": 256},
        {"cpus": 16, "quota": 16.0, "memory": "16GiB"},
        {"cpus": 4, "quota": 3.5},
    ],
)
def test_a_clean_machine_has_nothing_that_is_due(details):
    diagnosis = examine(recorded(**details))
    serious = [one for one in diagnosis.findings if one.check not in FOLDERS]
    assert serious == []
    assert diagnosis.skipped == () or diagnosis.skipped[0][0] == "GPUs"


#: Of hosts: (files below the cgroup, details, check, severity, what is said of it)
HOSTS = {
    "256 counted, 8 may be used": (
        {},
        {"cpus": 256, "quota": 8.0},
        *("counted CPUs", "error"),
        ("32 times", "os.cpu_count() 256, nproc 256; may be used: 8", "cpu.max"),
    ),
    "cpuset": (
        {},
        {"cpus": 64, "affinity": range(32)},
        *("counted CPUs", "warning"),
        ("2 times", "os.cpu_count() 64, nproc 32; may be used: 32", "sched_getaff"),
    ),
    "throttled since it was made": (
        {"cpu.stat": "nr_periods 1000\nnr_throttled 300\nthrottled_usec 90000000\n"},
        {"quota": 8.0},
        *("throttling", "warning"),
        ("in 30% of its periods", "300 of 1000", "90.0 s lost", "cpu.stat"),
    ),
    "throttled now and then": (
        {"cpu.stat": "nr_periods 1000\nnr_throttled 20\nthrottled_usec 90000\n"},
        {"quota": 8.0},
        *("throttling", "note"),
        ("in 2% of its periods",),
    ),
    "nearly full": (
        {},
        {"memory": "16GiB", "used": "15.5GiB"},
        *("memory limits", "warning"),
        ("512.0 MiB of memory is left", "working set 15.5 GiB", "memory.max"),
    ),
    "nearly at memory.high": (
        {"memory.high": f"{16 * GIB}\n"},
        {"memory": "32GiB", "used": "15.9GiB"},
        *("memory limits", "warning"),
        ("left below memory.high", "memory.high 16.0 GiB", "memory.high"),
    ),
    "one kill takes all": (
        {"memory.oom.group": "1\n"},
        {},
        *("memory.oom.group", "warning"),
        ("takes the whole container", "singleProcessOOMKill"),
    ),
    "killed": (
        {"memory.events": "low 0\noom 5\noom_kill 3\n"},
        {},
        *("kills", "warning"),
        ("killed 3 processes", "memory.events"),
    ),
    "killed once": (
        {"memory.events": "oom_kill 1\n"},
        {},
        *("kills", "warning"),
        ("killed 1 process here",),
    ),
    "swapped": (
        {"memory.swap.current": f"{4 * GIB}\n"},
        {"memory": "16GiB"},
        *("swap", "warning"),
        ("4.0 GiB are swapped out", "memory.swap.current"),
    ),
    "pressure": (
        {"memory.pressure": "some avg10=30.00 avg60=20.00 avg300=5.00 total=9\n"},
        {},
        *("pressure", "warning"),
        ("waited for memory 20% of the last minute", "avg60=20.00", "memory.pressure"),
    ),
    "threads": (
        {},
        {
            "cpus": 4,
            "env": {"OPENBLAS_NUM_THREADS": "8", "OMP_NUM_THREADS": "2"},
        },
        *("threads", "warning"),
        ("4 workers x 8 threads on 4 cores", "32 threads in all, 8 for each core"),
    ),
}


@pytest.mark.parametrize("name", HOSTS)
def test_what_is_due(name):
    files, details, check, severity, texts = HOSTS[name]
    diagnosis = examine(recorded(files, **details))
    (one,) = found(diagnosis, check)
    assert one.severity == severity
    shown = f"{one.title} {one.seen} {one.where} {one.why} {one.advice}"
    assert [text for text in texts if text not in shown] == [], shown
    assert all(one.as_dict().values())
    assert ", " not in one.where
    others = {two.check for two in diagnosis.findings} - {*FOLDERS, check}
    assert others == set()


def test_a_cgroup_that_is_mounted_twice_is_told_once():
    stat = "nr_periods 1000\nnr_throttled 300\nthrottled_usec 90000000\n"
    host = recorded({"cpu.stat": stat}, quota=8.0)
    mounts = host.files["/proc/self/mountinfo"]
    host.files["/proc/self/mountinfo"] += mounts.replace(CGROUP, "/mnt/cgroup")
    host.files["/mnt/cgroup/cpu.stat"] = stat
    assert len(counters.throttling(host)) == 2
    assert len(found(examine(host), "throttling")) == 1


OTHERS = "variables of other programs"

#: (variables, cores that are there, check, severity or None, what is said)
VARIABLES = [
    ({}, 8, "overrides", None, ""),
    ({"CORESIZE_OVERRIDE_CORES": "8"}, 8, "overrides", "note", "is active"),
    ({"CORESIZE_OVERRIDE_CORES": "2"}, 8, "overrides", "warning", "6 of 8 cores idle"),
    ({"CORESIZE_OVERRIDE_CORES": "64"}, 8, "overrides", "warning", "than there are"),
    ({"PYTHON_CPU_COUNT": "2"}, 8, "overrides", "warning", "PYTHON_CPU_COUNT=2"),
    ({"PARALLELLY_OVERRIDE_CORES": "8"}, 8, "overrides", "note", "is active"),
    (
        {"PARALLELLY_OVERRIDE_CORES": "8"},
        8,
        "variables without effect",
        "note",
        "has no effect in R",
    ),
    (
        {"CORESIZE_OVERIDE_CORES": "2"},
        8,
        "variables without effect",
        "warning",
        "is no variable of coresize",
    ),
    ({"CORESIZE_MAX_CORES": "2"}, 8, "caps", "warning", "6 of 8 cores idle"),
    ({"LOKY_MAX_CPU_COUNT": "7"}, 8, "caps", None, ""),
    ({"CORESIZE_WORKERS": "4"}, 8, "caps", "warning", "CORESIZE_WORKERS=4 leaves 4"),
    ({"CORESIZE_WORKERS": "64"}, 8, "caps", "note", "=64 asks for more workers than"),
    ({"CORESIZE_PARALLEL": "0"}, 8, "caps", "warning", "runs serially"),
    ({"OMP_NUM_THREADS": "abc"}, 8, "threads", "warning", "=abc is not a number"),
    ({"MKL_NUM_THREADS": "-4"}, 8, "threads", "warning", "=-4 is not a number"),
    ({"MKL_NUM_THREADS": "4,2"}, 8, "threads", "warning", "=4,2 is not a number"),
    ({"OMP_NUM_THREADS": "0"}, 8, "threads", "warning", "=0 is not a number"),
    ({"RAYON_NUM_THREADS": "0"}, 8, "threads", None, ""),
    ({"OMP_NUM_THREADS": "4,2"}, 8, "threads", "warning", "8 workers x 4 threads on 8"),
    ({"OMP_NUM_THREADS": "1,2"}, 8, "threads", None, ""),
    ({"PYTHON_CPU_COUNT": "x"}, 8, "overrides", "warning", "has no effect"),
    ({"CUDA_VISIBLE_DEVICES": "-1"}, 8, "GPUs", None, ""),
    ({"MC_CORES": "1"}, 8, OTHERS, "warning", "R's package parallel use 1 of 8"),
    ({"MC_CORES": "32"}, 8, OTHERS, "warning", "start 32 workers on 8 cores"),
    ({"MC_CORES": "6"}, 8, OTHERS, None, ""),
    ({"MC_CORES": "many"}, 8, OTHERS, None, ""),
    ({"MC_CORES": "1", "CORESIZE_SET": "MC_CORES=1"}, 8, OTHERS, None, ""),
    ({"GOMAXPROCS": "1"}, 8, OTHERS, "warning", "lets Go use 1 of 8 cores"),
    ({"GOMAXPROCS": "1"}, 1, OTHERS, None, ""),
    ({"OMP_NUM_THREADS": "1"}, 16, OTHERS, "note", "OpenMP and BLAS use 1 of 16"),
    ({"OMP_NUM_THREADS": "2"}, 16, OTHERS, None, ""),  # the check of threads
    ({"OMP_NUM_THREADS": "64"}, 4, OTHERS, None, ""),
    ({"MAKEFLAGS": "-s -j2"}, 8, OTHERS, "warning", "make use 2 of 8 cores"),
    ({"MAKEFLAGS": "-s"}, 8, OTHERS, None, ""),
    (
        {"JAVA_TOOL_OPTIONS": "-Xmx1g -XX:ActiveProcessorCount=1"},
        8,
        OTHERS,
        "warning",
        "Java use 1 of 8 cores",
    ),
]


@pytest.mark.parametrize(("env", "cpus", "check", "severity", "text"), VARIABLES)
def test_variables(env, cpus, check, severity, text):
    diagnosis = examine(container(cpus=cpus, env=env))
    findings = found(diagnosis, check)
    assert [one.severity for one in findings] == ([severity] if severity else [])
    assert all(text in one.title for one in findings)
    assert found(diagnosis, "counted CPUs") == []  # that is about the machine


@pytest.mark.parametrize(
    ("quota", "severity"), [(8.342, "note"), (8.0, None), (7.5, None), (None, None)]
)
def test_a_quota_above_the_cpus(quota, severity):
    findings = found(examine(container(cpus=8, quota=quota)), "counted CPUs")
    assert [one.severity for one in findings] == ([severity] if severity else [])
    if severity:
        assert findings[0].code == "quota-above-cpus"
        assert findings[0].where == f"{CGROUP}/cpu.max"
        assert "coresize run -- Rscript" in findings[0].advice


def test_an_override_is_not_taken_for_what_is_there():
    env = {"PARALLELLY_OVERRIDE_CORES": "16", "OMP_NUM_THREADS": "4"}
    diagnosis = examine(container(cpus=4, quota=1.0, env=env))
    (one,) = found(diagnosis, "counted CPUs")
    assert "4 times too many" in one.title
    assert "unset PARALLELLY_OVERRIDE_CORES, and tell them that there is 1:" in (
        one.advice
    )
    (one,) = found(diagnosis, "threads")
    assert one.title == "16 workers x 4 threads on 1 core"


@pytest.mark.parametrize(
    ("cpus", "quota", "factor"),
    [(4, 0.25, "4 times"), (4, 1.0, "4 times"), (4, 2.0, "2 times"), (1, 0.25, "")],
)
def test_one_worker_there_is_in_any_case(cpus, quota, factor):
    findings = found(examine(container(cpus=cpus, quota=quota)), "counted CPUs")
    assert len(findings) == bool(factor)
    assert all(f" {factor} too many" in one.title for one in findings)


def test_of_two_overrides_one_has_no_effect():
    env = {"CORESIZE_OVERRIDE_CORES": "8", "PARALLELLY_OVERRIDE_CORES": "4"}
    active, other = sorted(
        found(examine(container(env=env)), "overrides"), key=lambda one: one.severity
    )
    assert (active.severity, active.where) == ("note", "CORESIZE_OVERRIDE_CORES")
    assert other.title == "PARALLELLY_OVERRIDE_CORES is set, and has no effect"
    assert other.seen == "CORESIZE_OVERRIDE_CORES=8 takes precedence"


@linux
@pytest.mark.parametrize(
    ("kind", "severity", "text"),
    [
        ("nfs4", "warning", "on another machine (nfs4)"),
        ("fuse.sshfs", "warning", "on another machine (fuse.sshfs)"),
        ("overlay", "note", "the container's own layer"),
        ("fuse.fuse-overlayfs", "note", "the container's own layer"),
        ("fuse.mine", "note", "go through a program (fuse.mine)"),
        ("fuseblk", None, ""),
        ("ext4", None, ""),
    ],
)
def test_the_file_system_of_temporary_files(tmp_path, kind, severity, text):
    folder, link = tmp_path / "a b", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    host = container(env={"TMPDIR": str(link)})
    point = str(folder).replace(" ", "\\040")
    line = f"40 23 0:40 / {point} rw - {kind} there:/tmp rw\n"
    host.files["/proc/self/mountinfo"] += line
    findings = [
        one
        for one in found(examine(host), "temporary folder")
        if one.where.startswith("TMPDIR") and "file system" in one.seen
    ]
    assert [one.severity for one in findings] == ([severity] if severity else [])
    assert all(text in one.title for one in findings)


@pytest.mark.parametrize(
    ("in_folder", "in_memory", "told"),
    [
        (0.7, 0.001, "are 700 times slower than memory"),
        (0.03, 0.001, "are 30 times slower"),
        (0.01, 0.0001, ""),
        (0.5, 0.1, ""),
    ],
)
def test_the_speed_of_temporary_files(in_folder, in_memory, told):
    findings = list(folders.compare_speeds("/slow", in_folder, in_memory))
    assert [told in one.title for one in findings] == ([True] if told else [])


@linux
def test_a_start_method_that_is_refused(tmp_path):
    folder = tmp_path / ("x" * 120)  # too long for the address of a socket
    folder.mkdir()
    done = run("-m", "coresize", "diagnose", "--json", TMPDIR=str(folder))
    findings = found(Diagnosed(json.loads(done.stdout)), "start methods")
    (one,) = [one for one in findings if one.code == "start-method-refused"]
    assert one.title == "processes cannot be started by forkserver"
    assert "AF_UNIX path too long" in one.seen


@pytest.mark.parametrize(
    ("library", "env", "told"),
    [
        ("numpy", {}, True),
        ("json", {}, False),
        ("numpy", {"OMP_NUM_THREADS": "1"}, False),
    ],
)
def test_threads_of_libraries_that_a_program_imports(library, env, told, tmp_path):
    program = tmp_path / "main.py"
    program.write_text(f"import {library}\n")
    words = ("-m", "coresize", "diagnose", "--quick", "--main", str(program), "--json")
    unset = dict.fromkeys(exports.THREADS, "")
    done = run(*words, **{**unset, "CORESIZE_WORKERS": "512", **env})
    diagnosed = Diagnosed(json.loads(done.stdout))
    seen = [one for one in found(diagnosed, "threads") if "imported by" in one.where]
    assert [f"numpy, imported by {program}" == one.where for one in seen] == (
        [True] if told else []
    )


@pytest.mark.parametrize("folder", ["/no/such/folder", __file__])
def test_a_temporary_folder_that_is_none(folder):
    host = container(env={"LOKY_TEMP": folder})
    (one,) = [
        one
        for one in found(examine(host), "temporary folder")
        if one.where == "LOKY_TEMP"
    ]
    assert (one.severity, one.title) == (
        "warning",
        f"LOKY_TEMP={folder} is not a folder",
    )


@linux
def test_no_temporary_file_can_be_written(tmp_path):
    words = f'ulimit -f 0; exec "{sys.executable}" -m coresize diagnose --quick --json'
    env = {**os.environ, "LOKY_TEMP": str(tmp_path / "none")}
    done = subprocess.run(["sh", "-c", words], env=env, capture_output=True, check=True)
    diagnosis = json.loads(done.stdout)
    assert "temporary folder" in diagnosis["checks"]
    told = [one for one in diagnosis["findings"] if one["check"] == "temporary folder"]
    assert (told[0]["severity"], told[0]["where"]) == ("error", "tempfile.gettempdir()")
    assert "LOKY_TEMP" in [one["where"] for one in told]


GB, MB64 = 10**9, 64 * 10**6


@pytest.mark.parametrize(
    ("folder", "size", "severity", "title", "why"),
    [
        (None, MB64, "warning", "/dev/shm has only", "temporary folder instead"),
        ("/dev/shm", MB64, "warning", "/dev/shm has only", "use it, and fail"),
        (None, GB, "note", "joblib does not use", "temporary folder instead"),
        ("/dev/shm", GB, "note", "joblib has 953.7 MiB in", "use it, and fail"),
        ("/dev/shm/me", GB, "note", "joblib has", "=/dev/shm/me makes joblib use"),
        ("/dev/shmem", GB, "note", "joblib does not use", "folder instead"),
        (None, 3 * GB, None, "", ""),
    ],
)
def test_shared_memory(folder, size, severity, title, why):
    with use_host(container(env={"JOBLIB_TEMP_FOLDER": folder} if folder else {})):
        context = collect((), (), 0.1)
    space = storage.Space(total=size, free=size)
    findings = list(folders.compare(context, space))
    assert [one.severity for one in findings] == ([severity] if severity else [])
    assert all(title in one.title and why in one.why for one in findings)


#: case: (periods and throttled ones since it was made, of the watch, severity, share)
THROTTLED = {
    "one of one says nothing": ((1000, 1), (1, 1), None, ""),
    "three of three say nothing": ((1000, 3), (3, 3), None, ""),
    "of few periods": ((10, 10), (5, 5), None, ""),
    "before": ((1000, 300), (5, 0), "warning", "was used up in 30% of its"),
    "a little": ((1000, 20), (5, 0), "note", "was used up in 2% of its"),
    "now": ((1000, 30), (5, 4), "error", "is used up now, in 80% of its"),
    "somewhat now": ((1000, 3), (5, 1), "warning", "is used up now, in 20% of its"),
    "both": ((1000, 900), (5, 4), "error", "is used up now, in 80% of its"),
    "mostly before": ((1000, 400), (5, 1), "warning", "was used up in 40% of its"),
}


@pytest.mark.parametrize("case", THROTTLED)
def test_throttling_by_the_share_that_counts(case):
    *counts, severity, title = THROTTLED[case]
    whole, now = (
        counters.Throttling(where="f", periods=periods, throttled=many, seconds=0.0)
        for periods, many in counts
    )
    findings = list(throttling.compare(whole, now, 0.5))
    assert [one.severity for one in findings] == ([severity] if severity else [])
    assert all(title in one.title for one in findings)


#: case: (files below the cgroup, severity, title)
SWAPPED = {
    "of the machine": ({}, "warning", "31.0 GiB are swapped out on the whole machine"),
    "none of the cgroup": ({"memory.swap.current": "0\n"}, None, ""),
    "of the cgroup": ({"memory.swap.current": f"{GIB}\n"}, "note", "1.0 GiB are swap"),
    "of the cgroup, v1": ({"memory.stat": f"swap {GIB}\n"}, "note", "1.0 GiB are swap"),
}


@pytest.mark.parametrize("case", SWAPPED)
def test_swap_of_the_cgroup_else_of_the_machine(case):
    files, severity, title = SWAPPED[case]
    host = recorded(files)
    host.files["/proc/meminfo"] += "SwapTotal: 33554432 kB\nSwapFree: 1048576 kB\n"
    findings = found(examine(host), "swap")
    assert [one.severity for one in findings] == ([severity] if severity else [])
    assert all(title in one.title for one in findings)


A100 = [gpus.Gpu(name="A100", uuid=f"GPU-{number}a7c-12") for number in range(4)]


@pytest.mark.parametrize(
    ("given", "present", "severity", "text"),
    [
        ("0,1,2,3", A100, None, ""),
        ("0,1", A100, "note", "2 of 4 GPUs may be used"),
        ("-1", A100, "note", "0 of 4 GPUs"),
        ("", A100, "note", "0 of 4 GPUs"),
        ("0,-1,1", A100, "note", "1 of 4 GPUs"),
        ("GPU-1a7c", A100, "note", "1 of 4 GPUs"),
        ("GPU-1a7c,GPU-8", A100, "error", "not there: GPU-8"),
        ("MIG-4b1", A100, "note", "1 of 4 GPUs"),
        ("all", A100, "error", "not there: all"),
        ("NoDevFiles", A100, "note", "0 of 4 GPUs"),
        ("4", A100, "error", "not there: 4"),
        ("0", [], "error", "not there: 0"),
        ("-1", [], None, ""),
        ("0,1,0", A100, "error", "hides all GPUs"),
        ("+3, -0,2abc,1", A100, None, ""),
        ("+4", A100, "error", "not there: +4"),
    ],
)
def test_gpus(given, present, severity, text):
    findings = list(gpus.compare(given, present))
    assert [one.severity for one in findings] == ([severity] if severity else [])
    assert all(text in one.title for one in findings)


# --- What is measured, of this machine ----------------------------------------


def broken(check, path, *words):
    return list(check(collect((str(path), *words), (), 0.1)))


UNGUARDED = {
    "concurrent.futures": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(2) as pool: print(list(pool.map(abs, [1])))"
    ),
    "multiprocessing": (
        "import multiprocessing\n"
        "with multiprocessing.Pool(2) as pool: print(pool.map(abs, [1]))"
    ),
    "coresize": (
        "from coresize import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(2) as pool: print(list(pool.map(abs, [1])))"
    ),
}


@pytest.mark.parametrize("name", UNGUARDED)
def test_a_program_without_a_guard(tmp_path, name):
    path = tmp_path / "program.py"
    path.write_text(UNGUARDED[name])
    (one,) = broken(imports.main_module, path)
    assert (one.severity, one.title) == ("error", f"workers cannot import {path}")
    told = "An attempt has been made to start a new process before"
    ours = "a worker that imports the main module may start no pool of its own"
    assert (ours if name == "coresize" else told) in one.seen
    assert "__main__" in one.advice


ARGUMENTS = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.parse_args()
"""


@pytest.mark.parametrize(
    ("text", "seen", "advice"),
    [
        ("import sys; sys.exit(3)", "SystemExit: 3", "put the code that starts"),
        ("import sys; sys.argv[1]", "IndexError", "--main FILE -- ARGUMENTS"),
        (ARGUMENTS, "arguments are required: file", "--main FILE -- ARGUMENTS"),
        ("import no_such_module", "No module named 'no_such_module'", "fix this"),
        ("def", "SyntaxError", "fix this"),
        ("import os; os._exit(1)", "ended without a word", "below if __name__"),
    ],
)
def test_a_program_that_cannot_be_imported(tmp_path, text, seen, advice):
    path = tmp_path / "program.py"
    path.write_text(text)
    (one,) = broken(imports.main_module, path)
    severity = "warning" if "ARGUMENTS" in one.advice else "error"
    assert (one.severity, seen in one.seen) == (severity, True), one.seen
    assert advice in one.advice
    assert one.advice.startswith("put") == advice.startswith(("put", "below"))


def test_a_program_that_has_its_arguments(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(ARGUMENTS)
    assert broken(imports.main_module, path, "data.csv") == []
    words = ("diagnose", "--quick", "--fail-on", "error", "--main")
    with contextlib.chdir(tmp_path):
        assert main([*words, "program", "--", "data.csv"]) == 0
        assert main([*words, str(path), "--", "data.csv"]) == 0
        with pytest.raises(SystemExit):
            main(["diagnose", "--quick", "--", "data.csv"])


OWN_MAIN = """\
from coresize.diagnosis import context
from coresize.diagnosis.checks import imports
(one,) = imports.main_module(context.collect((), (), 0.1))
print(one.severity, one.advice)
"""


def test_a_program_from_standard_input():
    done = run("-", stdin=OWN_MAIN)
    assert done.stdout.startswith("warning save it as a file")


def test_a_program_that_diagnoses_itself_without_a_guard(tmp_path):
    path = tmp_path / "program.py"
    path.write_text("from coresize import diagnose\nprint(diagnose().as_json())")
    done = run(str(path))
    diagnosis = json.loads(done.stdout)  # one answer, not one of each worker
    assert done.stderr == ""
    skipped = {one["check"]: one["why"] for one in diagnosis["skipped"]}
    assert skipped["scaling"] == "workers cannot import the main module"
    told = {one["check"]: one for one in diagnosis["findings"]}
    assert "may make no diagnosis" in told["main module"]["seen"]
    assert "__main__" in told["main module"]["advice"]


OWN_PROGRAM = """\
if __name__ == '__main__':
    from coresize.diagnosis import context
    from coresize.diagnosis.checks import imports
    print(list(imports.main_module(context.collect((), (), 0.1))))
"""


def test_a_program_of_a_package(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "other.py").touch()
    path = tmp_path / "pack" / "program.py"
    path.write_text(f"from . import other\n{OWN_PROGRAM}")
    done = run("-m", "pack.program", cwd=tmp_path)
    assert done.stdout == "[]\n"  # by name it can be imported, by path it cannot
    (one,) = broken(imports.main_module, path)
    assert "--main PACKAGE.MODULE" in one.advice


@pytest.mark.parametrize(
    ("module", "seen"),
    [
        ("pack", None),
        ("pack.inner", None),
        ("pack.__main__", None),
        ("pack.other", "cannot be directly executed"),
        ("no.such", "No module named 'no'"),
    ],
)
def test_workers_leave_the_main_module_of_a_package_alone(tmp_path, module, seen):
    for folder in ("pack", "pack/inner", "pack/other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    for folder in ("pack", "pack/inner"):
        (tmp_path / folder / "__main__.py").write_text("raise SystemExit('it was run')")
    with contextlib.chdir(tmp_path):
        findings = broken(imports.main_module, module)
    assert [seen in one.seen for one in findings] == ([True] if seen else [])


def test_a_folder_that_is_run_as_a_program(tmp_path):
    (tmp_path / "__main__.py").write_text(OWN_PROGRAM)
    assert run(str(tmp_path)).stdout == "[]\n"


def test_a_program_whose_import_is_slow(tmp_path):
    (tmp_path / "heavy.py").write_text("import time; time.sleep(0.6)")
    path = tmp_path / "program.py"
    path.write_text(
        "import sys, heavy, time; time.sleep(0.2)\n"
        "print('{}'); print('x', file=sys.stderr)\n"
        'if __name__ == "__main__": raise SystemExit("not in a worker")'
    )
    (one,) = broken(imports.main_module, path)
    assert one.severity == "warning"
    names = [part.split()[-3] for part in one.seen.partition(": ")[2].split(", ")]
    assert names[:2] == ["heavy", "lines"]


def test_a_program_whose_import_is_quick(tmp_path):
    path = tmp_path / "program.py"
    path.write_text('import json\nif __name__ == "__main__": raise SystemExit(1)')
    assert broken(imports.main_module, path) == []


LEAVE = """\
import multiprocessing, subprocess
left = subprocess.Popen(["sleep", "77"])
lock = multiprocessing.Lock()
print(left.pid, lock._semlock.name, file=open({path!r}, "w"))
"""


@linux
def test_what_a_program_leaves_behind_is_ended_and_not_waited_for(tmp_path):
    program, note = tmp_path / "leave.py", tmp_path / "pid"
    program.write_text(LEAVE.format(path=str(note)))
    diagnosis = diagnose(main=str(program), measure=False)
    assert found(diagnosis, "main module") == []
    assert "main module" in diagnosis.checks
    pid, lock = note.read_text().split()
    assert commands.ends(int(pid))
    # What cleans up for multiprocessing has had the time to do so.
    assert not Path(f"/dev/shm/sem.{lock.removeprefix('/')}").exists()


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_diagnosis_that_is_ended_ends_what_it_tries(number, tmp_path):
    program, note = tmp_path / "stay.py", tmp_path / "pid"
    program.write_text(
        "import os, time\n"
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "time.sleep(77)"
    )
    words = [*COMMAND, "--quick", "--main", str(program)]
    with subprocess.Popen(words) as process:
        while not (note.exists() and note.read_text().endswith("\n")):
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert commands.ends(int(note.read_text()))


def test_imports_are_timed_in_a_fresh_process():
    (one,) = imports.imports(collect((), ("no_such", "matplotlib.pyplot"), 0.1))
    assert "matplotlib" in one.seen
    assert "no_such" not in one.seen
    assert "matplotlib" not in imports.loaded() or "matplotlib" in sys.modules
    assert list(imports.imports(collect((), (), 0.1))) == []


LOADED = """\
import os
import numpy, threadpoolctl
for name in list(os.environ):
    if name.endswith("_NUM_THREADS"):
        del os.environ[name]
from coresize import diagnose
from coresize.testing import container, use_host
threadpoolctl.threadpool_limits(2)
print(diagnose(measure=False).as_json())
with use_host(container(cpus=8)):
    assert "threads" not in {one.check for one in diagnose(measure=False).findings}
"""


def run(*words, cwd=None, stdin=None, **env):
    return subprocess.run(
        [sys.executable, *words],
        input=stdin,
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_threads_that_blas_has_started():
    done = run("-c", LOADED, CORESIZE_WORKERS="512")
    assert done.stderr == ""
    findings = json.loads(done.stdout)["findings"]
    told = [one for one in findings if one["check"] == "threads"]
    if "openblas" in done.stdout:
        (title,) = [one["title"] for one in told]
        assert title.startswith("512 workers x 2 threads on ")
        assert told[0]["seen"].startswith("openblas in this process: 1024 threads in")


@pytest.mark.parametrize(
    ("env", "loaded", "severity", "title"),
    [
        ({}, {}, None, ""),
        ({}, {"openblas": 8}, "note", "8 workers x 8 threads on 8 cores"),
        ({}, {"openblas": 1, "openmp": 2}, "note", "8 workers x 2 threads on 8 cores"),
        ({}, {"openblas": 1}, None, ""),
        ({}, {"openblas": 64}, "warning", "8 workers x 64 threads on 8 cores"),
        ({"CORESIZE_PARALLEL": "0"}, {"openblas": 8}, None, ""),
        ({"CORESIZE_PARALLEL": "0"}, {"mkl": 64}, "warning", "64 threads on 8 cores"),
        ({"CORESIZE_WORKERS": "2"}, {"mkl": 4}, None, ""),
    ],
)
def test_threads_of_libraries_times_workers(env, loaded, severity, title):
    with use_host(container(cpus=8, env=env)):
        context = collect((), (), 0.1)
    findings = list(threads.compare(context, loaded))
    assert [one.severity for one in findings] == ([severity] if severity else [])
    assert all(one.title == title for one in findings)
    assert all("coresize run --workers" in one.advice for one in findings)


def test_threads_times_workers_by_variables():
    env = {"OPENBLAS_NUM_THREADS": "8", "CORESIZE_WORKERS": "4"}
    done = run("-m", "coresize", "diagnose", "--quick", "--json", **env)
    findings = json.loads(done.stdout)["findings"]
    (one,) = [one for one in findings if one["check"] == "threads"]
    assert one["title"].startswith("4 workers x 8 threads on ")
    assert one["where"] == "OPENBLAS_NUM_THREADS=8"


#: Before its neighbours on this machine, where that is permitted.
ONE_CPU = """\
import contextlib, os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
with contextlib.suppress(PermissionError):
    os.nice(-20)
from coresize import diagnose
from coresize.testing import container, use_host
with use_host(container(cpus=8, memory=MEMORY)):
    print(diagnose().as_json())
"""


@linux
@pytest.mark.flaky(reruns=2)  # it measures
def test_workers_without_cores_of_their_own_do_not_scale():
    # One CPU, on a machine that is said to have eight.
    diagnosis = json.loads(run("-c", ONE_CPU.replace("MEMORY", "'4GiB'")).stdout)
    (one,) = [one for one in diagnosis["findings"] if one["check"] == "scaling"]
    assert one["severity"] == "warning"
    assert one["title"].startswith("pure computing: 8 workers are ")
    assert "8 were to be expected" in one["seen"]
    (starts,) = [
        one for one in diagnosis["findings"] if one["check"] == "start methods"
    ]
    assert all(name in starts["seen"] for name in ("fork ", "forkserver ", "spawn "))
    assert {"start methods", "imports", "main module", "scaling"} <= {
        *diagnosis["checks"]
    }


@linux
def test_nothing_is_killed_for_a_check():
    diagnosis = json.loads(run("-c", ONE_CPU.replace("MEMORY", "'64MiB'")).stdout)
    reasons = {one["check"]: one["why"] for one in diagnosis["skipped"]}
    assert reasons["scaling"].startswith("it takes 576.0 MiB of memory, and ")


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"cpus": 1}, "there is one core"),
        ({"cpus": 8, "env": {"CORESIZE_PARALLEL": "0"}}, "serially, by CORESIZE_PARA"),
    ],
)
def test_where_one_works_there_is_nothing_to_scale(details, reason):
    with use_host(container(**details)):
        context = collect((), (), 0.1)
    with pytest.raises(Skipped, match=reason):
        list(scaling.scaling(context))


# --- The answer ---------------------------------------------------------------


def finding(severity, title="t"):
    text = dict.fromkeys(("code", "check", "seen", "where", "why", "advice"), "x")
    return Finding(severity=severity, title=title, **text)


def test_the_most_severe_is_first_and_all_is_on_one_screen():
    many = [finding("note", f"note {n}") for n in range(40)]
    findings = order([*many, finding("warning"), finding("error", "the worst")])
    diagnosis = Diagnosis(
        findings=findings, checks=("x",), skipped=(("y", "why not"),), seconds=1.0
    )
    summary, _, details = str(diagnosis).partition("\n\n")
    lines = summary.splitlines()
    assert len(lines) <= 24
    assert lines[0] == "1 error, 1 warning, 40 notes in 1 checks (1.0 s)"
    assert lines[1].split() == ["error", "the", "worst"]
    assert lines[-1].strip() == "and 24 more"
    assert details.count("\n  do     x") == 42
    assert details.endswith("not checked: y: why not")
    assert [diagnosis.has(one) for one in ("error", "warning", "note")] == [True] * 3


def test_nothing_found():
    diagnosis = Diagnosis(findings=(), checks=("x", "y"), skipped=(), seconds=0.25)
    assert str(diagnosis) == "nothing found in 2 checks (0.2 s)"
    assert json.loads(diagnosis.as_json())["findings"] == []


TOO_MANY = {"CORESIZE_OVERRIDE_CORES": "1000"}


def test_a_program_that_is_to_fail_does():
    words = ("-m", "coresize", "diagnose", "--quick", "--fail-on", "warning")
    done = run(*words, **TOO_MANY)
    assert (done.returncode, done.stderr) == (1, "")
    assert " warning  CORESIZE_OVERRIDE_CORES=1000 asks for more" in done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 0),
        (("--fail-on", "error"), 0),
        (("--fail-on", "warning"), 1),
        (("--fail-on", "note"), 1),
    ],
)
def test_the_exit_status(call, words, code):
    with use_host(container(env=TOO_MANY)):
        done = call("diagnose", "--quick", *words)
    assert done.returncode == code, done.stderr
    assert " warning  CORESIZE_OVERRIDE_CORES=1000 asks for more" in done.stdout
    assert "\n  do     unset CORESIZE_OVERRIDE_CORES" in done.stdout


def test_json(call):
    with use_host(container(env=TOO_MANY)):
        done = call("diagnose", "--quick", "--json")
    answer = json.loads(done.stdout)
    assert set(answer) == {"findings", "checks", "skipped", "seconds"}
    (one,) = [one for one in answer["findings"] if one["check"] == "overrides"]
    assert set(one) == {*Finding.__slots__}
    assert {one["check"] for one in answer["findings"]} <= {*answer["checks"]}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--main", "no-such-file.py"), "the path of a Python file"),
        (("--main", "nosuch.py"), "the path of a Python file"),
        (("--main", "no_such.module"), "the name of a module"),
        (("--watch", "0", "--pid", str(os.getpid())), "above 0"),
        (("--pid", "999999999"), "alive"),
        (("--pid", "-1"), "alive"),
    ],
)
def test_bad_usage(words, text, capsys):
    assert main(["diagnose", *words]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--watch", "1"), "--watch needs --pid PID"),
        (
            ("--watch", "1", "--pid", "1", "--fail-on", "note"),
            "--fail-on cannot be used",
        ),
        (("--watch", "1", "--pid", "1", "--main", "x.py"), "--main cannot be used"),
    ],
)
def test_options_that_do_not_go_together(words, text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", *words])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


# --- A program that runs ------------------------------------------------------

SLEEP = "import time; time.sleep(60)"
BUSY = "while True: pass"
#: On the same CPU as others.
PINNED = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n{BUSY}"


#: One after another, in children that live for a moment.
DELEGATE = f"""
import subprocess
spin = "import time\\nwhile time.process_time() < 0.1: pass"
while True: subprocess.run([{sys.executable!r}, "-S", "-c", spin])
"""
#: Four that share what the first of them holds.
SHARE = """
import os
held = bytearray(b"x") * (60 << 20)
os.fork() and os.fork() and os.fork()
"""


def watched(program, seconds=0.5, before=""):
    words = [sys.executable, "-c", f"{before}\nprint(flush=True)\n{program}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()  # it has started
            return watch.watch(process.pid, seconds)
        finally:
            processes.kill_tree(process.pid)


@linux
@pytest.mark.flaky(reruns=2)  # it measures
def test_a_watch_tells_who_sleeps_from_who_computes():
    asleep, busy = watched(SLEEP), watched(BUSY)
    assert "waits nearly all the time" in watch.conclude(asleep)
    assert "waits nearly all the time" not in watch.conclude(busy)
    assert busy[-1].cores > asleep[-1].cores
    assert (busy[-1].processes, asleep[-1].computing) == (1, 0)
    assert busy[-1].memory > 2**20


@linux
@pytest.mark.flaky(reruns=2)  # it measures
def test_a_watch_sees_children_that_end_between_two_looks():
    (sample,) = watched(DELEGATE)
    assert sample.cores > 0.1


@linux
def test_a_watch_counts_what_processes_share_once():
    (sample,) = watched(SLEEP, 0.1, before=SHARE)
    assert sample.processes > 1
    assert 60 * 2**20 < sample.memory < 110 * 2**20


def test_a_watch_ends_with_its_program():
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(0.5)"]
    ) as process:
        samples = watch.watch(process.pid, 20)
    assert len(samples) < 20
    assert "ended before anything" in watch.conclude([], ended=True)
    assert watch.conclude([]) == "Nothing was seen."
    assert watch.conclude([sample()], ended=True).startswith("It has ended. 1.00 of")


@linux
@pytest.mark.flaky(reruns=2)  # it measures
def test_a_watch_tells_who_waits_for_a_core():
    crowd = [subprocess.Popen([sys.executable, "-c", PINNED]) for _ in range(3)]
    try:
        time.sleep(0.5)
        samples = watch.watch(crowd[0].pid, 1.0)
    finally:
        for one in crowd:
            one.kill()
            one.wait()
    assert samples[-1].waited > samples[-1].cores
    assert "or an affinity keeps it on the same CPUs" in watch.conclude(samples)


@linux
def test_ctrl_c_ends_a_watch_with_what_was_seen():
    words = [*COMMAND, "--watch", "60", "--pid", str(os.getpid())]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        seen = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert "cores busy" in seen
    assert "busy on average" in rest
    assert process.returncode == 130


def test_a_watch_from_the_command_line(capsys):
    words = ["diagnose", "--watch", "0.2", "--pid", str(os.getpid())]
    assert main(words) == 0
    assert "cores busy" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["conclusion"]
    assert answer["samples"][0]["processes"] >= 1


def sample(**given):
    return watch.Sample(
        **{
            "seconds": 1.0,
            "cores": 1.0,
            "waited": 0.0,
            "limit": 4.0,
            "throttled": 0.0,
            "memory": 10,
            "memory_limit": None,
            "processes": 1,
            "computing": 1,
            **given,
        }
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"cores": 0.01, "computing": 0}, "waits nearly all the time"),
        ({"cores": 0.95}, "computes in 1 of 1 processes"),
        ({"cores": 3.9, "processes": 5, "computing": 4}, "All cores are busy"),
        ({"cores": 2.0, "processes": 4, "computing": 4}, "The rest waits"),
        (
            {"cores": 2.0, "waited": 2.0, "computing": 4},
            "use 2.00 cores more than it had",
        ),
        ({"cores": 0.05, "waited": 0.9}, "more than it had: others compute"),
        ({"cores": 1.0, "waited": 2.0}, "same CPUs. More workers would gain nothing."),
        ({"cores": 2.0, "waited": 5.0}, "same CPUs. Fewer workers would wait less."),
        ({"cores": 3.9, "waited": 4.0}, "All cores are busy"),
        ({"cores": 0.05, "waited": 0.04}, "waits nearly all the time"),
        ({"cores": 3.0, "throttled": 0.5}, "The quota was used up in 50%"),
        ({"cores": 3.0, "waited": 4.0, "throttled": 0.5}, "or run fewer threads"),
        ({"cores": 0.99, "limit": 1.0, "waited": 0.1, "throttled": 0.12}, "All cores"),
        ({"memory": 95, "memory_limit": 100}, "It held 95% of the memory"),
    ],
)
def test_conclusions(given, text):
    assert text in watch.conclude([sample(**given)] * 3)
