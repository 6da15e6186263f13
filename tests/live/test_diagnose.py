"""What is diagnosed where it is provoked: containers, mounts, a guest, this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live import containers
from live.containers import Container

from coresize import diagnose
from coresize.diagnosis import watch


MIB = 1024**2

#: Neighbours on this machine would keep a container from using up its quota.
BEFORE_OTHERS = 200_000
in_containers = pytest.mark.skipif(
    containers.missing() is not None, reason=str(containers.missing())
)


def found(diagnosis, check):
    return [one for one in diagnosis["findings"] if one["check"] == check]


# --- This machine -------------------------------------------------------------


def test_this_machine_is_clean():
    """But for what its neighbours take at the moment, and what Docker gives it."""
    diagnosis = diagnose()
    neighbours = ("pressure", "scaling", "throttling")
    docker = ("/dev/shm", "kills", "memory.oom.group", "counted CPUs")
    serious = [
        str(one)
        for one in diagnosis.findings
        if one.severity != "note" and one.check not in (*neighbours, *docker)
    ]
    assert serious == []
    assert [name for name, _ in diagnosis.skipped if name != "GPUs"] == []


def test_a_python_that_starts_slowly(tmp_path):
    """As from a network disk: here something waits at each start."""
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(0.6)")
    program = (
        "from coresize.diagnosis import context\n"
        "from coresize.diagnosis.checks import start_methods\n"
        "(one,) = start_methods.methods(context.collect((), (), 0.1))\n"
        "print(one.severity, one.title)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "warning starting a Python process takes long here\n"


# --- Mounts -------------------------------------------------------------------

#: In a mount namespace of its own; what is mounted ends with it.
MOUNTS = {
    "/dev/shm": "mount -t tmpfs -o size=64m tmpfs /dev/shm",
    "full": (
        "mkdir full && mount -t tmpfs -o size=8m tmpfs full "
        "&& head -c 8300000 /dev/zero > full/file; export TMPDIR=$PWD/full"
    ),
    "overlay": (
        "mkdir low up work over && mount -t overlay overlay "
        "-o lowerdir=low,upperdir=up,workdir=work over && export TMPDIR=$PWD/over"
    ),
    "forced": (
        "mount -t tmpfs -o size=64m tmpfs /dev/shm "
        "&& export JOBLIB_TEMP_FOLDER=/dev/shm"
    ),
    "large": "mount -t tmpfs -o size=1g tmpfs /dev/shm",
}


def mounted(name, folder):
    script = f'{MOUNTS[name]}; exec "$0" -m coresize diagnose --quick --json'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_shared_memory_of_64_mb(tmp_path):
    (one,) = found(mounted("/dev/shm", tmp_path), "/dev/shm")
    assert (one["severity"], one["where"]) == ("warning", "/dev/shm")
    assert one["title"] == "/dev/shm has only 64.0 MiB"
    assert "SIGBUS" in one["why"]
    assert "joblib maps large arrays from files in the temporary folder" in one["why"]
    (one,) = found(mounted("forced", tmp_path), "/dev/shm")
    assert "JOBLIB_TEMP_FOLDER=/dev/shm makes joblib use it, and fail" in one["why"]


def test_shared_memory_that_is_too_small_for_joblib(tmp_path):
    (one,) = found(mounted("large", tmp_path), "/dev/shm")
    assert (one["severity"], "joblib wants 2 GB" in one["seen"]) == ("note", True)


def test_a_temporary_folder_on_a_full_disk(tmp_path):
    (one, *_) = found(mounted("full", tmp_path), "temporary folder")
    assert one["severity"] == "warning"
    assert one["title"] == f"the disk of {tmp_path}/full is nearly full"
    assert one["where"] == f"TMPDIR: {tmp_path}/full"
    assert "of 8.0 MiB" in one["seen"]


def test_a_temporary_folder_on_an_overlay(tmp_path):
    (one, *_) = found(mounted("overlay", tmp_path), "temporary folder")
    assert (one["severity"], one["seen"]) == ("note", "file system overlay")
    assert one["where"] == f"TMPDIR: {tmp_path}/over"


# --- Containers, cgroup v1 ----------------------------------------------------

ANSWER = "from coresize import diagnose; print(diagnose(measure=False).as_json())"

#: More load than the quota has room for, before and while it is diagnosed.
LOAD = f"""\
import subprocess, sys, time
loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in "ab"]
time.sleep(3)
{ANSWER}
for load in loads:
    load.kill()
    load.wait()
"""

FULL = f"""\
kept = bytearray(b"x") * (250 << 20)
{ANSWER}
"""

#: A child takes more than there is; the parent is not the one that is killed.
KILLED = f"""\
import subprocess, sys
grow = "open('/proc/self/oom_score_adj', 'w').write('1000'); b'x' * (500 << 20)"
assert subprocess.run([sys.executable, "-c", grow]).returncode == -9
{ANSWER}
"""


def contained(container, program, folder):
    return json.loads(containers.run(container, ["-c", program], folder))


@in_containers
def test_a_container_of_its_own(tmp_path):
    """The quota beside what is counted, and the 64 MB that runc gives as Docker."""
    diagnosis = contained(Container(quota=0.25), ANSWER, tmp_path)
    (one,) = found(diagnosis, "counted CPUs")
    cpus = os.cpu_count()
    assert f"os.cpu_count() {cpus}, nproc {cpus}; may be used: 0.25" in one["seen"]
    assert "cpu.cfs_quota_us (25000" in one["where"]
    assert f" {cpus} times too many" in one["title"]
    (one,) = found(diagnosis, "/dev/shm")
    assert one["title"] == "/dev/shm has only 64.0 MiB"


@in_containers
def test_a_container_that_is_throttled(tmp_path):
    container = Container(quota=0.3, shares=BEFORE_OTHERS)
    (one,) = found(contained(container, LOAD, tmp_path), "throttling")
    assert one["severity"] == "error"
    throttled, _, periods = one["seen"].split()[:3]
    assert int(throttled) > int(periods) / 2
    lately = one["seen"].rpartition("in the last 0.5 s ")[2].split()
    assert int(lately[0]) >= int(lately[2]) / 2
    assert one["where"].endswith("/cpu.stat")


@in_containers
def test_a_container_whose_parent_is_throttled(tmp_path):
    container = Container(parent_quota=0.3, view="shared", shares=BEFORE_OTHERS)
    (one,) = found(contained(container, LOAD, tmp_path), "throttling")
    assert one["severity"] == "error"
    assert one["where"] == f"/sys/fs/cgroup/cpu/{containers.PARENT}/cpu.stat"


@in_containers
def test_a_container_whose_memory_is_nearly_full(tmp_path):
    container = Container(memory=280 * MIB)
    (one,) = found(contained(container, FULL, tmp_path), "memory limits")
    assert one["severity"] == "warning"
    assert "limit 280.0 MiB, working set 2" in one["seen"]
    assert one["where"].endswith(f"memory.limit_in_bytes ({280 * MIB})")


@in_containers
def test_a_container_where_something_was_killed(tmp_path):
    container = Container(memory=256 * MIB)
    (one,) = found(contained(container, KILLED, tmp_path), "kills")
    assert (one["severity"], one["seen"]) == ("warning", "oom_kill 1")
    assert one["where"].endswith("memory.oom_control")


@in_containers
def test_a_watch_knows_the_limits_of_what_it_watches(tmp_path):
    """From outside of the container, of which none holds for who watches."""
    program = "while True: pass"
    members = containers.CGROUPS / "cpu" / containers.PARENT / "leaf" / "cgroup.procs"
    container = Container(quota=0.2, memory=256 * MIB, shares=BEFORE_OTHERS)
    with containers.started(container, ["-c", program], tmp_path):
        end = time.monotonic() + 30
        while not (members.exists() and "python" in _name(members)):
            assert time.monotonic() < end
            time.sleep(0.1)
        samples = watch.watch(int(members.read_text().split()[0]), 2)
    last = samples[-1]
    assert (last.limit, last.memory_limit) == (0.2, 256 * MIB)
    assert last.throttled > 0.5
    assert "The quota was used up in " in watch.conclude(samples)


def _name(members):
    """The program of the container's first process: runc, until it becomes another."""
    pids = members.read_text().split()
    return Path(f"/proc/{pids[0]}/cmdline").read_text() if pids else ""


# --- GPUs ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A library that answers as the driver of two GPUs does."""
    pytest.importorskip("pynvml")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source, library = Path(__file__).with_name("nvml.c"), folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return folder


def seen(visible, folder):
    """What the program finds, with that in CUDA_VISIBLE_DEVICES."""
    done = subprocess.run(
        [sys.executable, "-m", "coresize", "diagnose", "--quick", "--json"],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": visible,
            "LD_LIBRARY_PATH": str(folder),
        },
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("visible", "severity", "title", "also"),
    [
        ("99", "error", "not there: 99", "only 0 to 1"),
        ("0,GPU-77", "error", "not there: GPU-77", "only 0 to 1"),
        ("1", "note", "1 of 2 GPUs", "A100-SXM4-80GB, NVIDIA A100-SXM4-80GB"),
        ("", "note", "0 of 2 GPUs", "CUDA_VISIBLE_DEVICES=; NVIDIA"),
        ("GPU-c3d1", "note", "1 of 2 GPUs", "CUDA_VISIBLE_DEVICES=GPU-c3d1"),
    ],
)
def test_gpus(driver, visible, severity, title, also):
    (one,) = found(seen(visible, driver), "GPUs")
    assert one["severity"] == severity
    assert title in one["title"]
    assert also in one["seen"]


def test_gpus_that_are_all_to_be_used(driver):
    diagnosis = seen("0,1", driver)
    assert found(diagnosis, "GPUs") == []
    assert "GPUs" in diagnosis["checks"]


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_gpus_of_which_no_driver_tells(tmp_path):
    pytest.importorskip("pynvml")
    diagnosis = seen("0", tmp_path)
    (reason,) = [one["why"] for one in diagnosis["skipped"] if one["check"] == "GPUs"]
    assert reason == "no driver answers here (NVML: NVML Shared Library Not Found)"


# --- A slow disk --------------------------------------------------------------


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("slow", [True, False])
def test_a_slow_temporary_folder(slow, tmp_path):
    source, library = Path(__file__).with_name("slow_disk.c"), tmp_path / "slow.so"
    words = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(words, check=True)
    folder = tmp_path / "temporary"
    folder.mkdir()
    env = {**os.environ, "TMPDIR": str(folder), "LD_PRELOAD": str(library)}
    env["SLOW_FOLDER"] = str(folder) if slow else "/nowhere"
    words = [sys.executable, "-m", "coresize", "diagnose", "--json"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    told = [one["code"] for one in found(json.loads(done.stdout), "temporary files")]
    assert told == (["temporary-folder-slow"] if slow else [])
