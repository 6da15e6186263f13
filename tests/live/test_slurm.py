"""Shards on a real Slurm: what is written is taken, killed, requeued and goes on."""

from __future__ import annotations

import json
import subprocess

import pytest
from live import slurm


pytestmark = pytest.mark.skipif(
    slurm.missing() is not None, reason=str(slurm.missing())
)

JOBS = """\
import os, time
def take(mebibytes):
    kept = bytearray(b"x") * (mebibytes << 20)
    return len(kept) >> 20
def waits(item):
    open(f"begun-{item}", "a").close()
    while not os.path.exists("go"):
        time.sleep(0.05)
    return item
"""
SHOW = """\
import json, os, sys
names = "CORESIZE_SHARD", "CORESIZE_SHARDS", "OMP_NUM_THREADS", "SLURM_MEM_PER_NODE"
print(json.dumps([sys.argv[1:], *map(os.environ.get, names)]))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster for all tests."""
    with slurm.Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def call(cluster, tmp_path):
    """Call ``coresize`` where a user of the cluster would."""
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "show.py").write_text(SHOW)
    env = {**cluster.env, "XDG_STATE_HOME": str(tmp_path)}

    def call(*words):
        done = subprocess.run(
            ["coresize", *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


ON = ("--on", "slurm", "--submit")
SERIAL = ("--executor", "serial")


def states(jobs):
    return [
        (jobs[index]["JobState"], jobs[index]["ExitCode"]) for index in sorted(jobs)
    ]


def test_words_reach_the_program_through_sbatch(cluster, call, tmp_path):
    words = ["a b", "it's", "$HOME", "`id`", "\n#SBATCH --mem=1M\n", "", "{shard}"]
    more = ("--cpus", "2", "--memory", "200MiB", "--logs", "my 100% logs")
    number = call("shards", "2", *more, *ON, "--", "python", "show.py", *words)
    assert states(cluster.ended(number)) == [("COMPLETED", "0:0")] * 2
    for index in range(2):
        log = tmp_path / "my 100% logs" / f"{number}_{index}.log"
        shard = f"{index}/2"
        assert json.loads(log.read_text().splitlines()[-1]) == [
            [*words[:-1], shard],
            *(shard, "0-1", "2", "200"),
        ]


@pytest.fixture
def first(cluster, call, tmp_path):
    """Submit two shards, of which the second one needs more memory than it has."""
    (tmp_path / "items.jsonl").write_text("1\n320\n")

    def first(*more):
        batch = ("coresize", "batch", "jobs:take", "--items", "items.jsonl", *more)
        line = (*ON, "--", *batch, "--journal", "o-{index}.db")
        number = call("shards", "2", "--memory", "300MiB", *line)
        (other, _), (state, _) = states(cluster.ended(number))
        assert (other, state) == ("COMPLETED", "OUT_OF_MEMORY")

    return first


def test_a_shard_that_ran_out_of_memory_runs_again_with_more_alone(
    cluster, call, first
):
    first()
    jobs = cluster.ended(call("shards", "--again", "oom", *ON))
    assert [*jobs] == ["1"]
    assert states(jobs) == [("COMPLETED", "0:0")]
    assert call("merge", "o-0.db", "o-1.db", "-o", "all.csv") == "2 tasks in all.csv"


def test_a_shard_that_was_killed_for_memory_as_a_whole_is_known_too(call, first):
    first(*SERIAL)
    printed = call("shards", "--again", "oom", "--on", "slurm").splitlines()
    assert {"#SBATCH --array=1", "#SBATCH --mem=450M"} <= {*printed}


def test_shards_that_were_stopped_or_requeued_go_on(cluster, call, tmp_path):
    (tmp_path / "items.jsonl").write_text("0\n1\n")
    batch = ("coresize", "batch", "jobs:waits", "--items", "items.jsonl", *SERIAL)
    more = ("--memory", "200MiB", "--time", "10m")
    line = (*more, *ON, "--", *batch, "--journal", "o-{index}.db")
    number = call("shards", "2", *line)
    slurm.wait_for(lambda: all((tmp_path / f"begun-{i}").exists() for i in range(2)))

    # As Slurm does before the time limit: --signal=B:TERM.
    cluster.ask("scancel", "--batch", "--signal=TERM", f"{number}_0")
    slurm.wait_for(lambda: cluster.jobs(number)["0"]["ExitCode"] == "75:0")
    # As Slurm does when a node fails, or a job of more weight needs it.
    cluster.ask("scontrol", "requeue", f"{number}_1")
    slurm.wait_for(lambda: cluster.jobs(number)["1"]["Restarts"] == "1")
    # The one that is stopped may run again; the other one will do so anyway.
    printed = call("shards", "--again", "missing", "--on", "slurm")
    assert "#SBATCH --array=0\n" in printed
    (tmp_path / "go").touch()
    jobs = cluster.ended(number)
    assert states(jobs) == [("FAILED", "75:0"), ("COMPLETED", "0:0")]
    rows = json.loads(call("status", "--json", "o-0.db", "o-1.db"))
    assert [(row["state"], row["done"]) for row in rows] == [
        ("stopped", 0),
        ("done", 1),
    ]

    jobs = cluster.ended(call("shards", "--again", "missing", *ON))
    assert [*jobs] == ["0"]
    assert states(jobs) == [("COMPLETED", "0:0")]
    assert call("merge", "o-0.db", "o-1.db", "-o", "all.csv") == "2 tasks in all.csv"
