"""CORESIZE_SHARD and CORESIZE_STATUS are for one batch of one program, and no task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coresize.batch.journal import status


PATIENCE = 120

#: What users write: a batch over users, whose tasks need more of coresize.
PROGRAM = '''
import concurrent.futures, json, os, subprocess, sys, threading
sys.path.insert(0, sys.argv[1])
import tasks
from coresize import (
    ConfigError, ProcessPoolExecutor, SerialExecutor, ThreadPoolExecutor, parallel_map,
    run_batch,
)

SERIAL = {"executor": "serial", "progress": False}
INNER = """
import sys
sys.path.insert(0, sys.argv[1])
import tasks
from coresize import run_batch
print(len(run_batch(tasks.square, range(8), executor="serial").results()))
"""


def by_batch(_=None):
    return len(run_batch(tasks.square, range(8), **SERIAL).results())


def by_map(_=None):
    return len(parallel_map(tasks.square, range(8), **SERIAL))


def by_program(_=None):
    done = subprocess.run([sys.executable, "-c", INNER, sys.argv[1]],
                          capture_output=True, text=True, check=True)
    return int(done.stdout)


def by_journal(user):
    path = f"user-{user}.sqlite"
    return len(run_batch(tasks.square, range(8), journal=path, **SERIAL).results())


def by_auto(_=None):
    try:
        run_batch(tasks.square, range(8), shard="auto", **SERIAL)
    except ConfigError as error:
        return "a task has no place in an array" in str(error)


def variables(_=None):
    return sorted(name for name in ("CORESIZE_SHARD", "CORESIZE_STATUS")
                  if name in os.environ)


def refusal(call):
    try:
        call()
    except ConfigError as error:
        return str(error)


def executor_of(name):
    from multiprocessing import get_context
    if name == "stdlib processes":
        context = get_context("spawn")
        return concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    if name == "stdlib threads":
        return concurrent.futures.ThreadPoolExecutor(2)
    return name


def in_batch(name, inner):
    executor = executor_of(name)
    run = run_batch(inner, range(8), executor=executor, progress=False)
    found = run.results()
    if not isinstance(executor, str):
        executor.shutdown()
    return found


def in_pool(name, inner):
    made = {"process": ProcessPoolExecutor, "thread": ThreadPoolExecutor,
            "serial": SerialExecutor}.get(name)
    with made(2) if made else executor_of(name) as pool:
        return list(pool.map(inner, range(4)))


def in_joblib(backend, inner):
    import joblib
    with joblib.parallel_config(backend, n_jobs=2):
        return joblib.Parallel()(joblib.delayed(inner)(n) for n in range(4))


if __name__ == "__main__":
    print(json.dumps(eval(sys.argv[2])))
'''


@pytest.fixture
def program(tmp_path):
    """Evaluate an expression in the program, as the part 1/2."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)

    def run(expression, **env):
        done = subprocess.run(
            [sys.executable, path, Path(__file__).parent, expression],
            env={**os.environ, "CORESIZE_SHARD": "1/2", **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


EXECUTORS = [
    *("process", "thread", "serial", "joblib", "stdlib processes", "stdlib threads")
]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_batch_is_split_and_what_its_tasks_run_is_not(program, executor):
    assert program(f"in_batch({executor!r}, by_batch)") == [8] * 4


@pytest.mark.parametrize("inner", ["by_map", "by_program", "by_journal"])
@pytest.mark.parametrize("executor", ["process", "thread"])
def test_however_a_task_runs_one(program, executor, inner):
    assert program(f"in_batch({executor!r}, {inner})") == [8] * 4


@pytest.mark.parametrize("executor", ["process", "joblib", "stdlib processes"])
def test_workers_do_not_inherit_them(program, executor, tmp_path):
    env = {"CORESIZE_STATUS": str(tmp_path / "status.json")}
    assert program(f"in_batch({executor!r}, variables)", **env) == [[]] * 4


@pytest.mark.parametrize("executor", ["process", "thread", "serial", *EXECUTORS[4:]])
def test_a_task_of_a_pool_is_no_program(program, executor):
    assert program(f"in_pool({executor!r}, by_batch)") == [8] * 4


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_a_job_of_joblib_is_no_program(program, backend):
    assert program(f"in_joblib({backend!r}, by_batch)") == [8] * 4


def test_a_map_is_never_split(program):
    assert program("[by_map(), by_batch(), by_map()]") == [8, 4, 8]


def test_what_the_program_starts_later_is_not_split_again(program):
    assert program("[by_batch(), by_program()]") == [4, 8]
    # Before, it is what the program is for: a driver of the program that is meant.
    assert program("[by_program(), by_program()]") == [4, 4]


ARRAY = {
    "CORESIZE_SHARD": "auto",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "1",
    "SLURM_ARRAY_TASK_COUNT": "2",
}


@pytest.mark.parametrize("executor", ["process", "thread", "serial"])
def test_the_place_in_an_array_is_not_inherited(program, executor):
    assert program(f"in_batch({executor!r}, by_batch)", **ARRAY) == [8] * 4
    assert program(f"in_batch({executor!r}, by_auto)", **ARRAY) == [True] * 4


BATCH = "len(run_batch(tasks.square, range(8), **SERIAL, {}).results())"


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("shard='1/2'", "shard='1/2'", [4, 4]),
        ("", "shard='1/2'", [4, 4]),
        ("", "shard='0/1'", [4, 8]),
        ("shard='0/1'", "", [8, 4]),
        ("journal='a'", "journal='./a'", [4, 4]),
        ("shard='1/2', journal='a'", "journal='a'", [4, 4]),
    ],
)
def test_a_second_batch_says_which_part_it_is(program, first, second, found):
    assert program(f"[{BATCH.format(first)}, {BATCH.format(second)}]") == found


@pytest.mark.parametrize(
    ("first", "second"),
    [("", ""), ("journal='a'", "journal='b'"), ("shard='1/2'", "")],
)
def test_else_it_is_refused(program, first, second):
    expression = f"[{BATCH.format(first)}, refusal(lambda: {BATCH.format(second)})]"
    done = program(expression)
    assert done[0] == 4
    assert "CORESIZE_SHARD='1/2'" in done[1]
    assert 'shard="1/2" for that part, shard="0/1" for all items' in done[1]


def test_a_batch_that_could_not_begin_bars_none(program):
    expression = (
        "[refusal(lambda: run_batch(tasks.square, [1, 1], key=str, **SERIAL)), "
        f"{BATCH.format('')}]"
    )
    assert program(expression)[1] == 4


# --- The status ---------------------------------------------------------------


def test_the_status_is_of_the_first_batch_alone(program, tmp_path):
    path = tmp_path / "status.json"
    words = "shard='0/1', on_error='collect'"
    expression = f"[by_map(), {BATCH.format('')}, {BATCH.format(words)}, by_map()]"
    assert program(expression, CORESIZE_STATUS=str(path)) == [8, 4, 8, 8]
    found = status.read(str(path))
    assert (found["shard"], found["done"], found["state"]) == ("1/2", 4, "done")


@pytest.mark.parametrize("executor", ["process", "thread", "serial"])
def test_a_task_writes_none(program, tmp_path, executor):
    path = tmp_path / "status.json"
    expression = f"in_batch({executor!r}, by_program)"
    assert program(expression, CORESIZE_STATUS=str(path)) == [8] * 4
    found = status.read(str(path))
    assert (found["shard"], found["done"], found["state"]) == ("1/2", 4, "done")


# --- The commands -------------------------------------------------------------

MAIN = """
import sys
sys.path.insert(0, sys.argv[1])
import tasks
from coresize import run_batch
name = f"part-{sys.argv[2].replace('/', '-')}.sqlite"
run_batch(tasks.square, range(20), executor="serial", journal=name).wait()
"""


@pytest.mark.parametrize("inner", [1, 3])
def test_shards_of_shards_are_parts_of_parts(run, tmp_path, inner):
    (tmp_path / "main.py").write_text(MAIN)
    words = [sys.executable, "main.py", Path(__file__).parent]
    start = 'exec "$0" "$@" "$CORESIZE_SHARD"'
    nested = [sys.executable, "-m", "coresize", "shards", inner, "--"]
    done = run("shards", 2, "--", *nested, "sh", "-c", start, *words)
    assert done.returncode == 0, done.stderr
    parts = sorted(tmp_path.glob("part-*.sqlite"))
    assert len(parts) == 2 * inner
    merged = run("merge", *parts, "-o", "all.csv")
    assert "20 tasks in all.csv" in merged.stdout, merged.stderr


def test_a_batch_of_the_command_is_the_one_that_is_meant(run, tmp_path):
    (tmp_path / "jobs.py").write_text(
        "import os\nfrom coresize import parallel_map\n"
        "def count(item):\n"
        "    return len(parallel_map(abs, range(8), executor='serial'))\n"
    )
    (tmp_path / "items.txt").write_text("\n".join(map(str, range(8))))
    start = f'exec {sys.executable} -m coresize batch "$@" --journal "$0.sqlite"'
    words = ["jobs:count", "--items", "items.txt"]
    done = run("shards", 2, "--", "sh", "-c", start, "part-{index}", *words)
    assert done.returncode == 0, done.stderr
    assert "4/4" in done.stdout
    merged = run("merge", "part-0.sqlite", "part-1.sqlite", "-o", "all.jsonl")
    assert "8 tasks" in merged.stdout, merged.stderr
    rows = map(json.loads, (tmp_path / "all.jsonl").read_text().splitlines())
    assert [row["value"] for row in rows] == [8] * 8


@pytest.mark.parametrize("left", [False, True])
def test_a_merge_knows_how_many_items_there_were(run, tmp_path, left):
    """Of a generator as well, which does not tell before its end."""
    (tmp_path / "main.py").write_text(
        MAIN.replace("range(20)", "iter(range(20))").replace(
            ".wait()", ".__iter__().__next__()" if left else ".wait()"
        )
    )
    words = [sys.executable, "main.py", Path(__file__).parent, "{shard}"]
    assert run("shards", 2, "--", *words).returncode == 0
    merged = run("merge", "part-0-2.sqlite", "-o", "all.csv")
    assert merged.returncode == 2
    if left:
        assert "did not read its input to the end" in merged.stderr
    else:
        assert "10 items (counted from 0) were not begun" in merged.stderr
