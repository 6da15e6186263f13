"""Calls that a worker was given ahead, and another one makes, as the first is late.

In the standard library, a call never waits behind another one while a worker is idle. A
worker of ours is given calls ahead whose function was quick so far.
"""

from __future__ import annotations

import random
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from coresize import ProcessPoolExecutor
from coresize.host import MARK
from coresize.processes import orphans, task_limits


PATIENCE = 120

linux = pytest.mark.skipif(sys.platform != "linux", reason="by a limit of Linux")


def act(kind, folder, _large=b""):
    """Do nothing; or wait for a file; or write it; or sleep."""
    if kind == "write":
        Path(folder, "written").touch()
    if kind == "wait":
        end = time.monotonic() + PATIENCE
        while not Path(folder, "written").exists():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.01)
    if isinstance(kind, float):
        time.sleep(kind)
    return kind


def learn(pool, folder):
    """Let the pool learn that the function is quick."""
    assert len(list(pool.map(act, ["quick"] * 300, [folder] * 300))) == 300


@linux
@pytest.mark.parametrize(
    ("method", "before"), [("forkserver", 1), ("forkserver", 2), ("spawn", 3)]
)
def test_a_call_does_not_wait_for_ever_behind_one_that_waits_for_it(
    tmp_path, method, before
):
    kinds = ["quick"] * before + ["wait"] + ["quick"] * 20 + ["write"] + ["quick"] * 5
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        learn(pool, tmp_path)
        futures = [pool.submit(act, kind, tmp_path) for kind in kinds]
        assert [future.result(PATIENCE) for future in futures] == kinds


@linux
@pytest.mark.parametrize("between", [0, 30])
def test_nor_does_a_call_of_a_map(tmp_path, between):
    """A chunk of calls is split: the calls that have not begun go elsewhere."""
    kinds = ["quick"] * 50 + ["wait"] + ["quick"] * between + ["write"] + ["quick"] * 50
    with ProcessPoolExecutor(2) as pool:
        learn(pool, tmp_path)
        assert list(pool.map(act, kinds, [tmp_path] * len(kinds))) == kinds


@linux
def test_nor_one_with_large_arguments(tmp_path):
    large = bytes(3_000_000)
    kinds = ["quick", "wait", *["quick"] * 6, "write", "quick"]
    with ProcessPoolExecutor(2) as pool:
        learn(pool, tmp_path)
        futures = [pool.submit(act, kind, tmp_path, large) for kind in kinds]
        assert [future.result(PATIENCE) for future in futures] == kinds


@linux
def test_a_worker_goes_on_after_its_calls_were_recalled(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            learn(pool, folder)
            kinds = ["wait", *["quick"] * 5, "write", *["quick"] * 5]
            futures = [pool.submit(act, kind, folder) for kind in kinds]
            assert [future.result(PATIENCE) for future in futures] == kinds


def note(folder, number, seconds):
    """Write that a call has begun, which must happen once."""
    with Path(folder, "begun").open("a") as file:
        file.write(f"{number}\n")
    if seconds:
        time.sleep(seconds)
    return number


@linux
def test_each_call_is_made_once_and_answered_in_order(tmp_path):
    chance = random.Random(0)
    seconds = [chance.choice([0.0] * 60 + [0.3, 0.11]) for _ in range(400)]
    numbers = range(400)
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(note, [tmp_path] * 300, range(-300, 0), [0.0] * 300))
        futures = [
            pool.submit(note, tmp_path, number, seconds[number]) for number in numbers
        ]
        again = [number + 1000 for number in numbers]
        mapped = pool.map(note, [tmp_path] * 400, again, seconds)
        assert [future.result(PATIENCE) for future in futures] == [*numbers]
        assert list(mapped) == again
    begun = Path(tmp_path, "begun").read_text().split()
    assert sorted(map(int, begun)) == [*range(-300, 400), *again]


# --- The number in the limit ------------------------------------------------------


def hold(pipe, mark):
    """Begin the tasks that it is told, and answer what the limit said."""
    import os

    os.environ[MARK] = mark
    begin = task_limits.setter()
    for number in iter(pipe.recv, None):
        pipe.send(begin(number))


@linux
def test_a_worker_and_its_parent_agree_who_makes_a_task():
    mark = orphans.new()
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=hold, args=(theirs, mark))
    process.start()

    def begin(number):
        ours.send(number)
        return ours.recv()

    try:
        assert [begin(5), begin(6)] == [None, None]
        assert task_limits.recall(process.pid, mark, 6) == 6
        assert task_limits.task_of(process.pid, mark) == 6
        assert task_limits.recall(process.pid, mark, 6) is None  # it is recalled
        assert [begin(7), begin(8)] == [6, None]
        assert task_limits.recall(process.pid, mark, 6) == 8  # it has gone on meanwhile
        assert begin(9) == 6
        assert begin(2**32 + 1) is None
        assert task_limits.recall(process.pid, mark, 2**32 - 1) == 2**32 + 1
        assert task_limits.recall(process.pid, orphans.new(), 9) is None
    finally:
        ours.send(None)
        process.join()
    assert task_limits.recall(process.pid, mark, 9) is None


@linux
def test_a_limit_of_the_users_is_left_alone(tmp_path):
    with ProcessPoolExecutor(2, initializer=_set_limit) as pool:
        learn(pool, tmp_path)
        futures = [pool.submit(act, kind, tmp_path) for kind in [0.5, *["quick"] * 9]]
        assert [future.result(PATIENCE) for future in futures] == [0.5, *["quick"] * 9]


def _set_limit():
    import resource

    resource.setrlimit(resource.RLIMIT_RTTIME, (10**9, 10**9))
