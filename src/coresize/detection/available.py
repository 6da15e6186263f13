"""The public functions: how much of this machine this process may really use."""

from __future__ import annotations

from coresize.detection import limits, sources
from coresize.detection.environ import with_test_share as shared
from coresize.detection.reading import keep_last
from coresize.host import Live, current


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from coresize.detection.cgroup import Membership
    from coresize.host import Host
    from coresize.model import Limits, MemoryLimits

_cpu_limit = keep_last(limits.cpu_limit)


def available_cores(
    *,
    reserve: int | None = None,
    rounding: Literal["nearest", "floor", "ceil"] = "nearest",
    physical: bool = False,
) -> int:
    """The number of cores that this process may use, at least 1.

    The minimum of the CPUs online, the CPU affinity, the CFS quota of the own cgroup
    and of every visible ancestor (v1, v2 or both), the share that a batch scheduler
    announces, and the caps CORESIZE_MAX_CORES and LOKY_MAX_CPU_COUNT. An override
    (CORESIZE_OVERRIDE_CORES, else PARALLELLY_OVERRIDE_CORES, else PYTHON_CPU_COUNT)
    replaces all but the caps. If no limit is known at all, the answer is 1. Each call
    reads everything anew: after a change of a quota, the next call returns the new
    number.

    Args:
        reserve: whole cores to keep free; None takes CORESIZE_RESERVE_CORES, or 0.
        rounding: how a fraction is rounded: "nearest" (8.342 is 8, 1.5 is 2), "floor"
            or "ceil".
        physical: count physical cores, not hardware threads: on Linux, those that the
            affinity permits, from the topology files; elsewhere, those of the machine.

    Raises:
        ConfigError: an argument or one of the CORESIZE variables is malformed.

    Only Linux has quotas. macOS has no affinity either, and coresize does not read the
    job objects of Windows.

    Sources: kernel Documentation/scheduler/sched-bwc.rst and
    Documentation/admin-guide/cgroup-v2.rst, "CPU".

    >>> from coresize import available_cores
    >>> available_cores() >= 1
    True
    >>> available_cores(reserve=10_000)
    1
    """
    return cores_of(current(), reserve=reserve, rounding=rounding, physical=physical)


def available_memory() -> int:
    """The bytes of memory that this process can still use now.

    The minimum of the memory that the machine has available and, for the own cgroup and
    every visible ancestor, the limit less the working set (usage without inactive file
    pages). Swap is not counted. CORESIZE_OVERRIDE_MEMORY replaces this number;
    CORESIZE_MAX_MEMORY and the share that a batch scheduler announces bound it. 0 means
    that no memory is left, or that nothing is known: then ``detect().memory.available``
    is None.

    Raises:
        ConfigError: one of the CORESIZE variables is malformed.

    Only Linux has cgroup limits; elsewhere this is the number that psutil calls
    available.

    Sources: kernel Documentation/admin-guide/cgroup-v2.rst, "Memory", and proc(5),
    MemAvailable.

    >>> from coresize import available_memory
    >>> available_memory() > 0
    True
    """
    return memory_of(current())


def detect(host: Host | None = None) -> Limits:
    """The limits of this process, the facts that bind, and sources that are unreadable.

    Args:
        host: the machine; None is this machine. `coresize.testing` has others.

    Returns:
        Cores (a float, which is not rounded) and bytes of memory, with all facts and
        the places where they were read.

    Raises:
        ConfigError: one of the CORESIZE variables is malformed.

    On macOS, Windows and others, the facts come from psutil. Sources: those of
    `available_cores` and `available_memory`.

    >>> from coresize import detect
    >>> from coresize.testing import container
    >>> limits = detect(container(cpus=8, quota=8.342))
    >>> limits.cpu.limit, limits.cpu.quota, limits.cpu.binding.source
    (8.0, 8.342, 'system:online')
    """
    host = host or current()
    variables, membership = _read_common(host)
    return limits.combine(
        (
            *shared(variables, "cpu", sources.cpu(host, membership, variables)),
            *shared(variables, "memory", sources.memory(host, membership, variables)),
            *sources.others(host, variables),
        )
    )


def cores_of(
    host: Host, *, reserve: int | None, rounding: str, physical: bool = False
) -> int:
    """The cores of any machine; see `available_cores`."""
    variables, membership = _read_common(host)
    # In a recording, the affinity may have more CPUs than are online; not in a kernel.
    capacity = not isinstance(host, Live)
    findings = sources.cpu(
        host, membership, variables, capacity=capacity, physical=physical
    )
    limit = _cpu_limit(tuple(shared(variables, "cpu", findings)))
    if reserve is None:
        reserve = sources.reserved_cores(variables)
    return limits.whole_cores(limit, rounding=rounding, reserve=reserve)


def memory_of(host: Host) -> int:
    """The available memory of any machine in bytes; see `available_memory`."""
    return memory_limits(host).available or 0


def memory_limits(host: Host) -> MemoryLimits:
    """The memory of any machine, without its cores; see `detect`."""
    variables, membership = _read_common(host)
    findings = sources.memory(host, membership, variables)
    return limits.combine_memory(shared(variables, "memory", findings))


def _read_common(host: Host) -> tuple[dict[str, str], Membership]:
    """The variables and the membership, which every resource needs."""
    return sources.read_variables(host), sources.read_membership(host)
