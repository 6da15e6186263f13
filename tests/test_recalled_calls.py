"""Calls that one worker was given ahead, and another must make."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from coresize import ProcessPoolExecutor


PATIENCE = 15


def act(kind, folder):
    """Do nothing; or wait for a file; or write it."""
    if kind == "write":
        Path(folder, "written").touch()
    if kind == "wait":
        end = time.monotonic() + PATIENCE
        while not Path(folder, "written").exists():
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.01)
    return kind


@pytest.mark.parametrize("before", range(1, 4))
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_call_never_waits_behind_one_that_waits_for_it(tmp_path, method, before):
    import multiprocessing
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(act, ["short"] * 200, [tmp_path] * 200))  # they are known as short
        kinds = ["short"] * before + ["wait"] + ["short"] * 20 + ["write"] + ["short"] * 5
        futures = [pool.submit(act, kind, tmp_path) for kind in kinds]
        assert [future.result(PATIENCE) for future in futures] == kinds


def test_a_map(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(act, ["short"] * 2000, [tmp_path] * 2000))
        kinds = ["short"]*50+["wait"] + ["write"] + ["short"]*50
        assert list(pool.map(act, kinds, [tmp_path] * len(kinds))) == kinds
