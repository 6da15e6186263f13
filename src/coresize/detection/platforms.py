"""Limits that Windows tells by system calls: job objects, and what may be committed.

A job object bounds the processes in it, as a cgroup does on Linux; containers and CI
systems on Windows use them. `coresize.host.Host.calls` has the answers as the system
wrote them; this module knows their layout (winnt.h, sysinfoapi.h, for processes of 64
bits). Of nested job objects, a process can ask the innermost alone.

Sources: learn.microsoft.com, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
JOBOBJECT_CPU_RATE_CONTROL_INFORMATION, "Nested Jobs" and MEMORYSTATUSEX.
"""

from __future__ import annotations

import struct

from coresize.detection.reading import gap
from coresize.errors import ParseError
from coresize.model import Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource, Role

_WHERE = "QueryInformationJobObject"
_STATUS = "GlobalMemoryStatusEx"

#: Flags of CPU rate control. The rate is a hard bound, or the greater of two bounds, in
#: hundredths of a percent of all CPUs; a weight bounds nothing.
_ENABLED, _HARD_CAP, _MIN_MAX, _WHOLE = 0x1, 0x4, 0x10, 10_000

#: Flags of the limits of a job: which of its fields are set.
_PROCESSES, _PROCESS_MEMORY, _JOB_MEMORY = 0x8, 0x100, 0x200


def cores(host: Host) -> Iterator[FactOrGap]:
    """Yield the CPU rate of the job object in cores; nothing if it has none."""
    text = host.calls().get("job_cpu_rate")
    cpus = host.cpu_count()
    if text is None or not cpus:
        return
    try:
        flags, rate = _unpack("<II", text)
        _, _, most = _unpack("<IHH", text)
    except ParseError as error:
        yield gap(error, resource="cpu", source="job:CpuRate", where=_WHERE)
        return
    if flags & _ENABLED and flags & (_HARD_CAP | _MIN_MAX):
        used = rate if flags & _HARD_CAP else most
        amount = cpus * used / _WHOLE
        yield _fact("cpu", amount, "limit", "CpuRate", f"{used}/{_WHOLE} x {cpus}")


def memory(host: Host) -> Iterator[FactOrGap]:
    """Yield the limits of the job object's memory, and what may still be committed.

    ``ullAvailPageFile`` is what this process can commit, also by the limits of outer
    job objects. If the job limits each process, it tells nothing of all together.
    """
    calls = host.calls()
    limited = False
    try:
        for name, limit, role in _limits(calls):
            limited |= name == "ProcessMemoryLimit"
            resource: Resource = "data" if name == "ProcessMemoryLimit" else "memory"
            yield _fact(resource, limit, role, name, str(limit))
        if "memory_status" in calls:
            *_, left = _unpack("<IIQQQQ", calls["memory_status"])
            yield Fact(
                resource="process_memory" if limited else "memory",
                amount=left,
                role="available",
                source="system:ullAvailPageFile",
                where=_STATUS,
                raw=str(left),
            )
    except ParseError as error:
        yield gap(error, resource="memory", source="job:limits", where=_WHERE)


def processes(host: Host) -> Iterator[FactOrGap]:
    """Yield how many more processes the job object permits; nothing without a limit."""
    calls = host.calls()
    if "job_limits" not in calls or "job_accounting" not in calls:
        return
    try:
        flags, most = _unpack("<16xI20xI", calls["job_limits"])
        (active,) = _unpack("<40xI", calls["job_accounting"])
    except ParseError as error:
        yield gap(error, resource="processes", source="job:limits", where=_WHERE)
        return
    if flags & _PROCESSES:
        left, raw = max(0, most - active), f"{most} - {active}"
        yield _fact("processes", left, "available", "ActiveProcessLimit", raw)


#: What tells about each resource.
READERS = {"cores": cores, "memory": memory, "processes": processes}


def _limits(calls: dict[str, str]) -> Iterator[tuple[str, int, Role]]:
    """Yield the names, bytes and roles of the limits of memory that the job has."""
    if "job_limits" not in calls:
        return
    flags, process, job = _unpack("<16xI92xQQ", calls["job_limits"])
    if flags & _PROCESS_MEMORY:
        yield "ProcessMemoryLimit", process, "limit"
    if flags & _JOB_MEMORY:
        yield "JobMemoryLimit", job, "limit"
        if "job_memory_usage" in calls:  # Windows 10
            (used,) = _unpack("<Q", calls["job_memory_usage"])
            yield "JobMemory", max(0, job - used), "available"


def _fact(resource: Resource, amount: float, role: Role, name: str, raw: str) -> Fact:
    return Fact(
        resource=resource,
        amount=amount,
        role=role,
        source=f"job:{name}",
        where=_WHERE,
        raw=raw,
    )


def _unpack(layout: str, text: str) -> tuple[int, ...]:
    """The numbers at the beginning of an answer.

    Raises:
        ParseError: the text is not hexadecimal, or too short.
    """
    try:
        return struct.unpack_from(layout, bytes.fromhex(text))
    except (ValueError, struct.error):
        msg = f"{text[:40]!r} is not an answer of the system"
        raise ParseError(msg) from None
