"""What coresize answers under kernels that this machine does not run: v2, hybrid."""

from __future__ import annotations

import pytest
from live import guest, test_sharing_places, test_working_set
from live.guest import Scenario


pytestmark = pytest.mark.skipif(
    guest.missing() is not None, reason=str(guest.missing())
)

MIB = 1024**2


def _v2(
    own: dict[str, str] | None = None,
    parent: dict[str, str] | None = None,
    **details: object,
) -> Scenario:
    """A process in ``p/own``, with limits on either."""
    write = {f"p/{name}": text for name, text in (parent or {}).items()}
    write |= {f"p/own/{name}": text for name, text in (own or {}).items()}
    return Scenario(write=write, join=["p/own"], **details)


LIMITS = {"cpu.max": "150000 100000", "memory.max": str(512 * MIB)}

#: name: (scenario, quota, limit in cores, memory limit)
V2 = {
    "nothing": (_v2(), None, 8, None),
    "leaf": (_v2(LIMITS), 1.5, 1.5, 512 * MIB),
    "leaf-private-view": (_v2(LIMITS, view="private"), 1.5, 1.5, 512 * MIB),
    "leaf-bound-view": (_v2(LIMITS, view="bound"), 1.5, 1.5, 512 * MIB),
    # The old mount stays, rooted above the namespace: where the own cgroup is below it
    # cannot be told, and no neighbour's limit is taken for the own.
    "namespace-without-a-mount": (_v2(LIMITS, view="unmounted"), None, 8, None),
    "parent": (_v2(parent=LIMITS), 1.5, 1.5, 512 * MIB),
    "parent-out-of-sight": (_v2(parent=LIMITS, view="private"), None, 8, None),
    "both": (
        _v2({"cpu.max": "400000 100000", "memory.max": str(256 * MIB)}, LIMITS),
        1.5,
        1.5,
        256 * MIB,
    ),
    "cpuset": (_v2({"cpuset.cpus": "1-3"}), None, 3, None),
    "cpuset-and-quota": (
        _v2({"cpuset.cpus": "0-3", "cpu.max": "250000 100000"}),
        2.5,
        2.5,
        None,
    ),
    "affinity": (_v2(cpus="2"), None, 1, None),
    "8.342-on-8": (_v2({"cpu.max": "834200 100000"}), 8.342, 8, None),
    "odd-name": (
        Scenario(
            write={f"p a:b\\x2d/{name}": text for name, text in LIMITS.items()},
            join=["p a:b\\x2d"],
        ),
        1.5,
        1.5,
        512 * MIB,
    ),
    "above-the-machine": (_v2({"memory.max": str(64 * 1024 * MIB)}), None, 8, None),
    "slurm": (
        _v2(
            env={"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "n", "SLURM_CPUS_ON_NODE": "3"}
        ),
        None,
        3,
        None,
    ),
}


#: States in which more or less is left than usage and limit say, below the own limit
#: and below the parent's.
TAKEN = {
    "active": _v2(
        {"memory.max": str(128 * MIB)}, program="taken.py active /var/tmp/active"
    ),
    "neighbour_min": _v2(
        parent={"memory.max": str(128 * MIB)},
        program="taken.py neighbour_min /var/tmp/neighbour_min",
    ),
}


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    scenarios = {name: case[0] for name, case in V2.items()}
    scenarios["hidden"] = _v2(LIMITS, view="hidden")
    scenarios["high"] = _v2(
        {"memory.high": str(256 * MIB), "memory.max": str(512 * MIB)}
    )
    scenarios["later"] = _v2(LIMITS, later={"p/own/cpu.max": "300000 100000"})
    if guest.other_python() is None:  # so that there is one boot for all
        scenarios["examined"] = _v2(
            {
                "cpu.max": "200000 100000",
                "memory.high": str(256 * MIB),
                "memory.oom.group": "1",
            },
            program="examined.py",
        )
        # Before the swap, which takes what memory has no room for.
        scenarios["bounded"] = _v2(
            {"cpuset.mems": "1", "pids.max": "10"}, program="bounded.py"
        )
        scenarios |= TAKEN
        scenarios["shared"] = _v2(
            {"memory.max": str(300 * MIB)},
            program="shared.py 30 vm.overcommit_memory 2",
        )
        scenarios["swapped"] = _v2({"memory.max": str(64 * MIB)}, program="swapped.py")
        scenarios["mounted"] = _v2(program="mounted.py")
        scenarios["strained"] = _v2(program="strained.py", cpus="0-1")
    return guest.run(scenarios, tmp_path_factory.mktemp("v2"))


@pytest.mark.parametrize("name", V2)
def test_v2(v2, name):
    _check(V2[name], v2[name])
    assert v2[name][0]["cpu"]["capacity"] == 8


def _check(case, answers):
    _, quota, limit, memory = case
    (answer,) = answers
    assert (answer["cpu"]["quota"], answer["cpu"]["limit"]) == (quota, limit)
    assert answer["memory"]["limit"] == memory


def test_v2_hidden_cgroups_are_a_gap(v2):
    (answer,) = v2["hidden"]
    assert answer["cpu"]["quota"] is None
    assert {gap["resource"] for gap in answer["gaps"]} == {"cpu", "memory"}


def test_v2_high_is_told_apart(v2):
    (answer,) = v2["high"]
    memory = answer["memory"]
    assert (memory["limit"], memory["soft_limit"]) == (512 * MIB, 256 * MIB)
    assert memory["soft_available"] < 256 * MIB < memory["available"] < 512 * MIB


def test_v2_a_change_while_running_is_seen_by_the_next_call(v2):
    assert [answer["cpu"]["quota"] for answer in v2["later"]] == [1.5, 3.0]


#: What is provoked in a guest: by scenario, check and a part of the title its severity,
#: what is seen, where.
OWN = "/sys/fs/cgroup/p/own"
DIAGNOSED = {
    ("examined", "counted CPUs", ""): (
        "error",
        "os.cpu_count() 8, nproc 8; may be used: 2",
        f"{OWN}/cpu.max",
    ),
    ("examined", "memory limits", ""): (
        "warning",
        "memory.high 256.0 MiB",
        f"{OWN}/memory.high",
    ),
    ("examined", "memory.oom.group", ""): (
        "warning",
        "memory.oom.group = 1",
        f"{OWN}/memory.oom.group",
    ),
    ("examined", "kills", ""): (
        "warning",
        "oom_kill 1",
        "/sys/fs/cgroup/p/memory.events",
    ),
    ("examined", "throttling", ""): (
        "error",
        " periods since it was made",
        f"{OWN}/cpu.stat",
    ),
    ("swapped", "swap", ""): ("warning", "swap in use ", f"{OWN}/memory.swap.current"),
    ("swapped", "pressure", ""): ("warning", "some avg60=", f"{OWN}/memory.pressure"),
    ("mounted", "temporary folder", ""): ("warning", "file system nfs4", "TMPDIR:"),
    ("strained", "pressure", "for cpu"): (
        "warning",
        "some avg60=",
        f"{OWN}/cpu.pressure",
    ),
    ("strained", "pressure", "for io"): (
        "warning",
        "some avg60=",
        f"{OWN}/io.pressure",
    ),
    ("strained", "scaling", "files"): ("note", "2 were to be expected", "measured"),
}


@pytest.mark.skipif(guest.other_python() is not None, reason=str(guest.other_python()))
@pytest.mark.parametrize(("scenario", "check", "title"), DIAGNOSED)
def test_v2_what_is_diagnosed(v2, scenario, check, title):
    severity, seen, where = DIAGNOSED[scenario, check, title]
    (answer,) = v2[scenario]
    assert answer["code"] == 0
    (one,) = [
        one
        for one in answer["out"]["findings"]
        if one["check"] == check and title in one["title"]
    ]
    assert one["severity"] == severity, one
    assert seen in one["seen"], one
    assert one["where"].split()[0] == where, one


@pytest.mark.skipif(guest.other_python() is not None, reason=str(guest.other_python()))
@pytest.mark.parametrize("bound", ["node", "policy", "strict"])
def test_v2_what_is_available_can_be_taken(v2, bound):
    (answer,) = v2["bounded"]
    assert answer["code"] == 0
    seen = answer["out"][bound]
    assert 0.85 * seen["taken"] <= seen["told"] <= seen["taken"], seen
    if bound != "strict":
        assert seen["binding"] == "system:memory nodes"
        assert seen["told"] < seen["total"] < 512 * MIB


@pytest.mark.skipif(guest.other_python() is not None, reason=str(guest.other_python()))
def test_v2_a_pool_fits_into_what_its_cgroup_lets_start(v2):
    pool = v2["bounded"][0]["out"]["pool"]
    assert (pool["binding"], pool["planned"]) == ("processes", 5), pool
    assert "pids.max binds" in pool["reason"]
    assert pool["results"] == list(range(20, 0, -1))
    assert pool["workers"] <= 5
    assert pool["refused"] == ""


@pytest.mark.skipif(guest.other_python() is not None, reason=str(guest.other_python()))
@pytest.mark.parametrize("name", TAKEN)
def test_v2_what_is_left_can_be_taken(v2, name):
    (answer,) = v2[name]
    assert answer["code"] == 0
    test_working_set.check(answer["out"])


@pytest.mark.skipif(guest.other_python() is not None, reason=str(guest.other_python()))
def test_v2_large_data_are_shared(v2):
    """In a memory limit, and where the kernel promises no more memory than there is."""
    (answer,) = v2["shared"]
    assert answer["code"] == 0
    test_sharing_places.check(answer["out"], "shared")


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory):
    scenarios = {
        "8.342": _v2({"cpu.max": "834200 100000"}, view="private"),
        "nothing": _v2(),
    }
    return guest.run(scenarios, tmp_path_factory.mktemp("sixteen"), cpus=16)


def test_16_cpus(sixteen):
    cpus = {name: answers[0]["cpu"] for name, answers in sixteen.items()}
    assert (cpus["8.342"]["limit"], cpus["8.342"]["cores"]) == (8.342, 8)
    assert cpus["nothing"]["limit"] == cpus["nothing"]["capacity"] == 16


#: name: (scenario, quota, limit in cores, memory limit)
HYBRID = {
    "v1-leaf": (
        Scenario(
            write={
                "cpu,cpuacct/s/cpu.cfs_quota_us": "150000",
                "memory/s/memory.limit_in_bytes": str(512 * MIB),
            },
            join=["cpu,cpuacct/s", "memory/s", "unified/s"],
        ),
        1.5,
        1.5,
        512 * MIB,
    ),
    "v1-parent": (
        Scenario(
            write={
                "cpu,cpuacct/s/cpu.cfs_quota_us": "250000",
                "memory/s/memory.limit_in_bytes": str(512 * MIB),
            },
            join=["cpu,cpuacct/s/leaf", "memory/s/leaf", "unified/s"],
        ),
        2.5,
        2.5,
        512 * MIB,
    ),
    "v1-cpuset": (
        Scenario(write={"cpuset/s/cpuset.cpus": "0-1"}, join=["cpuset/s"]),
        None,
        2,
        None,
    ),
}


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    scenarios = {name: case[0] for name, case in HYBRID.items()}
    return guest.run(scenarios, tmp_path_factory.mktemp("hybrid"), hybrid=True)


@pytest.mark.parametrize("name", HYBRID)
def test_hybrid(hybrid, name):
    _check(HYBRID[name], hybrid[name])
