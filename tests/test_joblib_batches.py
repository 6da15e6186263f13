"""The order in which the joblib backend gives batches to workers."""

from __future__ import annotations

import joblib
import pytest
import tasks

from coresize.adapters.joblib_calls import NAME


@pytest.mark.parametrize("others", [1, 3, 7])
def test_no_batch_waits_behind_a_long_one_of_a_short_function(tmp_path, others):
    """The long call ends only after the last call, which its worker must not hold."""
    pytest.importorskip("coresize.adapters.joblib")
    path = str(tmp_path / "last")
    call = joblib.delayed(tasks.take_part)
    roles = ["wait", *["none"] * others, "last"]
    with joblib.parallel_config(NAME, n_jobs=2):
        joblib.Parallel(batch_size=1)(call(path, "none") for _ in range(20))
        ran = joblib.Parallel(batch_size=1)(call(path, role) for role in roles)
    assert ran == roles
