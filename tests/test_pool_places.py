"""Pools where no folder can be written, and where descriptors are few.

A worker needs no temporary folder, no named socket, no working folder and no file in
/dev/shm. It takes one descriptor of the program, and the program goes on with fewer
workers where that is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest


#: Seconds after which what should come will not.
LONG = 120

linux = pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")

HEAD = """
import contextlib, json, multiprocessing, os, resource, shutil, signal, sys, time
from pathlib import Path
from coresize import ProcessPoolExecutor, profile_task, run_batch
from coresize.processes import forkserver

def files():
    return len(os.listdir("/proc/self/fd"))

def double(value):
    return 2 * value

def hold(gate):
    while not os.path.exists(gate):
        time.sleep(0.01)
    return os.getpid()

def eventually(condition):
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

def values(method):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, context) as pool:
        return list(pool.map(double, range(3)))

"""


def run(folder, program, *words, shell='exec "$@"', head="", **environment):
    """What a program prints as JSON; it must not complain."""
    path = folder / "program.py"
    indented = program.replace("\n", "\n    ")
    path.write_text(f'{HEAD}{head}\nif __name__ == "__main__":\n    {indented}\n')
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, path, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


# --- Folders ------------------------------------------------------------------

#: Where a pool has to work: what is done before the program starts, and its TMPDIR.
READ_ONLY = """exec unshare -m sh -c '
for place in /tmp /var/tmp /usr/tmp /dev/shm; do
    if test -d $place; then
        mount --bind $place $place && mount -o remount,bind,ro $place
    fi
done; exec "$@"' sh "$@"
"""
PLACES = {
    "no such folder": ('exec "$@"', "/nowhere"),
    "a file": ('exec "$@"', "/etc/hostname"),
    "a long path": ('mkdir -p "$TMPDIR"; exec "$@"', "{folder}/" + 12 * "long-name/"),
    "a folder that is gone": (
        'mkdir "$TMPDIR"; cd "$TMPDIR"; rmdir "$TMPDIR"; exec "$@"',
        "{folder}/gone",
    ),
    "read-only": (READ_ONLY, ""),
    "no home": ('unset HOME; exec "$@"', "/nowhere"),
}


def may_unshare():
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if not shutil.which("unshare") or os.geteuid():
        return False
    done = subprocess.run(words, capture_output=True, check=False, timeout=LONG)
    return done.returncode == 0


def imports_in_a_folder_that_is_gone():
    """CPython 3.13.0 raises SystemError for a missing attribute of a module there."""
    gone = 'cd "$(mktemp -d)" && rmdir "$PWD" && exec "$@"'
    words = ["sh", "-c", gone, "sh", sys.executable, "-c", "import socket"]
    done = subprocess.run(words, capture_output=True, check=False, timeout=LONG)
    return done.returncode == 0


@linux
@pytest.mark.parametrize("place", PLACES)
def test_a_pool_needs_no_folder(place, tmp_path):
    if place == "read-only" and not may_unshare():
        pytest.skip("no file system can be mounted here")
    if place == "a folder that is gone" and not imports_in_a_folder_that_is_gone():
        pytest.skip("this Python cannot import the module socket there")
    shell, temporary = PLACES[place]
    if place == "read-only":
        tmp_path = Path("/run") / f"coresize-{os.getpid()}"
        tmp_path.mkdir()
    program = """\
methods = {method: values(method) for method in ("forkserver", "spawn", "fork")}
methods["profile"] = profile_task(double, 1).cpu >= 0
methods["batch"] = [one.value for one in run_batch(double, range(3))]
print(json.dumps(methods))"""
    try:
        seen = run(
            tmp_path,
            program,
            shell=shell,
            TMPDIR=temporary.format(folder=tmp_path),
        )
    finally:
        if place == "read-only":
            shutil.rmtree(tmp_path)
    assert seen.pop("profile") is True
    assert sorted(seen.pop("batch")) == [0, 2, 4]
    assert set(map(tuple, seen.values())) == {(0, 2, 4)}


@linux
def test_what_is_removed_under_a_running_pool_costs_nothing(tmp_path):
    program = """\
folder, gate = Path(sys.argv[1]) / "tmp", sys.argv[1] + "/gate"
with ProcessPoolExecutor(3) as pool:
    first = pool.submit(hold, gate)
    eventually(first.running)
    shutil.rmtree(folder)
    os.chdir(folder.parent)
    others = [pool.submit(hold, gate) for _ in range(2)]
    eventually(lambda: pool.observe().workers == 3)
    Path(gate).touch()
    print(json.dumps(len([future.result() for future in [first, *others]])))"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    assert run(tmp_path, program, tmp_path, TMPDIR=str(temporary)) == 3


# --- Descriptors --------------------------------------------------------------


@linux
@pytest.mark.parametrize(
    ("method", "most"), [("forkserver", 1), ("spawn", 2), ("fork", 2)]
)
def test_the_descriptors_of_a_worker(method, most, tmp_path):
    program = """\
context = multiprocessing.get_context(sys.argv[1])
gate = sys.argv[2]
with ProcessPoolExecutor(9, context) as pool:
    tasks = [pool.submit(hold, gate)]
    eventually(lambda: pool.observe().workers >= 1 and tasks[0].running())
    if sys.argv[1] == "fork":
        pids = pool._processes
        each = (files() - 14) / len(pids)
    else:
        before = files()
        tasks += [pool.submit(hold, gate) for _ in range(8)]
        eventually(lambda: pool.observe().workers == 9)
        pids, each = pool._processes, (files() - before) / 8
    eventually(lambda: all(worker.ready for worker in pool._dispatcher.handles))
    held = [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]
    server = forkserver.pid()
    served = len(os.listdir(f"/proc/{server}/fd")) if server else 0
    Path(gate).touch()
print(json.dumps([each, max(held), served]))"""
    each, held, served = run(tmp_path, program, method, tmp_path / "gate")
    assert each <= most
    assert held <= 18
    assert served <= 12


@linux
@pytest.mark.parametrize("limit", [40, 64])
def test_few_descriptors_are_enough_for_many_workers(limit, tmp_path):
    program = """\
import logging
logging.disable()
with ProcessPoolExecutor(40) as pool:
    done = list(pool.map(double, range(200), chunksize=1))
    gate = sys.argv[1]
    tasks = [pool.submit(hold, gate) for _ in range(40)]
    server = forkserver.pid()
    if sys.argv[2] == "64":
        eventually(lambda: pool.observe().workers == 40)
    with open("/proc/self/status") as spare:  # some are left for the program
        pass
    Path(gate).touch()
    pids = {task.result() for task in tasks}
print(json.dumps([done == [2 * one for one in range(200)], len(pids) > 1]))"""
    shell = f'ulimit -n {limit}; exec "$@"'
    words = tmp_path / "gate", limit
    assert run(tmp_path, program, *words, shell=shell) == [True, True]


@linux
def test_workers_whose_server_was_killed_are_watched(tmp_path):
    """Their ends are noticed, idle or busy, and what they ended is done."""
    program = """\
gate = sys.argv[1]
with ProcessPoolExecutor(3) as pool:
    tasks = [pool.submit(hold, gate) for _ in range(3)]
    eventually(lambda: all(worker.ready for worker in pool._dispatcher.handles))
    eventually(lambda: pool.observe().workers == 3)
    pids = list(pool._processes)
    os.kill(forkserver.pid(), signal.SIGKILL)
    Path(gate).touch()
    [task.result() for task in tasks]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: pool.observe().workers == 0)
    print(json.dumps([pool.submit(double, 1).result(), pool.observe().workers]))"""
    assert run(tmp_path, program, tmp_path / "gate") == [2, 1]


@linux
def test_a_worker_ends_with_the_program(tmp_path):
    program = """\
pool = ProcessPoolExecutor(2)
tasks = [pool.submit(hold, "/nowhere") for _ in range(2)]
eventually(lambda: pool.observe().workers == 2)
eventually(lambda: all(worker.ready for worker in pool._dispatcher.handles))
pids = [*pool._processes, forkserver.pid()]
print(json.dumps(pids), flush=True)
os._exit(0)"""
    pids = run(tmp_path, program)
    alive = [signal.SIGKILL] * len(pids)
    for _ in range(int(LONG / 0.02)):
        alive = [pid for pid in pids if _is_running(pid)]
        if not alive:
            break
        subprocess.run(["sleep", "0.02"], check=True)
    assert alive == []


def _is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- What a batch says after its pool broke -------------------------------------

BREAKS = {
    "few descriptors": ('ulimit -n 18; exec "$@"', "{}"),
    "initializer": ('exec "$@"', '{"executor": ProcessPoolExecutor(2, None, fail)}'),
}


@linux
@pytest.mark.parametrize("why", BREAKS)
def test_the_status_of_a_batch_whose_pool_broke(why, tmp_path):
    shell, options = BREAKS[why]
    program = f"""\
import logging
from coresize.errors import CoresizeError
logging.disable()
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
batch = run_batch(double, range(100), journal=sys.argv[1], **{options})
statuses = set()
try:
    for outcome in batch:
        statuses.add(outcome.status)
except CoresizeError as error:
    statuses.add("raised")
print(json.dumps([sorted(statuses), batch.report.done]))"""
    journal = tmp_path / "journal.sqlite"
    head = "def fail():\n    raise ValueError\n\n"
    statuses, done = run(tmp_path, program, journal, shell=shell, head=head)
    assert statuses == ["crashed", "raised"]
    assert done == 0
    status = subprocess.run(
        [sys.executable, "-m", "coresize", "status", str(journal)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert " 0/100" in status.stdout
