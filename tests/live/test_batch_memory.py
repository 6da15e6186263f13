"""Batches whose tasks or parts run out of memory, in real cgroups."""

from __future__ import annotations

import json

import pytest
from live import cgroups


pytestmark = pytest.mark.skipif(
    cgroups.missing() is not None, reason=str(cgroups.missing())
)

BATCH = """\
import json, sys, tasks
from coresize import run_batch
words = json.loads(sys.argv[1])
run = run_batch(tasks.take, [60, 61, 900, 62, 63], max_workers=2, progress=False,
                journal=sys.argv[2], **words)
found = sorted((outcome.index, outcome.status, outcome.value) for outcome in run)
print(json.dumps([found, run.report.kills, str(run.report)]))
"""


@pytest.mark.parametrize("words", [{}, {"memory": "60MiB"}, {"memory": "auto"}])
def test_a_task_that_is_too_large_is_the_only_one_lost(tmp_path, words):
    path = tmp_path / "out.sqlite"
    done = cgroups.run(500, BATCH, json.dumps(words), path)
    assert done.code == 0, done.err
    found, kills, report = json.loads(done.out)
    assert [status for _, status, _ in found] == ["ok", "ok", "oom", "ok", "ok"]
    assert [value for _, _, value in found] == [60, 61, None, 62, 63]
    assert kills >= 1
    assert " | 1 failed | " in report
    assert " | 1 oom | " in report
    assert f"{kills} kill" in report
    again = cgroups.run(1500, BATCH, json.dumps({**words, "retry": ["oom"]}), path)
    assert [status for _, status, _ in json.loads(again.out)[0]] == [
        *("skipped", "skipped", "ok", "skipped", "skipped")
    ]


#: A part that takes far more than there is when it runs for the first time.
SHARDS = """\
import subprocess, sys
part = (
    "import os, sys; sys.path.insert(0, sys.argv[1]); import tasks\\n"
    "if os.environ['CORESIZE_SHARD'] == '1/3':\\n"
    "    tasks.take_unless_there(80, 'note')\\n"
    "print('memory', os.environ['CORESIZE_MAX_MEMORY'])\\n"
)
words = [sys.executable, "-m", "coresize", "shards", "3", *sys.argv[2:], "--",
         sys.executable, "-c", part, sys.path[0]]
done = subprocess.run(words, cwd=sys.argv[1], capture_output=True, text=True)
print(done.stdout, done.stderr, done.returncode, sep="\\0", end="")
"""


def test_a_part_that_was_killed_for_memory_is_run_again_alone(tmp_path):
    done = cgroups.run(400, SHARDS, tmp_path, "--retry-oom")
    out, err, code = done.out.split("\0")
    assert (err, code) == ("", "0")
    assert "oom (-9)" in out
    assert [line.split()[1] for line in out.splitlines()[-3:]] == ["done"] * 3
    log = (tmp_path / "shards" / "shard-1-of-3.log").read_text()
    assert log.count("--- ") == 2
    other = (tmp_path / "shards" / "shard-0-of-3.log").read_text()
    assert other.count("--- ") == 1
    alone, shared = (int(text.split("memory ")[1]) for text in (log, other))
    assert alone > 2.5 * shared
    assert done.kills == 1


def test_otherwise_it_is_told(tmp_path):
    done = cgroups.run(400, SHARDS, tmp_path)
    out, err, code = done.out.split("\0")
    assert code == "12"
    assert [line.split()[1] for line in out.splitlines()[-3:]] == [
        *("done", "oom", "done")
    ]
    assert err.count("CORESIZE_SHARD=") == 1
    assert "CORESIZE_SHARD=1/3" in err
