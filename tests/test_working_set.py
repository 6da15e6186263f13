"""What is left below a memory limit: the cache is given up, all else stays.

Whether the kernel does so is measured in tests/live/test_working_set.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import detect
from coresize.cli.report import as_text
from coresize.recording.recorded import Recorded, Recording


MIB = 1024**2
LIMIT, USED = 512 * MIB, 448 * MIB

#: By version: the mount, the line of /proc/self/cgroup, and the files with the limit
#: and the usage.
VERSIONS = {
    1: ("cgroup cgroup rw,memory", "4:memory:", "limit_in_bytes", "usage_in_bytes"),
    2: ("cgroup2 cgroup2 rw", "0::", "max", "current"),
}


def _host(version, levels, *, own="/"):
    """A machine whose cgroups have limits, usages and caches.

    The levels are (limit, used, lines of memory.stat, memory.min) by the path.
    """
    mount, line, limit_file, usage_file = VERSIONS[version]
    files = {
        "/proc/self/cgroup": f"{line}{own}\n",
        "/proc/self/mountinfo": f"30 23 0:26 / /sys/fs/cgroup rw - {mount}\n",
        "/sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "/proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 62914560 kB\n",
    }
    for path, (limit, used, stat, low) in levels.items():
        folder = f"/sys/fs/cgroup{path.rstrip('/')}"
        files[f"{folder}/memory.{limit_file}"] = f"{limit}\n"
        files[f"{folder}/memory.{usage_file}"] = f"{used}\n"
        lines = [f"{name} {value}\n" for name, value in stat.items()]
        if version == 1:
            lines.append(f"hierarchical_memory_limit {limit}\n")
        files[f"{folder}/memory.stat"] = "".join(lines)
        if low is not None:
            files[f"{folder}/memory.min"] = f"{low}\n"
    return Recorded(files=files, affinity={0}, cpu_count=1)


def _alone(version, **stat):
    return _host(version, {"/": (LIMIT, USED, stat, None)})


#: name: (version, lines of memory.stat in MiB, MiB that are left at least and at most)
STATES = {
    "nothing": (2, {"inactive_file": 0, "active_file": 0}, 64, 64),
    "read once": (2, {"inactive_file": 400, "active_file": 0}, 464, 464),
    "read often": (2, {"inactive_file": 0, "active_file": 400}, 436, 464),
    "both": (2, {"inactive_file": 200, "active_file": 200}, 436, 464),
    "dirty": (2, {"file_dirty": 200, "inactive_file": 400}, 264, 320),
    "being written": (
        2,
        {"file_writeback": 400, "active_file": 400, "inactive_file": 0},
        64,
        164,
    ),
    "mapped": (
        2,
        {"file_mapped": 400, "active_file": 400, "inactive_file": 0},
        436,
        464,
    ),
    "locked": (2, {"file": 400, "unevictable": 400, "inactive_file": 0}, 64, 64),
    "tmpfs": (
        2,
        {"file": 400, "shmem": 400, "inactive_anon": 400, "inactive_file": 0},
        64,
        64,
    ),
    "names": (2, {"inactive_file": 0, "slab_reclaimable": 400}, 400, 464),
    "names in a tmpfs": (
        2,
        {"inactive_file": 0, "slab_reclaimable": 50, "slab_unreclaimable": 200},
        64,
        64,
    ),
    "open files": (
        2,
        {"inactive_file": 0, "slab_reclaimable": 240, "slab_unreclaimable": 48},
        64,
        110,
    ),
    "objects": (
        2,
        {"inactive_file": 0, "slab": 400, "slab_unreclaimable": 400},
        64,
        64,
    ),
    "v1, read once": (1, {"total_inactive_file": 400}, 464, 464),
    "v1, read often": (
        1,
        {"total_inactive_file": 0, "total_active_file": 400},
        436,
        464,
    ),
    "v1, dirty": (1, {"total_dirty": 200, "total_inactive_file": 400}, 464, 464),
    "v1, own lines": (1, {"inactive_file": 0, "active_file": 400}, 436, 464),
    # v1 with hierarchy: the lines without "total_" are those of the directory alone.
    "v1, cgroups below": (
        1,
        {
            "inactive_file": 1,
            "active_file": 1,
            "total_inactive_file": 200,
            "total_active_file": 200,
        },
        436,
        464,
    ),
    "v1, tmpfs": (
        1,
        {"total_cache": 400, "total_shmem": 400, "total_inactive_file": 0},
        64,
        64,
    ),
    "v1, locked": (
        1,
        {"total_cache": 400, "total_unevictable": 400, "total_inactive_file": 0},
        64,
        64,
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_cache_is_left_and_nothing_else(name):
    version, stat, least, most = STATES[name]
    limits = detect(_alone(version, **{key: n * MIB for key, n in stat.items()}))
    assert least * MIB <= limits.memory.available <= most * MIB
    assert not [gap for gap in limits.gaps if gap.resource == "memory"]


#: Pairs of states that were measured (decision 13) and whose numbers do not differ: the
#: version, the limit, the usage and the lines of memory.stat in MiB, and what a child
#: had before the kernel killed it. The second one of a pair bounds what may be told.
PAIRS = {
    "v1, slab: a cache": (1, 256, 138.5, {"total_active_file": 0.02}, 243.7),
    "v1, slab: held": (1, 256, 138.7, {"total_active_file": 0.01}, 115.9),
    "v2, dirty: fast disk": (
        2,
        96,
        61.5,
        {"inactive_file": 49.0, "active_file": 0.2, "file_dirty": 48.0},
        83.6,
    ),
    "v2, dirty: slow disk": (
        2,
        96,
        65.6,
        {"inactive_file": 48.4, "active_file": 0.0, "file_dirty": 48.0},
        54.2,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_where_numbers_do_not_tell_the_lower_amount_is_told(name):
    version, limit, used, stat, had = PAIRS[name]
    lines = {"total_inactive_file": 0} if version == 1 else {}
    lines |= {line: int(size * MIB) for line, size in stat.items()}
    levels = {"/": (limit * MIB, int(used * MIB), lines, None)}
    told = detect(_host(version, levels)).memory.available
    assert told <= (had + 4) * MIB


#: A line that cannot be read counts as no cache, and says so; the others still count.
@pytest.mark.parametrize(
    ("stat", "left", "gaps"),
    [
        ({"active_file": 0}, 64, ["no line begins with 'inactive_file '"]),
        ({"inactive_file": 64 * MIB}, 128, []),
        ({"inactive_file": "x", "active_file": 0}, 64, ["'x' is not a whole number"]),
        (
            {"inactive_file": 64 * MIB, "active_file": "-1"},
            128,
            ["'-1' is not a whole number"],
        ),
        (
            {"inactive_file": 0, "slab_reclaimable": ""},
            64,
            ["'' is not a whole number"],
        ),
    ],
)
def test_odd_lines(stat, left, gaps):
    limits = detect(_alone(2, **stat))
    assert limits.memory.available == left * MIB
    assert [gap.reason for gap in limits.gaps if gap.resource == "memory"] == gaps


SIZES = st.integers(0, 2**50)


@given(
    version=st.sampled_from((1, 2)),
    limit=SIZES,
    used=SIZES,
    caches=st.tuples(SIZES, SIZES, SIZES),
)
def test_what_is_left_lies_between_two_bounds(version, limit, used, caches):
    """At least what inactive pages leave, at most what is left without any cache."""
    inactive, active, slab = caches
    prefix = "total_" if version == 1 else ""
    stat = {
        f"{prefix}inactive_file": inactive,
        f"{prefix}active_file": active,
        "slab_reclaimable": slab,
    }
    host = _host(version, {"/": (limit, used, stat, None)})
    (left,) = (
        fact
        for fact in detect(host).facts
        if (fact.role, fact.source) == ("available", f"cgroup{version}:working set")
    )
    cache = inactive + active + (slab if version == 2 else 0)
    assert max(0, limit - max(0, used - inactive)) <= left.amount
    assert left.amount <= max(0, limit - max(0, used - cache)) <= limit
    spared = active + (slab if version == 2 else 0)
    assert left.amount >= max(0, limit - max(0, used - cache + spared // 8))


# --- Neighbours below a limit of the parent -------------------------------------------

#: The parent has 512 MiB, of which 128 are free; the neighbour has 256 MiB of cache and
#: 64 MiB besides. name: (the neighbour's memory.min in MiB, MiB left).
NEIGHBOURS = {
    "no such file": (None, 384),
    "nothing": (0, 384),
    "less than is no cache": (32, 384),
    "a part of the cache": (128, 384 - 64),
    "all": (320, 128),
    "more than is used": (512, 128),
}


def _family(low, **own):
    cache = {"inactive_file": 256 * MIB, "active_file": 0}
    return _host(
        2,
        {
            "/p": (512 * MIB, 384 * MIB, cache, None),
            "/p/own": ("max", 64 * MIB, {"inactive_file": 0}, None, *own),
            "/p/other": (
                "max",
                320 * MIB,
                cache,
                None if low is None else low * MIB,
            ),
        },
        own="/p/own",
    )


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_cache_of_a_neighbour_is_left_unless_protected(name):
    low, left = NEIGHBOURS[name]
    assert detect(_family(low)).memory.available == left * MIB


def test_a_protection_without_a_bound():
    host = _family(0)
    host.files["/sys/fs/cgroup/p/other/memory.min"] = "max\n"
    assert detect(host).memory.available == 128 * MIB


@pytest.mark.parametrize("text", ["", "x\n", "-1\n"])
def test_an_odd_protection_is_none(text):
    host = _family(0)
    host.files["/sys/fs/cgroup/p/other/memory.min"] = text
    assert detect(host).memory.available == 384 * MIB


def test_the_own_protection_is_no_neighbours():
    """What this process takes soon exceeds the memory.min of its own cgroup."""
    host = _family(0)
    host.files["/sys/fs/cgroup/p/own/memory.min"] = f"{256 * MIB}\n"
    assert detect(host).memory.available == 384 * MIB


def test_a_neighbours_limit_says_nothing_of_the_own():
    host = _family(512)
    host.files["/sys/fs/cgroup/p/memory.max"] = "max\n"
    host.files["/sys/fs/cgroup/p/own/memory.max"] = f"{256 * MIB}\n"
    assert detect(host).memory.available == 192 * MIB


def test_a_recording_answers_as_its_machine():
    host = Recording(_family(128))
    assert detect(host.noted) != detect(host)
    assert detect(host.noted).memory == detect(host.host).memory


# --- What the report says -------------------------------------------------------------


@pytest.mark.parametrize(
    ("stat", "said"),
    [
        ({"inactive_file": 400 * MIB}, "64.0 MiB free, 400.0 MiB of cache that"),
        ({"inactive_file": 0}, "64.0 MiB free, 0 bytes of cache that"),
    ],
)
def test_the_report_tells_free_memory_from_cache(stat, said):
    limits = detect(_alone(2, **stat))
    assert said in as_text(limits, cores=1, reserve=0)


def test_each_number_has_its_source():
    limits = detect(_alone(2, inactive_file=100, active_file=1600, slab_reclaimable=8))
    facts = {
        fact.role: (fact.amount, fact.source, fact.raw)
        for fact in limits.facts
        if fact.source.startswith("cgroup2:") and fact.role != "limit"
    }
    assert facts == {
        "used": (USED, "cgroup2:memory.current", str(USED)),
        "reclaimable": (
            1607,
            "cgroup2:memory.stat",
            "inactive_file 100, active_file 1600, slab_reclaimable 8 - 101",
        ),
        "available": (
            LIMIT - USED + 1607,
            "cgroup2:working set",
            f"{LIMIT} - ({USED} - 1607)",
        ),
    }
