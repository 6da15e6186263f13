"""Bounds of memory and of workers beside the cgroups', and numbers that contradict."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import (
    InsufficientMemoryError,
    ThreadPoolExecutor,
    detect,
    plan_workers,
)
from coresize.cli.report import as_text
from coresize.detection import parse
from coresize.detection.available import cores_of, memory_of
from coresize.errors import ParseError
from coresize.executor import sizing
from coresize.recording import hostfile
from coresize.recording.recorded import Recorded
from coresize.testing import container, record_host, use_host


GIB = 1024**3
MIB = 1024**2

STATUS, LIMITS = "/proc/self/status", "/proc/self/limits"
MEMINFO = "/proc/meminfo"
NODES = "/sys/devices/system/node"
OVERCOMMIT = "/proc/sys/vm/overcommit_memory"


def _meminfo(**mebibytes: int) -> str:
    names = {"Active": "Active(file)", "Inactive": "Inactive(file)"}
    return "".join(
        f"{names.get(name, name)}: {amount * 1024:>12} kB\n"
        for name, amount in mebibytes.items()
    )


def _machine(files: dict[str, str] | None = None, **details: object) -> Recorded:
    """A machine of 16 CPUs and 64 GiB without limits, and what else it says."""
    host = container(cpus=16)
    return Recorded(
        files={**host.files, **(files or {})},
        cpu_count=16,
        affinity=frozenset(range(16)),
        **details,
    )


def _limits(**soft: int | str) -> dict[str, str]:
    """/proc/self/limits with these soft limits."""
    lines = {
        "AS": ("Max address space", "bytes"),
        "DATA": ("Max data size", "bytes"),
        "RSS": ("Max resident set", "bytes"),
        "NPROC": ("Max processes", "processes"),
        "NOFILE": ("Max open files", "files"),
    }
    rows = "".join(
        f"{line:25} {soft.get(name, 'unlimited'):<20} {'unlimited':20} {unit:10}\n"
        for name, (line, unit) in lines.items()
    )
    return {LIMITS: f"Limit   Soft Limit   Hard Limit   Units\n{rows}"}


# --- Memory nodes -----------------------------------------------------------------


def _nodes(allowed: str, online: str = "0-1", **memory: tuple[int, int]) -> Recorded:
    """A machine with nodes of so many MiB, in all and free."""
    files = {f"{NODES}/online": f"{online}\n", STATUS: f"Name:\tx\n{allowed}\n"}
    for name, (total, free) in memory.items():
        number = name.removeprefix("node")
        rows = _meminfo(MemTotal=total, MemFree=free).splitlines()
        text = "".join(f"Node {number} {row}\n" for row in rows)
        files[f"{NODES}/{name}/meminfo"] = text
    return _machine(files)


TWO = {"node0": (1024, 900), "node1": (64512, 60000)}

#: What is said of the allowed nodes: the bytes available, and in all.
ALLOWED = {
    "one of two": ("Mems_allowed_list:\t0", "0-1", TWO, 900, 1024),
    "both": ("Mems_allowed_list:\t0-1", "0-1", TWO, 65535, 65536),
    "a mask": ("Mems_allowed:\t00000001", "0-1", TWO, 900, 1024),
    "a mask of words": ("Mems_allowed:\t00000000,00000001", "0-1", TWO, 900, 1024),
    "more than exist": ("Mems_allowed_list:\t0-1023", "0-1", TWO, 65535, 65536),
    "one and those that do not exist": (
        "Mems_allowed_list:\t0,2-63",
        "0-1",
        TWO,
        900,
        1024,
    ),
    "one without memory is left out": (
        "Mems_allowed_list:\t0-1",
        "0-2",
        {**TWO, "node2": (0, 0)},
        60900,
        65536,
    ),
    "one without memory is allowed": (
        "Mems_allowed_list:\t0,2",
        "0-2",
        {**TWO, "node2": (0, 0)},
        900,
        1024,
    ),
    "of a far number": (
        "Mems_allowed_list:\t8",
        "0,8",
        {"node0": (1024, 900), "node8": (2048, 2000)},
        2000,
        2048,
    ),
    "one alone": ("Mems_allowed_list:\t0", "0", {}, 65535, 65536),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_only_allowed_nodes_count(name):
    allowed, online, nodes, available, total = ALLOWED[name]
    limits = detect(_nodes(allowed, online, **nodes))
    memory = limits.memory
    assert (memory.available, memory.total) == (available * MIB, total * MIB)
    assert memory.limit is None
    assert limits.gaps == ()


def test_the_fact_of_the_nodes_names_its_source():
    limits = detect(_nodes("Mems_allowed_list:\t0", **TWO))
    binding = limits.memory.binding
    assert (binding.source, binding.where) == ("system:memory nodes", STATUS)
    assert binding.raw == "Mems_allowed_list: 0"


def test_what_the_kernel_keeps_is_kept_of_each_node():
    host = _nodes("Mems_allowed_list:\t0", node0=(1024, 900), node1=(3072, 3000))
    host.files[MEMINFO] = _meminfo(MemTotal=4096, MemFree=3900, MemAvailable=3500)
    assert detect(host).memory.available == 800 * MIB


def test_a_status_without_nodes_leaves_it_to_the_cpuset():
    host = _nodes("Uid:\t0", **TWO)
    host.files["/sys/fs/cgroup/cpuset.mems.effective"] = "0\n"
    assert detect(host).memory.available == 900 * MIB


@pytest.mark.parametrize(
    ("bound", "available", "where"),
    [
        ({0}, 900, "get_mempolicy(2)"),
        ({0, 1}, 65535, MEMINFO),
        ({0, 5}, 900, "get_mempolicy(2)"),
        (None, 65535, MEMINFO),
    ],
)
def test_a_policy_binds_to_nodes_too(bound, available, where):
    files = _nodes("Mems_allowed_list:\t0-1", **TWO).files
    host = record_host(_machine(files, bound_nodes=bound))
    again = hostfile.loads(hostfile.dumps(host), "x").host
    memory = detect(again).memory
    assert (memory.available, memory.binding.where) == (available * MIB, where)


#: What is wrong with the nodes: the file, its text, and the gap's reason.
WRONG_NODES = {
    "online": (f"{NODES}/online", "zero", "'zero' is not a whole number"),
    "allowed": (STATUS, "Mems_allowed:\tx", "'\\tx' is not a mask"),
    "nowhere": (STATUS, "", "no line names the memory nodes"),
    "no memory": (f"{NODES}/node0/meminfo", "", "tell no memory"),
}


@pytest.mark.parametrize("name", WRONG_NODES)
def test_nodes_that_cannot_be_read_are_a_gap(name):
    path, text, reason = WRONG_NODES[name]
    host = _nodes("Mems_allowed_list:\t0", **TWO)
    host.files[path] = text
    limits = detect(host)
    assert any(reason in gap.reason for gap in limits.gaps), limits.gaps
    assert limits.memory.available == 65535 * MIB


@given(nodes=st.sets(st.integers(0, 200)))
def test_a_mask_and_a_list_name_the_same_nodes(nodes):
    mask = f"{sum(1 << node for node in nodes):064x}"
    words = ",".join(mask[at : at + 8] for at in range(0, len(mask), 8))
    assert parse.memory_nodes(f"Mems_allowed:\t{words}") == nodes
    listed = f"Mems_allowed_list:\t{parse.format_cpu_list(nodes)}"
    assert parse.memory_nodes(listed) == nodes


# --- A strict kernel --------------------------------------------------------------


def _strict(mode: str, limit: int, committed: int, **reserves: int) -> Recorded:
    text = _meminfo(MemTotal=4096, MemAvailable=3000)
    text += _meminfo(CommitLimit=limit, Committed_AS=committed)
    files = {MEMINFO: text, OVERCOMMIT: f"{mode}\n"}
    for name, mebibytes in reserves.items():
        files[f"/proc/sys/vm/{name}_reserve_kbytes"] = f"{mebibytes * 1024}\n"
    return _machine(files)


#: The mode, CommitLimit, Committed_AS and the reserves in MiB; what is available.
COMMIT = {
    "strict": (("2", 2048, 600), {}, 1448),
    "strict with reserves": (
        ("2", 2048, 600),
        {"admin": 8, "user": 128},
        1440 - 45,
    ),
    "a small reserve": (("2", 2048, 600), {"admin": 8, "user": 10}, 1430),
    "more promised than may be": (("2", 1024, 2000), {"admin": 8, "user": 128}, 0),
    "above what is free": (("2", 9000, 600), {}, 3000),
    "heuristic": (("0", 2048, 600), {}, 3000),
    "always": (("1", 2048, 600), {}, 3000),
}


@pytest.mark.parametrize("name", COMMIT)
def test_a_strict_kernel_promises_no_more(name):
    numbers, reserves, available = COMMIT[name]
    limits = detect(_strict(*numbers, **reserves))
    assert limits.memory.available == available * MIB
    sources = [fact.source for fact in limits.facts if fact.role == "available"]
    assert ("sysctl:vm.overcommit_memory" in sources) == (numbers[0] == "2")


@pytest.mark.parametrize("text", ["two", ""])
def test_a_mode_that_cannot_be_read_is_a_gap(text):
    host = _strict(text, 2048, 600)
    assert [gap.where for gap in detect(host).gaps] == [OVERCOMMIT]


def test_a_strict_kernel_without_numbers_is_a_gap():
    host = _machine({OVERCOMMIT: "2\n"})
    (gap,) = detect(host).gaps
    assert gap.reason == "CommitLimit or Committed_AS is missing"


# --- Limits of one process --------------------------------------------------------

USED = {STATUS: "VmSize:\t  524288 kB\nVmData:\t  262144 kB\n"}

#: The limits: what this process can take, and which limit a task of 3 GiB exceeds.
OF_ONE = {
    "address space": ({"AS": 2 * GIB}, 1536, "RLIMIT_AS"),
    "data": ({"DATA": 2 * GIB}, 1792, "RLIMIT_DATA"),
    "both": ({"AS": 2 * GIB, "DATA": GIB}, 768, "RLIMIT_DATA"),
    "used up": ({"AS": 256 * MIB}, 0, "RLIMIT_AS"),
    "none": ({}, 65535, None),
    "resident, which nothing enforces": ({"RSS": MIB}, 65535, None),
    "above the machine": ({"AS": 1000 * GIB}, 65535, None),
}


@pytest.mark.parametrize("name", OF_ONE)
def test_a_limit_of_one_process_bounds_it_and_not_all_together(name):
    soft, available, exceeded = OF_ONE[name]
    limits = detect(_machine({**_limits(**soft), **USED}))
    assert limits.memory.available == available * MIB
    assert limits.memory.available_together == 65535 * MIB
    small = plan_workers(memory="200MiB", limits=limits)
    assert (small, small.binding) == (16, "cpu")
    most = min([65535 * MIB * 0.8, *(soft[name] for name in soft if name != "RSS")])
    assert plan_workers(tasks=1, limits=limits).memory_per_worker == int(most)
    text = as_text(limits, cores=16, reserve=0)
    assert ("to all of its workers together" in text) == (available != 65535)
    large = plan_workers(memory="3GiB", limits=limits)
    if exceeded is None:
        assert (large, large.warnings) == (16, ())
        return
    assert (large, large.binding) == (1, "memory")
    assert f"{exceeded} permits a process" in large.reason
    assert [f"{exceeded} permits" in text for text in large.warnings] == [True]
    with pytest.raises(InsufficientMemoryError):
        plan_workers(memory="3GiB", limits=limits, strict=True)


def test_a_limit_that_nothing_enforces_is_a_fact():
    limits = detect(_machine(_limits(RSS=MIB)))
    (fact,) = [fact for fact in limits.facts if fact.role == "unenforced"]
    assert (fact.source, fact.amount) == ("rlimit:RLIMIT_RSS", MIB)


def test_an_override_replaces_the_limit_of_one_process():
    host = _machine(
        {**_limits(AS=GIB), **USED}, env={"CORESIZE_OVERRIDE_MEMORY": "8GiB"}
    )
    assert memory_of(host) == 8 * GIB


def test_a_limit_whose_use_is_not_known_still_bounds():
    assert memory_of(_machine(_limits(AS=GIB))) == GIB


# --- What bounds the number of workers --------------------------------------------

CGROUP = "/sys/fs/cgroup"
BELOW = {"/proc/self/cgroup": "0::/a/b\n"}
USER = {STATUS: "Uid:\t7\t7\t7\t7\nCapEff:\t0000000000000000\n"}
ROOT = {STATUS: "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\n"}
ABLE = {STATUS: "Uid:\t7\t7\t7\t7\nCapEff:\t0000000001000000\n"}
INSIDE = {"/proc/self/uid_map": "0 100000 65536\n"}
BUSY = {"/proc/loadavg": "0.1 0.2 0.3 2/90 77\n"}


def _pids(folder: str, most: str, now: str) -> dict[str, str]:
    folder = f"{CGROUP}{folder}"
    return {f"{folder}/pids.max": f"{most}\n", f"{folder}/pids.current": f"{now}\n"}


#: Files and what is counted: the workers, what binds, and a part of the reason.
BOUNDED = {
    "pids.max": (_pids("", "20", "6"), {}, 10, "processes", "pids.max binds (14 "),
    "pids.max of a parent": (
        {**BELOW, **_pids("/a/b", "max", "1"), **_pids("/a", "12", "2")},
        {},
        6,
        "processes",
        "/sys/fs/cgroup/a/pids.max",
    ),
    "pids.max without a count": (
        {f"{CGROUP}/pids.max": "9\n"},
        {},
        5,
        "processes",
        "pids.max binds",
    ),
    "pids.max is met": (_pids("", "20", "30"), {}, 1, "processes", "not even one"),
    "pids.max is far": (_pids("", "4096", "6"), {}, 16, "cpu", ""),
    "RLIMIT_NPROC": (
        {**_limits(NPROC=100), **USER, **BUSY},
        {"user_tasks": 88},
        8,
        "processes",
        "RLIMIT_NPROC binds (12 processes and threads left, 100 - 88",
    ),
    "RLIMIT_NPROC, tasks that are not counted": (
        {**_limits(NPROC=100), **USER, **BUSY},
        {},
        6,
        "processes",
        "RLIMIT_NPROC binds",
    ),
    "RLIMIT_NPROC of root": ({**_limits(NPROC=9), **ROOT}, {}, 16, "cpu", ""),
    "RLIMIT_NPROC with CAP_SYS_RESOURCE": (
        {**_limits(NPROC=9), **ABLE},
        {},
        16,
        "cpu",
        "",
    ),
    "RLIMIT_NPROC of root in a user namespace": (
        {**_limits(NPROC=9), **ROOT, **INSIDE},
        {"user_tasks": 2},
        3,
        "processes",
        "RLIMIT_NPROC binds",
    ),
    "RLIMIT_NOFILE": (
        _limits(NOFILE=32),
        {"open_files": 8},
        8,
        "files",
        "RLIMIT_NOFILE binds (24 files left, 32 - 8",
    ),
    "RLIMIT_NOFILE is far": (_limits(NOFILE=1024), {"open_files": 8}, 16, "cpu", ""),
    "threads-max": (
        {"/proc/sys/kernel/threads-max": "100\n", **BUSY},
        {},
        6,
        "processes",
        "kernel.threads-max binds (10 processes and threads left, 100 - 90)",
    ),
    "pid_max": (
        {"/proc/sys/kernel/pid_max": "101\n", **BUSY},
        {},
        7,
        "processes",
        "kernel.pid_max binds",
    ),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_the_kernel_bounds_the_workers(name):
    files, counted, workers, binding, reason = BOUNDED[name]
    host = _machine(files, **counted)
    plan = plan_workers(limits=detect(host))
    assert (plan, plan.binding) == (workers, binding)
    assert reason in plan.reason
    assert cores_of(host, reserve=0, rounding="nearest") == 16
    assert plan_workers(limits=detect(record_host(host))) == plan


def test_a_count_of_the_user_is_lowered_with_a_warning():
    with use_host(_machine(_pids("", "20", "6"), env={"CORESIZE_WORKERS": "30"})):
        plan = plan_workers()
    assert plan == 10
    (warning,) = plan.warnings
    assert warning.startswith("CORESIZE_WORKERS is lowered to 10: pids.max binds")


@pytest.mark.parametrize(("threads", "workers"), [(False, 16), (True, 30)])
def test_a_number_of_threads_is_not_bounded_by_files(threads, workers):
    with use_host(_machine(_limits(NOFILE=40), open_files=8)):
        assert sizing.plan(30, threads=threads) == workers
        with ThreadPoolExecutor(30) as pool:
            assert pool._max_workers == 30


def test_what_is_not_parallel_needs_no_processes():
    with use_host(_machine(_pids("", "6", "6"), env={"CORESIZE_PARALLEL": "0"})):
        assert plan_workers().binding == "parallel"


def test_threads_of_workers_count_too():
    limits = detect(_machine(_pids("", "14", "2")))
    plan = plan_workers(tasks=4, limits=limits)
    assert (plan, plan.threads_per_worker) == (4, 2)


@given(most=st.integers(0, 60), now=st.integers(0, 60), tasks=st.integers(1, 40))
def test_the_workers_and_their_threads_fit(most, now, tasks):
    limits = detect(_machine(_pids("", str(most), str(now))))
    plan = plan_workers(tasks=tasks, limits=limits)
    assert plan == 1 or plan * plan.threads_per_worker <= most - now


def test_the_gaps_of_pids_are_gaps():
    host = _machine(_pids("", "many", "6"))
    (gap,) = detect(host).gaps
    assert (gap.resource, gap.where) == ("processes", f"{CGROUP}/pids.max")


# --- Numbers that contradict ------------------------------------------------------

LRU = {"Active": 100, "Inactive": 200, "SReclaimable": 50}

#: The meminfo in MiB: what is available, and a part of the gap's reason.
CONTRADICTIONS = {
    "more available than there is": (
        {"MemTotal": 2048, "MemFree": 500, "MemAvailable": 60000, **LRU},
        850,
        "60000",
    ),
    "more available than there is, and no more said": (
        {"MemTotal": 2048, "MemAvailable": 60000},
        2048,
        "said to be available of 2.0 GiB in all",
    ),
    "more available than there is, and more free": (
        {"MemTotal": 2048, "MemFree": 50000, "MemAvailable": 60000},
        2048,
        "said to be available of 2.0 GiB in all",
    ),
    "nothing available, most free": (
        {"MemTotal": 2048, "MemFree": 1800, "MemAvailable": 0},
        1800,
        "0 bytes are said to be available, although",
    ),
    "nothing available, most pages of files": (
        {"MemTotal": 2048, "MemFree": 200, "MemAvailable": 0, "Cached": 1700},
        1900,
        "0 bytes are said to be available, although",
    ),
    "nothing available, nothing free": (
        {"MemTotal": 2048, "MemFree": 300, "MemAvailable": 0, **LRU},
        0,
        "",
    ),
    "shared memory is no page of a file": (
        {
            "MemTotal": 2048,
            "MemFree": 200,
            "MemAvailable": 0,
            "Cached": 1700,
            "Shmem": 1600,
        },
        0,
        "",
    ),
    "locked pages are not available": (
        {
            "MemTotal": 2048,
            "MemFree": 200,
            "MemAvailable": 0,
            "Cached": 1700,
            "Unevictable": 1600,
        },
        0,
        "",
    ),
    "not said, but what is free": (
        {"MemTotal": 2048, "MemFree": 500, "Buffers": 10, "Cached": 90, "Shmem": 40},
        560,
        "no line begins with 'MemAvailable:'",
    ),
    "not said at all": ({"MemTotal": 2048}, 2048, "no line begins with"),
    "not said, and more free than there is": (
        {"MemTotal": 2048, "MemFree": 9000},
        2048,
        "no line begins with",
    ),
    "no total": (
        {"MemTotal": 0, "MemFree": 500, "MemAvailable": 700},
        700,
        "is not above 0",
    ),
    "usual": ({"MemTotal": 2048, "MemFree": 500, "MemAvailable": 700, **LRU}, 700, ""),
    "a little kept": (
        {"MemTotal": 2048, "MemFree": 1900, "MemAvailable": 1500},
        1500,
        "",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_of_two_numbers_that_contradict_one_is_a_gap(name):
    lines, available, reason = CONTRADICTIONS[name]
    limits = detect(_machine({MEMINFO: _meminfo(**lines)}))
    assert limits.memory.available == available * MIB
    reasons = [gap.reason for gap in limits.gaps]
    if not reason:
        assert reasons == []
    elif reason.isdigit():
        assert len(reasons) == 1
    else:
        assert [reason in text for text in reasons] == [True]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
@pytest.mark.parametrize(
    ("told", "available"), [((4, 9), 4), ((4, 3), 3), ((4, None), 4), ((4, 0), 0)]
)
def test_what_a_platform_says_is_at_most_its_total(platform, told, available):
    host = Recorded(platform=platform, memory=told)
    assert detect(host).memory.available == available
    said = [gap.where for gap in detect(host).gaps if gap.resource == "memory"]
    assert said == ["the platform"] * (available != told[1])


AMOUNTS = st.integers(0, 10000)


@given(
    lines=st.fixed_dictionaries(
        {"MemTotal": st.integers(1, 10000)},
        optional=dict.fromkeys(
            ["MemFree", "MemAvailable", "Cached", "Buffers", "Shmem", *LRU], AMOUNTS
        ),
    )
)
def test_available_is_at_most_the_total(lines):
    memory = detect(_machine({MEMINFO: _meminfo(**lines)})).memory
    assert 0 <= memory.available <= memory.total


@given(text=st.text(max_size=60))
def test_parsers_raise_nothing_else(text):
    for parser in (
        parse.memory_nodes,
        parse.rlimit,
        parse.all_tasks,
        parse.count_limit,
    ):
        with contextlib.suppress(ParseError):
            parser(text)
    assert isinstance(parse.amounts(text), dict)
