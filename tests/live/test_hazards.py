"""What goes wrong in containers alone: see HAZARDS in tests/test_hazards.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from live import cgroups, guest
from live.guest import Scenario


TESTS = Path(__file__).parents[1]
limited = pytest.mark.skipif(
    cgroups.missing() is not None, reason=str(cgroups.missing())
)

HEAD = f"""\
import sys; sys.path.insert(0, {str(TESTS)!r})
import json, tasks
from multiprocessing import get_context
from coresize import ProcessPoolExecutor

def outcome(future):
    error = future.exception()
    return future.result() if error is None else type(error).__name__
"""


def _run(mebibytes, program, folder, *, above=""):
    """A script in a cgroup with such a limit.

    Returns what it prints, and how many were killed. What stands above the guard of its
    main module is loaded by each worker that is not forked.
    """
    script = folder / "script.py"
    guarded = textwrap.indent(program, "    ")
    script.write_text(f"{HEAD}{above}if __name__ == '__main__':\n{guarded}")
    done = cgroups.run(mebibytes, script)
    assert done.code == 0, done.err
    return json.loads(done.out), done.kills


@limited
@pytest.mark.hazard(5)
def test_the_parent_outlives_workers_that_cannot_even_start(tmp_path):
    """Each would load as much as the parent, which is the larger one all the time."""
    found, kills = _run(
        350,
        "with ProcessPoolExecutor(1, get_context('spawn')) as pool:\n"
        "    pool.submit(abs, 1)\n"
        "    counter = OomCounter(os.getpid())\n"
        "    while not counter.count():\n"
        "        time.sleep(0.02)\n"
        "    time.sleep(0.2)\n"
        "    print('true', flush=True)\n"
        "    os._exit(0)\n",
        tmp_path,
        above="import os, time\n"
        "from coresize.processes.oom import OomCounter\n"
        "kept = bytearray(b'x') * (200 << 20)\n",
    )
    assert found is True
    assert kills >= 1


@limited
@pytest.mark.hazard(10)
def test_retries_are_bounded(tmp_path):
    """Each of three is killed at most twice, and takes none of the others along."""
    found, kills = _run(
        300,
        "with ProcessPoolExecutor(4, memory='20MiB', oom_retries=1) as pool:\n"
        "    futures = [pool.submit(tasks.take_for_ever) for _ in range(3)]\n"
        "    futures += [pool.submit(tasks.take, 10) for _ in range(6)]\n"
        "    print(json.dumps([outcome(future) for future in futures]))\n",
        tmp_path,
    )
    assert found == ["TaskOutOfMemoryError"] * 3 + [10] * 6
    assert kills <= 2 * 3


@limited
@pytest.mark.hazard(13)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_the_parent_holds_is_not_learned_as_the_need_of_a_task(method, tmp_path):
    """There is room for another 200 MiB: for both tasks, unless they seem large."""
    (tmp_path / "met").mkdir()
    found, _ = _run(
        500,
        "kept = bytearray(b'x') * (250 << 20)\n"
        f"context, folder = get_context({method!r}), {str(tmp_path / 'met')!r}\n"
        "with ProcessPoolExecutor(2, context, memory='auto') as pool:\n"
        "    met = [pool.submit(tasks.meet, folder, 'first', 1).result()]\n"
        "    names = ('second', 'third')\n"
        "    futures = [pool.submit(tasks.meet, folder, name, 3) for name in names]\n"
        "    print(json.dumps(met + [outcome(future) for future in futures]))\n",
        tmp_path,
    )
    assert found == [True] * 3


@limited
@pytest.mark.hazard(14)
def test_what_forks_copy_is_learned_as_the_need_of_a_task(tmp_path):
    """Each copies 150 MiB, and there is room for one: so they take turns."""
    found, kills = _run(
        600,
        "context, words = get_context('fork'), {'memory': 'auto', 'oom_retries': 0}\n"
        "with ProcessPoolExecutor(4, context, **words) as pool:\n"
        "    futures = [pool.submit(write, 150) for _ in range(4)]\n"
        "    print(json.dumps([outcome(future) for future in futures]))\n",
        tmp_path,
        above="kept = bytearray(b'x') * (300 << 20)\n"
        "def write(size):\n"
        "    kept[0 : size << 20 : 4096] = bytes(size << 8)\n"
        "    return tasks.hold(1, 0.2) and size\n",
    )
    assert found == [150] * 4
    assert kills == 0


TWELVE = """\
with ProcessPoolExecutor(12, get_context('spawn'), memory='1MiB', **words) as pool:
    futures = [pool.submit(tasks.who_after, 0.8) for _ in range(12)]
    print(json.dumps([outcome(future) for future in futures]))
"""


@limited
@pytest.mark.hazard(21)
def test_what_workers_hold_before_their_first_task_is_counted(tmp_path):
    """Each takes 80 MiB at its start: of the twelve that were asked some fit."""
    words = "words = {'initializer': tasks.take_and_keep, 'initargs': (80,)}\n"
    found, kills = _run(500, words + TWELVE, tmp_path)
    _check_some(found, kills)


@limited
@pytest.mark.hazard(31)
def test_what_the_main_module_loads_is_counted_for_each_worker(tmp_path):
    """80 MiB above the guard: so much in the parent, and again in each worker."""
    kept = "kept = bytearray(b'x') * (80 << 20)\n"
    found, kills = _run(500, "words = {}\n" + TWELVE, tmp_path, above=kept)
    _check_some(found, kills)


def _check_some(found, kills):
    """All twelve have ended, in more than one worker and far fewer than were asked."""
    assert all(isinstance(pid, int) for pid in found)
    assert 2 <= len(set(found)) <= 5
    assert kills == 0


def _no_mounts():
    """Why no file system can be mounted here; None where it can."""
    if shutil.which("unshare") is None:
        return "not installed: unshare"
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no mount: {done.stderr.strip()}"


@pytest.mark.hazard(23)
@pytest.mark.skipif(_no_mounts() is not None, reason=str(_no_mounts()))
def test_a_bus_error_names_the_size_of_shared_memory():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tasks\n"
        "from coresize import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(1) as pool:\n"
        "    print(repr(pool.submit(tasks.overfill_shared_memory).exception()))\n"
        "    print(pool.submit(tasks.echo, 'after').result())\n"
    )
    inside = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", inside, "sh"),
            *(sys.executable, "-c", program, TESTS),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        check=True,
        timeout=60,
    )
    verdict, after = done.stdout.splitlines()
    assert verdict.startswith("TaskCrashedError(")
    assert "SIGBUS" in verdict
    assert "/dev/shm has 64.0 MiB" in verdict
    assert after == "after"


def _group(group, **env):
    """Two tasks in a container of 256 MiB."""
    limits = {"memory.max": str(256 << 20), "memory.oom.group": group}
    write = {f"p/own/{name}": text for name, text in limits.items()}
    return Scenario(write=write, join=["p/own"], program="grow.py", env=env)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    scenarios = {
        "group": _group("1", SIZE="150", NEED="10MiB"),
        "alone": _group("0", SIZE="10", NEED="10MiB"),
        "unguarded": _group("1", SIZE="150"),
    }
    answers = guest.run(scenarios, tmp_path_factory.mktemp("group"), cpus=2)
    return {name: answer for name, (answer,) in answers.items()}


GUEST = guest.missing() or guest.other_python()


@pytest.mark.hazard(6)
@pytest.mark.skipif(GUEST is not None, reason=str(GUEST))
def test_where_a_kill_takes_the_whole_container_none_is_let_happen(grown):
    """More is kept free, so one of the two is ended in time, and runs again."""
    out = grown["group"]["out"]
    assert out["done"] == ["150", "150"]
    assert out["kills"] == 0
    (warning,) = out["warnings"]
    assert warning.startswith("memory.oom.group is set")
    without = grown["alone"]["out"]
    assert without["warnings"] == []
    assert [3 * size for size in without["kept_free"]] <= out["kept_free"]


@pytest.mark.hazard(6)
@pytest.mark.skipif(GUEST is not None, reason=str(GUEST))
def test_a_pool_that_is_told_no_need_goes_with_the_whole_container(grown):
    assert grown["unguarded"] == {"code": -9, "out": None}
