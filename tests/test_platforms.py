"""Limits of Windows and the memory pressure of macOS, by recorded answers."""

from __future__ import annotations

import struct

import pytest

from coresize import available_cores, available_memory, detect, diagnose, plan_workers
from coresize.recording import hostfile
from coresize.recording.recorded import Recorded
from coresize.testing import record_host, use_host


GIB, MIB = 1024**3, 1024**2


def limits(flags=0, *, processes=0, process_memory=0, job_memory=0):
    """The answer JOBOBJECT_EXTENDED_LIMIT_INFORMATION of 64 bits."""
    fields = (flags, processes, process_memory, job_memory)
    return struct.pack("<16xI20xI68xQQ16x", *fields).hex()


def rate(flags, *numbers):
    layout = "<II" if len(numbers) == 1 else "<IHH"
    return struct.pack(layout, flags, *numbers).hex()


def status(total, left):
    gib = [number * GIB for number in (16, 8)]
    return struct.pack("<IIQQQQ24x", 64, 50, *gib, total, left).hex()


def windows(**calls):
    return Recorded(
        platform="win32",
        cpu_count=8,
        affinity=frozenset(range(8)),
        memory=(16 * GIB, 8 * GIB),
        calls=calls,
    )


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        (rate(0x5, 2500), 2.0),  # enabled, a hard cap of 25 % of all CPUs
        (rate(0x5, 10_000), 8.0),
        (rate(0x11, 1000, 5000), 4.0),  # enabled, a minimum and a maximum
        (rate(0x3, 9), 8.0),  # a weight
        (rate(0x4, 2500), 8.0),  # not enabled
        (rate(0x1, 2500), 8.0),  # no hard cap
        (rate(0x5, 100), 0.08),
        ("", 8.0),
        ("zz", 8.0),
        ("0500", 8.0),
    ],
)
def test_the_cpu_rate_of_a_job_object(answer, limit):
    found = detect(windows(job_cpu_rate=answer))
    assert found.cpu.limit == pytest.approx(limit)
    malformed = len(answer) < 16
    assert [gap.code for gap in found.gaps] == ["malformed"] * malformed
    with use_host(windows(job_cpu_rate=answer)):
        assert available_cores() == max(1, round(limit))


@pytest.mark.parametrize(
    ("calls", "limit", "available"),
    [
        ({}, None, 8 * GIB),
        ({"job_limits": limits()}, None, 8 * GIB),
        ({"job_limits": limits(0, job_memory=GIB)}, None, 8 * GIB),
        ({"job_limits": limits(0x200, job_memory=2 * GIB)}, 2 * GIB, 2 * GIB),
        (
            {
                "job_limits": limits(0x200, job_memory=2 * GIB),
                "job_memory_usage": struct.pack("<QQ", GIB, GIB).hex(),
            },
            2 * GIB,
            GIB,
        ),
        (
            {
                "job_limits": limits(0x200, job_memory=2 * GIB),
                "job_memory_usage": struct.pack("<QQ", 3 * GIB, GIB).hex(),
            },
            2 * GIB,
            0,
        ),
        ({"memory_status": status(20 * GIB, 3 * GIB)}, None, 3 * GIB),
        ({"memory_status": status(20 * GIB, 12 * GIB)}, None, 8 * GIB),
        ({"job_limits": limits(0x200, job_memory=64 * GIB)}, None, 8 * GIB),
    ],
)
def test_the_memory_of_a_job_object(calls, limit, available):
    memory = detect(windows(**calls)).memory
    assert (memory.limit, memory.available) == (limit, available)


def test_a_limit_of_each_process_bounds_no_sum_and_each_task():
    calls = {
        "job_limits": limits(0x100, process_memory=512 * MIB),
        "memory_status": status(512 * MIB, 400 * MIB),
    }
    host = windows(**calls)
    memory = detect(host).memory
    assert (memory.available, memory.available_together) == (400 * MIB, 8 * GIB)
    with use_host(host):
        assert available_memory() == 400 * MIB
    assert plan_workers(memory="256MiB", limits=detect(host)) == 8
    with pytest.raises(Exception, match=r"0\.50 GiB \(536870912\) may be used"):
        plan_workers(memory="1GiB", limits=detect(host), strict=True)


@pytest.mark.parametrize(("most", "active", "workers"), [(12, 4, 6), (100, 4, 8)])
def test_the_processes_of_a_job_object_bound_the_workers(most, active, workers):
    host = windows(
        job_limits=limits(0x8, processes=most),
        job_accounting=struct.pack("<40xI4x", active).hex(),
    )
    (fact,) = [f for f in detect(host).facts if f.resource == "processes"]
    assert (fact.amount, fact.raw) == (most - active, f"{most} - {active}")
    assert plan_workers(limits=detect(host)) <= workers


def test_answers_are_recorded_and_replayed():
    host = windows(job_cpu_rate=rate(0x5, 2500), memory_status=status(GIB, GIB))
    text = hostfile.dumps(record_host(host))
    again = hostfile.loads(text, "x").host
    assert again.calls() == host.calls()
    assert detect(again) == detect(host)


@pytest.mark.parametrize(
    ("level", "title"),
    [
        ("01000000", ""),
        ("02000000", "macOS calls its memory pressure a warning"),
        ("04000000", "macOS calls its memory pressure critical"),
        ("zz", ""),
    ],
)
def test_the_memory_pressure_of_macos(level, title):
    calls = {"vm_pressure_level": level}
    with use_host(Recorded(platform="darwin", cpu_count=8, calls=calls)):
        found = diagnose(measure=False).findings
    told = [one.title for one in found if one.check == "pressure"]
    assert told == ([title] if title else [])
