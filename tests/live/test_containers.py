"""What coresize answers in real containers, cgroup v1."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from live import containers
from live.containers import Container

from coresize import units
from coresize.detection import available
from coresize.recording import hostfile


pytestmark = pytest.mark.skipif(
    containers.missing() is not None, reason=str(containers.missing())
)

MIB = 1024**2
TESTS = Path(__file__).parents[1]
CPUS = os.sysconf("SC_NPROCESSORS_ONLN")

#: name: (container, quota, limit in cores, memory limit)
CASES = {
    "nothing": (Container(), None, CPUS, None),
    "leaf": (Container(quota=1.5, memory=512 * MIB), 1.5, 1.5, 512 * MIB),
    "leaf-host-view": (
        Container(quota=1.5, memory=512 * MIB, view="host"),
        1.5,
        1.5,
        512 * MIB,
    ),
    "leaf-shared-view": (
        Container(quota=1.5, memory=512 * MIB, view="shared"),
        1.5,
        1.5,
        512 * MIB,
    ),
    "parent-visible": (
        Container(parent_quota=1.5, parent_memory=512 * MIB, view="shared"),
        1.5,
        1.5,
        512 * MIB,
    ),
    # The parent's quota is out of sight; its memory limit is in memory.stat.
    "parent-out-of-sight": (
        Container(parent_quota=1.5, parent_memory=512 * MIB),
        None,
        CPUS,
        512 * MIB,
    ),
    "both": (
        Container(
            quota=1.0,
            memory=256 * MIB,
            parent_quota=1.5,
            parent_memory=512 * MIB,
            view="shared",
        ),
        1.0,
        1.0,
        256 * MIB,
    ),
    "cpuset": (Container(cpuset="0"), None, 1, None),
    "cpuset-below-quota": (Container(cpuset="0", quota=1.5), 1.5, 1, None),
    "far-above-the-cpus": (Container(quota=8.342), 8.342, min(8.342, CPUS), None),
    "below-one-cpu": (Container(quota=0.05), 0.05, 0.05, None),
    "override": (
        Container(quota=0.5, env={"CORESIZE_OVERRIDE_CORES": "8.5"}),
        0.5,
        8.5,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_limits(name, tmp_path):
    container, quota, limit, memory = CASES[name]
    answer = containers.report(container, tmp_path)
    assert (answer["cpu"]["quota"], answer["cpu"]["limit"]) == (quota, limit)
    assert answer["memory"]["limit"] == memory


@pytest.mark.hazard(11)
def test_what_is_available_is_below_the_limit(tmp_path):
    answer = containers.report(Container(memory=512 * MIB), tmp_path)
    assert 256 * MIB < answer["memory"]["available"] < 512 * MIB


def test_hidden_cgroups_are_a_gap(tmp_path):
    answer = containers.report(Container(quota=0.5, view="hidden"), tmp_path)
    assert answer["cpu"]["quota"] is None
    assert {gap["resource"] for gap in answer["gaps"]} == {"cpu", "memory"}


def test_a_change_while_running_is_seen_by_the_next_call(tmp_path):
    program = (
        "from coresize import detect\n"
        "while True: print(detect().cpu.quota, flush=True); input()"
    )
    with containers.started(Container(quota=1.5), ["-c", program], tmp_path) as process:
        assert process.stdout.readline() == "1.5\n"
        containers.write_quota(0.5)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "0.5\n"
        process.kill()


def test_replay_answers_as_the_container_did(tmp_path):
    container = Container(quota=1.5, memory=512 * MIB)
    program = (
        "import sys; from coresize.cli import main\n"
        "main(['record', '-']); print('#'); sys.stdout.flush(); main(['--json'])"
    )
    recorded, _, answer = containers.run(
        container, ["-c", program], tmp_path
    ).partition("#\n")
    limits = available.detect(hostfile.loads(recorded, "recorded").host)
    then = json.loads(answer)
    assert limits.cpu.binding.as_dict() == then["cpu"]["binding"]
    assert limits.memory.binding.as_dict() == then["memory"]["binding"]
    assert [fact.where for fact in limits.facts] == [
        fact["where"] for fact in then["facts"]
    ]


def test_the_command_prints_an_integer(tmp_path):
    out = containers.run(Container(quota=1.5), ["-m", "coresize", "cores"], tmp_path)
    assert units.positive(out) == min(2, CPUS)


# --- Workers planned in 1 GiB -------------------------------------------------

#: So many workers side by side, each with a task that was measured before: 200 MB.
WORKERS = """\
import multiprocessing, sys
sys.path.insert(0, sys.argv[1])
import tasks
from coresize import plan_workers, profile_task

def kills():
    with open("/sys/fs/cgroup/memory/memory.oom_control") as lines:
        return sum(int(line.split()[1]) for line in lines if "oom_kill " in line)

profile = profile_task(tasks.hold, 191, 0.1)
plan = plan_workers(profile=profile, cpus=0.01)
count = plan.workers if sys.argv[2] == "plan" else 2 * plan.bounds["memory"]
spawn = multiprocessing.get_context("spawn")
gate = spawn.Barrier(count)
workers = [
    spawn.Process(target=tasks.hold_together, args=(191, 2.0, gate))
    for _ in range(count)
]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(plan.binding, plan.workers, count, kills(), *(w.exitcode for w in workers))
"""


@pytest.mark.parametrize("many", ["plan", "more"])
def test_a_plan_is_safe_and_not_timid(many, tmp_path):
    words = ["-c", WORKERS, str(TESTS), many]
    out = containers.run(Container(memory=1024 * MIB), words, tmp_path).split()
    binding, workers, count, kills, *codes = out
    assert binding == "memory"
    assert int(workers) >= 3
    assert len(codes) == int(count)
    if many == "plan":
        assert (kills, set(codes)) == ("0", {"0"})
    else:
        assert int(kills) >= 1
        assert "-9" in codes


CROWDED = """\
import json, sys
sys.path.insert(0, sys.argv[1])
import tasks
from coresize import plan_workers, profile_task, run_batch

if __name__ == "__main__":
    profile = profile_task(tasks.spin, 0.3)
    run_batch(tasks.spin, [0.2] * 8, max_workers=4, history=True).wait()
    plan = plan_workers(profile="history:tasks:spin")
    print(json.dumps([profile.cpu_share, plan.workers, plan.reason]))
"""


def test_what_a_quota_takes_is_not_taken_for_waiting(tmp_path):
    """A task that computes is throttled half of the time, and does not wait."""
    (tmp_path / "program.py").write_text(CROWDED)
    container = Container(
        quota=0.5, env={"XDG_STATE_HOME": "/dev/shm", "TMPDIR": "/dev/shm"}
    )
    words = [str(tmp_path / "program.py"), str(Path(__file__).parents[1])]
    share, workers, reason = json.loads(containers.run(container, words, tmp_path))
    assert share > 0.8
    assert workers == 1, reason
