"""How many workers: a table of plans, and the laws they keep."""

from __future__ import annotations

import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import (
    ConfigError,
    InsufficientMemoryError,
    TaskProfile,
    WorkerPlan,
    detect,
    load_settings,
    plan_workers,
)
from coresize.recording.recorded import Recorded
from coresize.testing import container, use_host


GIB = 1024**3
DEFAULTS = load_settings(host=container())


def plan(*, has=16, env=None, quota=None, **need):
    """A plan for a container with so many CPUs, 16 GiB and nothing in use."""
    host = container(cpus=has, quota=quota, memory="16GiB", used=0, env=env)
    return plan_workers(limits=detect(host), settings=load_settings(host=host), **need)


#: need: (workers, threads for each, what binds)
TABLE = {
    "cores": ({}, 16, 1, "cpu"),
    "quota": ({"quota": 8.342}, 8, 1, "cpu"),
    "rounding": ({"quota": 8.342, "env": {"CORESIZE_ROUNDING": "ceil"}}, 9, 1, "cpu"),
    "reserve": ({"reserve": 1}, 15, 1, "cpu"),
    "reserve-variable": ({"env": {"CORESIZE_RESERVE_CORES": "4"}}, 12, 1, "cpu"),
    "enough-memory": ({"memory": "500MiB"}, 16, 1, "cpu"),
    "bytes": ({"ram": 2 * GIB}, 6, 2, "memory"),
    "text": ({"memory": "1.8GiB"}, 7, 2, "memory"),
    "fraction": (
        {"memory": "2GiB", "env": {"CORESIZE_MEMORY_FRACTION": "0.5"}},
        4,
        4,
        "memory",
    ),
    "profile": (
        {"profile": TaskProfile(peak_memory="1.5GiB", idle_memory="512MiB")},
        6,
        2,
        "memory",
    ),
    "shared": (
        {"profile": TaskProfile(peak_memory="1GiB", shared_memory="8GiB")},
        4,
        4,
        "memory",
    ),
    "argument-before-profile": (
        {"profile": TaskProfile(peak_memory="8GiB"), "memory": "2GiB"},
        6,
        2,
        "memory",
    ),
    "cores-of-a-task": ({"cpus": 3}, 5, 3, "cpu"),
    "half-a-core": ({"cpus": 0.5}, 32, 1, "cpu"),
    "threads-of-a-task": ({"profile": TaskProfile(threads=4)}, 4, 4, "cpu"),
    "waiting": ({"profile": TaskProfile(cpu=1.0, wall=4.0)}, 64, 1, "cpu"),
    "waiting-bounded": ({"profile": TaskProfile(cpu_share=0.01)}, 80, 1, "waiting"),
    "waiting-few-cores": (
        {"has": 2, "profile": TaskProfile(cpu_share=0.01)},
        32,
        1,
        "waiting",
    ),
    "waiting-measured": (
        {"has": 2, "profile": TaskProfile(cpu_share=0.001, max_workers=128)},
        128,
        1,
        "profile",
    ),
    "nearly-busy": ({"profile": TaskProfile(cpu_share=0.95)}, 16, 1, "cpu"),
    "io": ({"kind": "io"}, 80, 1, "cpu"),
    "io-by-hand": ({"kind": "io", "profile": TaskProfile()}, 80, 1, "cpu"),
    "cores-before-share": (
        {"cpus": 2, "profile": TaskProfile(cpu=1.0, wall=10.0)},
        8,
        2,
        "cpu",
    ),
    "tasks": ({"tasks": 3}, 3, 5, "tasks"),
    "no-tasks": ({"tasks": 0}, 1, 16, "tasks"),
    "max-workers": ({"max_workers": 4}, 4, 4, "max_workers"),
    "gpus": (
        {"gpus": 1, "env": {"CUDA_VISIBLE_DEVICES": "0,1,2"}},
        3,
        5,
        "gpu",
    ),
    "gpus-are-not-divided-over-devices": (
        {"gpu": 0.6, "env": {"CUDA_VISIBLE_DEVICES": "0,1"}},
        2,
        8,
        "gpu",
    ),
    "half-a-gpu": ({"gpu": 0.5, "env": {"CUDA_VISIBLE_DEVICES": "0,1"}}, 4, 4, "gpu"),
    "no-gpu": ({"gpus": 1, "env": {"CUDA_VISIBLE_DEVICES": "-1"}}, 1, 16, "gpu"),
    "empty": ({"gpus": 1, "env": {"CUDA_VISIBLE_DEVICES": ""}}, 1, 16, "gpu"),
    "override": ({"env": {"CORESIZE_WORKERS": "40"}}, 40, 1, "override"),
    "override-below-tasks": (
        {"env": {"CORESIZE_WORKERS": "40"}, "tasks": 7},
        7,
        2,
        "tasks",
    ),
    "off": ({"env": {"CORESIZE_PARALLEL": "0"}}, 1, 16, "parallel"),
    "nothing-fits": ({"memory": "13GiB"}, 1, 16, "memory"),
    "too-many-cores": ({"cpus": 17}, 1, 16, "cpu"),
}


@pytest.mark.parametrize("name", TABLE)
def test_plan(name):
    need, workers, threads, binding = TABLE[name]
    found = plan(**need)
    assert (found, found.threads_per_worker, found.binding) == (
        workers,
        threads,
        binding,
    )
    assert found.workers == workers
    assert found == max(1, found.bounds[binding])
    assert found.reason.startswith(f"{workers} worker")


#: need: the whole sentence
SENTENCES = {
    "7 workers: memory binds (12.8 GiB budget / 1.8 GiB a task); "
    "cores would allow 15": {
        "memory": "1.8GiB",
        "reserve": 1,
    },
    "16 workers: cores bind (16)": {},
    "16 workers: cores bind (16); memory would allow 17": {"memory": "750MiB"},
    "1 worker: tasks bind (there is 1); cores would allow 16": {"tasks": 1},
    "4 workers: memory binds (12.8 GiB budget - 8.0 GiB shared / 1.0 GiB a task); "
    "cores would allow 16": {
        "profile": TaskProfile(peak_memory="1GiB", shared_memory="8GiB")
    },
    "1 worker: not even one task fits, memory binds (12.8 GiB budget / 14.0 GiB a "
    "task); cores would allow 16": {"memory": "14GiB"},
    "1 worker: not parallel, by CORESIZE_PARALLEL; cores would allow 16": {
        "env": {"CORESIZE_PARALLEL": "no"}
    },
    "2 workers: set by CORESIZE_WORKERS; cores would allow 16": {
        "env": {"CORESIZE_WORKERS": "2"}
    },
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_reason_is_one_sentence(sentence):
    assert plan(**SENTENCES[sentence]).reason == sentence


@pytest.mark.parametrize(
    ("need", "warning"),
    [
        ({"memory": "14GiB"}, "not even one task fits into memory"),
        ({"memory": "2GiB", "env": {"CORESIZE_WORKERS": "9"}}, "memory has room for 6"),
        ({"gpus": 1}, "CUDA_VISIBLE_DEVICES"),
        ({"gpus": 2, "env": {"CUDA_VISIBLE_DEVICES": "0"}}, "GPUs it needs (2)"),
    ],
)
def test_what_is_odd_is_warned_about(need, warning):
    found = plan(**need)
    assert len(found.warnings) == 1
    assert warning in found.warnings[0]


def test_unknown_memory_bounds_nothing_and_is_said():
    host = Recorded(cpu_count=8)
    found = plan_workers(memory="2GiB", limits=detect(host), settings=DEFAULTS)
    assert (found, found.memory_per_worker) == (8, 2 * GIB)
    assert "CORESIZE_OVERRIDE_MEMORY" in found.warnings[0]
    nothing = plan_workers(limits=detect(Recorded()), settings=DEFAULTS)
    assert (nothing, nothing.memory_per_worker) == (1, None)


def test_strict_raises_with_both_numbers():
    with pytest.raises(InsufficientMemoryError) as caught:
        plan(memory="14GiB", strict=True)
    assert (caught.value.needed, caught.value.budget) == (14 * GIB, int(12.8 * GIB))
    assert plan(memory="2GiB", strict=True) == 6


def test_memory_high_is_respected():
    host = container(cpus=16, memory="16GiB", used=0)
    host.files["/sys/fs/cgroup/memory.high"] = f"{4 * GIB}\n"
    found = plan_workers(memory="1GiB", limits=detect(host), settings=DEFAULTS)
    assert (found, found.binding) == (3, "memory")


def test_windows_waits_for_61():
    host = Recorded(platform="win32", cpu_count=128, memory=(512 * GIB, 500 * GIB))
    found = plan_workers(limits=detect(host), settings=DEFAULTS)
    assert (found, found.binding) == (61, "platform")
    assert plan_workers(limits=detect(host), settings=DEFAULTS, tasks=8) == 8


def test_a_plan_is_an_int_that_travels():
    found = plan(memory="2GiB")
    assert isinstance(found, int)
    assert (f"{found}", str(found), json.dumps(found), found + 1) == ("6", "6", "6", 7)
    assert "memory binds" in repr(found)
    copy = pickle.loads(pickle.dumps(found))
    assert (copy, copy.as_dict()) == (found, found.as_dict())
    assert hash(copy) == hash(6)
    with pytest.raises(AttributeError, match="immutable"):
        found.workers = 7


def test_numbers_of_other_libraries_are_numbers():
    found = plan(
        memory=np.int64(GIB), cpus=np.float32(2), tasks=np.int8(5), reserve=np.int64(1)
    )
    assert (found, found.bounds["cpu"]) == (5, 7)
    assert plan(reserve=found) == 11
    assert TaskProfile(threads=np.int64(4)).threads == 4


def test_what_is_shared_must_fit_as_well():
    with pytest.raises(InsufficientMemoryError):
        plan(profile=TaskProfile(shared_memory="1TiB"), strict=True)


def test_without_a_need_memory_is_shared_out():
    assert plan(tasks=4).memory_per_worker == int(12.8 * GIB) // 4


def test_the_machine_is_asked_where_nothing_is_given():
    with use_host(container(cpus=4, env={"CORESIZE_RESERVE_CORES": "1"})):
        assert plan_workers() == 3


@pytest.mark.parametrize(
    "need",
    [
        {"memory": "2 apples"},
        {"memory": -1},
        {"memory": True},
        {"memory": 0},
        {"memory": 10**400},
        {"profile": 5},
        {"settings": {"workers": 3}},
        {"profile": {"peak_memory": 5}},
        {"memory": 1.5},
        {"ram": "1GiB", "memory": "1GiB"},
        {"gpus": -1},
        {"gpus": 1, "gpu": 1},
        {"tasks": -1},
        {"tasks": 2.5},
        {"max_workers": 0},
        {"at_most": 2, "max_workers": 2},
        {"reserve": -1},
        {"kind": "gpu-bound"},
        {"profile": "no-such-profile"},
    ],
)
def test_bad_arguments_are_errors(need):
    with pytest.raises(ConfigError):
        plan_workers(limits=detect(container()), **{"settings": DEFAULTS, **need})


@pytest.mark.parametrize("cpus", [0, -1, math.nan, math.inf, "2", True, 1e-9, 10**400])
def test_bad_cores_are_errors(cpus):
    with pytest.raises(ConfigError, match="cpus"):
        plan_workers(cpus=cpus, limits=detect(container()), settings=DEFAULTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"at_most": 3}, {"max_workers": 3}),
        ({"ram": "2GiB"}, {"memory": "2GiB"}),
        ({"gpu": 1}, {"gpus": 1}),
    ],
)
def test_old_names_are_read_with_a_note(old, new):
    limits = detect(container(cpus=8, memory="8GiB", env={"CUDA_VISIBLE_DEVICES": "0"}))
    plan = plan_workers(limits=limits, **old)
    same = plan_workers(limits=limits, **new)
    assert (plan.reason, plan.bounds) == (same.reason, same.bounds)
    (note,) = {*plan.warnings} - {*same.warnings}
    assert note.code == "other-name"
    assert f"{next(iter(old))} is read as {next(iter(new))}" in note


# --- Laws ---------------------------------------------------------------------

SIZES = st.integers(min_value=1024**2, max_value=64 * GIB)
NEEDS = st.fixed_dictionaries(
    {},
    optional={
        "memory": SIZES,
        "cpus": st.sampled_from([0.1, 0.25, 0.5, 1, 1.5, 2, 7, 64]),
        "tasks": st.integers(min_value=0, max_value=200),
        "max_workers": st.integers(min_value=1, max_value=200),
        "reserve": st.integers(min_value=0, max_value=80),
        "kind": st.sampled_from(["cpu", "io"]),
    },
)
HOSTS = st.fixed_dictionaries(
    {"cpus": st.integers(min_value=1, max_value=64)},
    optional={
        "quota": st.floats(min_value=0.01, max_value=80),
        "memory": SIZES,
    },
)


def _plan(host, need, **more) -> WorkerPlan:
    limits = detect(container(**{"used": 0, **host}))
    return plan_workers(limits=limits, settings=DEFAULTS, **{**need, **more})


@given(HOSTS, NEEDS)
def test_at_least_one_and_never_above_a_bound(host, need):
    found = _plan(host, need)
    assert found >= 1
    assert found == max(1, min(found.bounds.values()))
    assert found.bounds[found.binding] == min(found.bounds.values())
    assert found.threads_per_worker >= 1


@given(HOSTS, NEEDS, SIZES)
def test_more_memory_never_gives_fewer_workers(host, need, more):
    there = host.get("memory", GIB)
    less = _plan({**host, "memory": there}, need)
    assert _plan({**host, "memory": there + more}, need) >= less


@given(HOSTS, NEEDS, SIZES, SIZES)
def test_a_bigger_task_never_gives_more_workers(host, need, size, more):
    assert _plan(host, need, memory=size + more) <= _plan(host, need, memory=size)


@given(HOSTS, NEEDS, st.integers(min_value=1, max_value=200))
def test_a_further_bound_never_raises_the_count(host, need, bound):
    bounds = {"tasks": bound, "max_workers": bound, "memory": f"{bound}MiB"}
    for name, value in bounds.items():
        without = {key: value for key, value in need.items() if key != name}
        assert _plan(host, without, **{name: value}) <= _plan(host, without)


@given(HOSTS, NEEDS)
def test_more_cores_never_give_fewer_workers(host, need):
    more = {**host, "cpus": host["cpus"] + 1}
    assert _plan(more, need) >= _plan(host, need)


@given(HOSTS, NEEDS)
def test_rounding_modes_are_ordered(host, need):
    limits = detect(container(**{"used": 0, **host}))
    counts = [
        plan_workers(
            limits=limits,
            settings=load_settings(arguments={"rounding": mode}, host=container()),
            **need,
        )
        for mode in ("floor", "nearest", "ceil")
    ]
    assert counts == sorted(counts)


@given(HOSTS, SIZES)
def test_what_is_planned_fits_into_the_budget(host, size):
    found = _plan(host, {"memory": size})
    available = detect(container(**{"used": 0, **host})).memory.available
    if found.bounds["memory"]:
        assert found * size <= Fraction(8, 10) * available
