"""The examples, run as a user would, each in a copy of its folder."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(tmp_path):
    def run_in(example, *words):
        shutil.copytree(EXAMPLES / example, tmp_path, dirs_exist_ok=True)
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run_in


def test_cases_of_a_benchmark_have_a_status_each(run, tmp_path):
    done = run("test_cases", "-m", "coresize", "batch", "--config", "settings.yaml")
    assert done.returncode == 1
    assert "3 of 12 tasks have failed" in done.stderr
    merged = run(
        "test_cases", "-m", "coresize", "merge", "results.sqlite", "-o", "results.csv"
    )
    assert merged.returncode == 0, merged.stderr
    with (tmp_path / "results.csv").open() as table:
        statuses = Counter(row["status"] for row in csv.DictReader(table))
    assert statuses == {"ok": 9, "failed": 1, "crashed": 1, "timeout": 1}


def test_records_that_wait_give_the_same_results_on_threads(run):
    done = run("waiting_records", "records.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the same results, ")
    assert done.stderr.count("369 done in") == 2


def test_a_shard_that_was_killed_is_resumed_and_merged(run):
    done = run("sharded_users", "demo.py")
    assert done.returncode == 0, done.stderr
    assert "shards ended with 1" in done.stdout
    assert "merge ended with 2" in done.stdout
    assert done.stdout.endswith("60 users, 60 of them different\n")
