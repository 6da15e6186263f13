"""A result that is longer than any journal can hold, of its true length."""

from __future__ import annotations

import pytest

from coresize import run_batch


def long(item):
    """More than SQLite's limit for a row (SQLITE_MAX_LENGTH, 10**9) as written."""
    return b"x" * 1_000_000_001 if item == 1 else item


def long_text(item):
    return "x" * 1_000_000_001 if item == 1 else item


@pytest.mark.parametrize(
    ("function", "serializer"), [(long, "pickle"), (long_text, "json")]
)
def test_a_result_that_no_journal_holds_is_one_failed_task(
    tmp_path, function, serializer
):
    for good in ("ok", "skipped"):
        run = run_batch(
            function,
            [1, 2],
            journal=tmp_path / "out.sqlite",
            serializer=serializer,
            max_workers=1,
            progress=False,
        )
        found = {one.key: one.status for one in run}
        assert found == {"1": "failed", "2": good}
