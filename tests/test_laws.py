"""Laws that hold for every input, one law a test."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import ConfigError, detect, units
from coresize.detection import parse, parse_cgroup, parse_jobs
from coresize.detection.limits import combine, combine_cpu, combine_memory, whole_cores
from coresize.errors import HostFileError, ParseError
from coresize.model import Fact
from coresize.recording import hostfile
from coresize.recording.recorded import Recorded
from coresize.testing import record_host


#: What a kernel may hand out: any bytes, read with surrogateescape.
TEXTS = st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape"))

#: Texts that look right for a while.
NEARLY = st.lists(
    st.sampled_from(
        [
            *("0", "1", "8", "100000", "max", "-1", "cpu", "memory", "cpuset", "a"),
            *("::/", ":", "/", "/..", " - ", " - cgroup2 ", " - cgroup ", "\\040", "-"),
            *("\n", "\r", " ", ",", "(x", ")", "=", ".", "kB", "GiB", "\u2028", "\x00"),
        ]
    ),
    max_size=30,
).map("".join)

PARSERS = [
    function
    for module in (parse, parse_cgroup, parse_jobs, units)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if len(inspect.signature(function).parameters) == 1
    and function.__module__ == module.__name__
    and name not in ("fail", "estimate", "format_bytes", "format_cpu_list", "shown")
    and not name.startswith("_")
]

FACTS = st.builds(
    Fact,
    resource=st.sampled_from(["cpu", "memory"]),
    amount=st.none() | st.integers(0, 2**40),
    role=st.sampled_from(
        ["capacity", "limit", "cap", "override", "soft", "available", "soft_available"]
    ),
    source=st.sampled_from(["affinity", "cgroup2:cpu.max", "system:online", "env:X"]),
    where=st.sampled_from(["/a", "/a/b", "X"]),
    raw=st.just("raw"),
)


def test_there_are_parsers():
    assert len(PARSERS) >= 19


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
@given(text=TEXTS | NEARLY)
def test_parsers_raise_nothing_but_parse_errors(parser, text):
    try:
        parser(text)
    except ParseError as error:
        assert str(error)


@given(
    text=TEXTS | NEARLY,
    version=st.sampled_from([1, 2]),
    node=st.none() | st.integers(0),
)
def test_parsers_of_two_arguments_too(text, version, node):
    parse_cgroup.own_cgroup(text, "cpu")
    parse_cgroup.cgroup_mounts(text, version, "cpu")
    for attempt in (
        lambda: parse_jobs.slurm_count(text, node),
        lambda: parse.line(text, "inactive_file "),
        lambda: parse_jobs.classad(text, "Cpus"),
    ):
        try:
            attempt()
        except ParseError as error:
            assert str(error)


@given(cpus=st.frozensets(st.integers(0, 4096)))
def test_a_formatted_cpu_list_is_parsed_back(cpus):
    assert parse.cpu_list(parse.format_cpu_list(cpus)) == cpus


@given(facts=st.lists(FACTS, max_size=8), data=st.data())
def test_the_order_of_facts_does_not_matter(facts, data):
    shuffled = data.draw(st.permutations(facts))
    assert combine_cpu(shuffled) == combine_cpu(facts)
    assert combine_memory(shuffled) == combine_memory(facts)


@given(facts=st.lists(FACTS, max_size=8), added=FACTS)
def test_limits_never_grow_when_a_limit_is_added(facts, added):
    if added.role in ("limit", "cap"):
        before, after = combine(facts), combine([*facts, added])
        assert _at_most(after.cpu.limit, before.cpu.limit)
        assert _at_most(after.memory.limit, before.memory.limit)
        assert _at_most(after.memory.available, before.memory.available)


def _at_most(after, before):
    return before is None or (after is not None and after <= before)


@given(facts=st.lists(FACTS, max_size=8))
def test_each_limit_is_the_amount_of_its_binding_fact(facts):
    limits = combine(facts)
    assert limits.cpu.limit == (limits.cpu.binding and limits.cpu.binding.amount)
    if limits.memory.limit is not None:
        assert limits.memory.limit == limits.memory.binding.amount


@given(
    limit=st.none() | st.floats(0.01, 4096),
    reserve=st.integers(0, 10),
    rounding=st.sampled_from(["floor", "nearest", "ceil"]),
)
def test_there_is_always_a_core(limit, reserve, rounding):
    assert whole_cores(limit, rounding=rounding, reserve=reserve) >= 1


@given(limit=st.floats(0.01, 4096))
def test_roundings_are_ordered_and_within_one(limit):
    floor, nearest, ceil = (
        whole_cores(limit, rounding=rounding)
        for rounding in ("floor", "nearest", "ceil")
    )
    assert floor <= nearest <= ceil <= floor + 1


PATHS = st.sampled_from(
    [
        "/proc/self/cgroup",
        "/proc/self/mountinfo",
        "/proc/meminfo",
        "/sys/fs/cgroup/cpu.max",
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.stat",
        "/sys/devices/system/cpu/online",
    ]
)

HOSTS = st.builds(
    Recorded,
    files=st.dictionaries(PATHS | TEXTS, TEXTS | NEARLY),
    unreadable=st.dictionaries(PATHS, st.sampled_from(["EACCES", "EIO", "ENODEV"])),
    env=st.dictionaries(
        st.sampled_from(
            ["CORESIZE_OVERRIDE_CORES", "NCPUS", "PBS_JOBID", "SLURM_JOB_ID"]
        ),
        st.sampled_from(["", "1", "8.5", "x"]),
    ),
    affinity=st.none() | st.frozensets(st.integers(0, 300)),
    cpu_count=st.none() | st.integers(1, 300),
    memory=st.sampled_from([(None, None), (2**34, 2**33), (2**34, None)]),
    hostname=st.none() | st.just("me"),
)


@given(host=HOSTS)
def test_detection_raises_for_wrong_settings_alone(host):
    try:
        limits = detect(host)
    except ConfigError as error:
        assert error.setting == "CORESIZE_OVERRIDE_CORES"
    else:
        assert limits.cpu.limit is None or limits.cpu.limit > 0


@given(host=HOSTS)
def test_what_was_recorded_replays_to_the_same_answer(host):
    try:
        first = detect(host)
    except ConfigError:
        return
    replayed = hostfile.loads(hostfile.dumps(record_host(host)), "x").host
    assert detect(replayed) == first


@given(text=TEXTS | NEARLY)
def test_a_host_file_is_understood_or_refused(text):
    try:
        hostfile.loads(text, "x")
    except HostFileError as error:
        assert str(error).startswith("host file x: ")
