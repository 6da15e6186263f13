"""Sweeps where cores or memory run out: what is recommended, beside trying all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from live import containers
from live.containers import Container


MIB = 1024**2

#: Before its neighbours on this machine, whose load comes and goes.
DETAILS = {"shares": 200_000, "env": {"TMPDIR": "/dev/shm"}}
TESTS = Path(__file__).parents[1]

#: Three runs. Each tries all counts, so the others say how good it is what it advises.
EXHAUSTIVE = """\
import json, sys
sys.path.insert(0, sys.argv[1])
import sized
from coresize import sweep

function, counts = getattr(sized, sys.argv[2]), json.loads(sys.argv[3])
runs = [sweep(function, range(8), counts, repeat=1) for _ in range(3)]
answers = []
for run in runs:
    others = [other.points for other in runs if other is not run]
    rates = {n: sum(points.get(n, 0.0) for points in others) for n in counts}
    answers.append(
        {
            "recommended": run.recommended,
            "share": rates[run.recommended] / max(rates.values()),
            "bound": run.memory_bound,
            "reason": run.reason,
            "points": run.points,
            "error": run.rows[-1].error,
        }
    )
print(json.dumps(answers))
"""


def exhaustive(container, function, counts, folder):
    words = ["-c", EXHAUSTIVE, str(TESTS / "live"), function, json.dumps(counts)]
    return json.loads(containers.run(container, words, folder))


in_containers = pytest.mark.skipif(
    containers.missing() is not None, reason=str(containers.missing())
)


@in_containers
def test_a_quota(tmp_path):
    """Four keep the one core busy that may be used, and two do not."""
    container = Container(quota=1.0, **DETAILS)
    for run in exhaustive(container, "compute_and_wait", [1, 2, 4, 8], tmp_path):
        assert run["share"] >= 0.9, run
        assert run["recommended"] in (4, 8), run


@in_containers
def test_memory(tmp_path):
    """Each worker holds 100 MB: eight do not fit, and two are as good as four."""
    container = Container(memory=600 * MIB, **DETAILS)
    for run in exhaustive(container, "hold_and_ask", [1, 2, 4, 8], tmp_path):
        assert run["share"] >= 0.9, run
        assert run["recommended"] <= run["bound"] < 8, run
        assert "killed for memory" in run["error"], run
        assert "the memory limit is 600.0 MiB" in run["error"], run


#: The kernel is to kill what grows, and not who counts.
COMMAND = """\
import json, sys
from coresize.sweeping.sweep import rounds_of_command

grow = (
    "import sys; open('/proc/self/oom_score_adj', 'w').write('1000')\\n"
    "b'x' * (int(sys.argv[1]) * 50 << 20)"
)
words = [sys.executable, "-c", grow, "{workers}"]
result = rounds_of_command(words, [1, 2, 10], repeat=1).run()
rows = {row.workers: row.error for row in result.rows}
print(json.dumps([result.recommended, rows, result.reason]))
"""


@in_containers
def test_a_command_that_dies_of_memory_is_a_row(tmp_path):
    container = Container(memory=256 * MIB, **DETAILS)
    out = containers.run(container, ["-c", COMMAND], tmp_path)
    recommended, rows, reason = json.loads(out)
    assert recommended in (1, 2)
    assert rows == {"1": "", "2": "", "10": "killed for memory"}
    assert "With 10 workers it failed: killed for memory." in reason


#: A pool that loses a process waits for its answer for ever.
POOL = """\
import multiprocessing, sys, time

def hold(size):
    open("/proc/self/oom_score_adj", "w").write("1000")
    kept = b"x" * (size << 20)
    time.sleep(0.5)

if __name__ == "__main__":
    workers = int(sys.argv[1])
    with multiprocessing.Pool(workers) as pool:
        pool.map(hold, [90] * workers, chunksize=1)
"""


@in_containers
def test_a_command_that_waits_for_who_was_killed_is_a_row(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    words = ["sweep", "--workers", "1,4", "--repeat", "1", "--json", "--"]
    words += [sys.executable, str(tmp_path / "pool.py"), "{workers}"]
    container = Container(memory=200 * MIB, **DETAILS)
    result = json.loads(containers.run(container, ["-m", "coresize", *words], tmp_path))
    assert list(result["points"]) == ["1"]
    assert result["rows"][1]["error"].startswith("killed for memory, and what was left")
    assert "With 4 workers it failed: killed for memory" in result["reason"]
