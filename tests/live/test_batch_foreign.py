"""Batches over the executors of other libraries."""

from __future__ import annotations

import loky
import pytest
import tasks

from coresize import run_batch


@pytest.fixture(scope="module")
def executor():
    with loky.ProcessPoolExecutor(2) as executor:
        yield executor


@pytest.mark.parametrize("serializer", [None, "json", "pickle"])
def test_loky_runs_a_batch_as_any_other(tmp_path, executor, serializer):
    words = {}
    if serializer is not None:
        words = {"journal": tmp_path / "out.sqlite", "serializer": serializer}
    for _ in range(2):
        results = run_batch(
            tasks.square_unless_odd,
            range(20),
            executor=executor,
            progress=False,
            **words,
        ).results()
        assert results[::2] == [number**2 for number in range(0, 20, 2)]
        assert all(isinstance(one, Exception) for one in results[1::2])


def test_what_breaks_it_is_told():
    with loky.ProcessPoolExecutor(1) as broken:
        run = run_batch(
            tasks.end_by, range(50), executor=broken, buffersize=2, progress=False
        )
        seen = []
        with pytest.raises(Exception, match="the executor is broken"):
            seen.extend(run)
    assert {outcome.status for outcome in seen} <= {"ok", "crashed"}
    assert 3 in {outcome.index for outcome in seen if outcome.status == "crashed"}
