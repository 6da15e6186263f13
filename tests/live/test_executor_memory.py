"""The pool under memory pressure, in real cgroups with real kills."""

from __future__ import annotations

import json

import pytest
from live import cgroups


pytestmark = pytest.mark.skipif(
    cgroups.missing() is not None, reason=str(cgroups.missing())
)

#: Prints what became of each of several calls, as the name of its error or its value.
HEAD = """\
import concurrent.futures, json, tasks, time, warnings
from coresize import ProcessPoolExecutor

def outcome(future):
    error = future.exception()
    return future.result() if error is None else type(error).__name__

def outcomes(pool, function, every):
    futures = [pool.submit(function, *words) for words in every]
    return [outcome(future) for future in futures]
"""


def run(mebibytes, program, *words):
    done = cgroups.run(mebibytes, HEAD + program, *words)
    assert done.code == 0, done.err
    return json.loads(done.out), done


MIXED = [60] * 4 + [250] + [60] * 4 + [250] + [60] * 4


@pytest.mark.hazard(1)
def test_one_that_takes_all_is_the_only_one_lost():
    found, done = run(
        500,
        "with ProcessPoolExecutor(2) as pool:\n"
        "    futures = [pool.submit(tasks.echo, i) for i in range(3)]\n"
        "    futures.append(pool.submit(tasks.take_for_ever))\n"
        "    futures += [pool.submit(tasks.echo, i) for i in range(4, 8)]\n"
        "    print(json.dumps([outcome(future) for future in futures]))\n",
    )
    assert found == [0, 1, 2, "TaskOutOfMemoryError", 4, 5, 6, 7]
    assert done.kills == 1


def test_a_measured_task_that_takes_all_says_so():
    found, _ = run(
        300,
        "from coresize import profile_task\n"
        "try:\n"
        "    profile_task(tasks.take_for_ever)\n"
        "except Exception as error:\n"
        "    print(json.dumps([type(error).__name__, str(error)]))\n",
    )
    assert found[0] == "TaskOutOfMemoryError"
    assert "the memory limit is 300.0 MiB" in found[1]


@pytest.mark.hazard(5)
def test_the_parent_outlives_its_workers():
    """It is the largest by far, and the kernel would choose it."""
    found, _ = run(
        600,
        "kept = bytearray(b'x') * (350 << 20)\n"
        "with ProcessPoolExecutor(2) as pool:\n"
        "    print(json.dumps(outcomes(pool, tasks.take_for_ever, [(), ()])))\n",
    )
    assert found == ["TaskOutOfMemoryError"] * 2


@pytest.mark.hazard(8)
@pytest.mark.parametrize("memory", ["'auto'", "lambda size: size << 20", "'260MiB'"])
def test_the_run_that_defeats_others(memory):
    """14 tasks, 12 of 60 MiB and 2 of 250, in 600 MiB, and 8 workers asked."""
    found, _ = run(
        600,
        f"with ProcessPoolExecutor(8, memory={memory}) as pool:\n"
        f"    print(json.dumps(outcomes(pool, tasks.take, zip({MIXED}))))\n",
    )
    assert found == MIXED


@pytest.mark.parametrize("workers", [1, 4])
def test_alone_is_without_what_others_keep(workers):
    """The last fits into 400 MiB, but not beside workers that keep some of it."""
    found, done = run(
        400,
        "need = lambda size: size << 20\n"
        f"with ProcessPoolExecutor({workers}, memory=need) as pool:\n"
        "    print(json.dumps(outcomes(pool, tasks.take, zip([20] * 7 + [345]))))\n",
    )
    assert found == [20] * 7 + [345]
    assert done.kills <= 1


def test_the_standard_pool_returns_nothing():
    found, _ = run(
        600,
        "found = []\n"
        "with concurrent.futures.ProcessPoolExecutor(8) as pool:\n"
        "    try:\n"
        f"        found = list(pool.map(tasks.take, {MIXED}))\n"
        "    except concurrent.futures.BrokenExecutor:\n"
        "        pass\n"
        "print(json.dumps(found))\n",
    )
    assert found == []


@pytest.mark.hazard(9)
def test_a_task_larger_than_all_memory_is_given_up_and_the_rest_goes_on():
    found, done = run(
        600,
        "with ProcessPoolExecutor(4, memory='auto') as pool:\n"
        "    print(json.dumps(outcomes(pool, tasks.take, [(60,), (700,), (60,)])))\n",
    )
    assert found == [60, "TaskOutOfMemoryError", 60]
    assert done.kills <= 2


def test_without_retries_none_runs_twice(tmp_path):
    for retries, found in ((1, [10, 25]), (0, [10, "TaskOutOfMemoryError"])):
        path = tmp_path / str(retries)
        got, _ = run(
            300,
            "import sys\n"
            "words = {'memory': '20MiB', 'oom_retries': int(sys.argv[2])}\n"
            "with ProcessPoolExecutor(2, **words) as pool:\n"
            "    beside = pool.submit(tasks.hold, 60, 2.0)\n"
            "    time.sleep(0.5)\n"
            "    futures = [pool.submit(tasks.take, 10),\n"
            "               pool.submit(tasks.take_unless_there, 25, sys.argv[1])]\n"
            "    print(json.dumps([outcome(future) for future in futures]))\n",
            path,
            retries,
        )
        assert got == found


def test_a_kill_of_another_kind_is_told_apart():
    found, done = run(
        300,
        "with ProcessPoolExecutor(2) as pool:\n"
        "    names = [('SIGKILL',), ('SIGSEGV',)]\n"
        "    first = outcomes(pool, tasks.take_for_ever, [()])\n"
        "    time.sleep(0.5)\n"
        "    print(json.dumps(first + outcomes(pool, tasks.end_self_by, names)))\n",
    )
    assert found == ["TaskOutOfMemoryError", "TaskKilledError", "TaskCrashedError"]
    assert done.kills == 1


def test_the_youngest_is_ended_before_the_kernel_chooses():
    """Two that grow slowly beyond what was declared: one is ended, and runs again."""
    found, done = run(
        400,
        "with ProcessPoolExecutor(2, memory='20MiB') as pool:\n"
        "    futures = [pool.submit(tasks.grow_slowly, 230, 1.5) for _ in range(2)]\n"
        "    print(json.dumps([outcome(future) for future in futures]))\n",
    )
    assert found == [230, 230]
    assert done.kills == 0


@pytest.mark.hazard(12)
def test_memory_of_subprocesses_counts():
    """What a task starts is learned as its need: so not all run at once."""
    found, done = run(
        500,
        "with ProcessPoolExecutor(8, memory='auto') as pool:\n"
        "    futures = [pool.submit(tasks.children, 150, 1) for _ in range(6)]\n"
        "    print(json.dumps([outcome(future) for future in futures]))\n",
    )
    assert found == [None] * 6
    assert done.kills == 0
