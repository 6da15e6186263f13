"""The front door: how much of this machine this process may really use."""

from __future__ import annotations

from coresize.detection import limits, sources
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
    replaces all but the caps. Where nothing at all is known the answer is 1.
    Everything is read anew at each call: a quota that changes while the program runs
    is seen by the next call.

    Args:
        reserve: whole cores to keep free; None takes CORESIZE_RESERVE_CORES, or 0.
        rounding: what becomes of a fraction: "nearest" (8.342 is 8, 1.5 is 2), "floor"
            or "ceil".
        physical: count physical cores, not hardware threads, of those that the affinity
            permits. On Linux from the topology files, elsewhere the machine's.

    Raises:
        ConfigError: an argument or one of the CORESIZE variables is malformed.

    Quotas are known on Linux alone; macOS has no affinity either, and Windows job
    objects are not read.

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

    The smallest, over the own cgroup and every visible ancestor, of the limit less the
    working set (usage without inactive file pages), and what the machine has available.
    Swap is not counted. CORESIZE_OVERRIDE_MEMORY replaces this, CORESIZE_MAX_MEMORY and
    the share that a batch scheduler announces bound it. 0 means that nothing is left,
    or that nothing is known: then ``detect().memory.available`` is None.

    Raises:
        ConfigError: one of the CORESIZE variables is malformed.

    cgroup limits are known on Linux alone; elsewhere this is what psutil calls
    available.

    Sources: kernel Documentation/admin-guide/cgroup-v2.rst, "Memory", and proc(5),
    MemAvailable.

    >>> from coresize import available_memory
    >>> available_memory() > 0
    True
    """
    return memory_of(current())


def detect(host: Host | None = None) -> Limits:
    """What this process may use, which fact binds, and what could not be read.

    Args:
        host: the machine to ask; None is this one. `coresize.testing` has others.

    Returns:
        Cores (a float: nothing is rounded here) and bytes of memory, with every fact
        and where it was read.

    Raises:
        ConfigError: one of the CORESIZE variables is malformed.

    On macOS, Windows and others it holds what psutil tells. Sources: those of
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
            *sources.cpu(host, membership, variables),
            *sources.memory(host, membership, variables),
            *sources.others(host, variables),
        )
    )


def cores_of(
    host: Host, *, reserve: int | None, rounding: str, physical: bool = False
) -> int:
    """The cores of any machine; see `available_cores`."""
    variables, membership = _read_common(host)
    # A recording may have more CPUs in the affinity than online; a kernel has not.
    capacity = not isinstance(host, Live)
    findings = sources.cpu(
        host, membership, variables, capacity=capacity, physical=physical
    )
    limit = _cpu_limit(tuple(findings))
    if reserve is None:
        reserve = sources.reserved_cores(variables)
    return limits.whole_cores(limit, rounding=rounding, reserve=reserve)


def memory_of(host: Host) -> int:
    """The available memory of any machine in bytes; see `available_memory`."""
    return memory_limits(host).available or 0


def memory_limits(host: Host) -> MemoryLimits:
    """The memory of any machine, without its cores; see `detect`."""
    variables, membership = _read_common(host)
    return limits.combine_memory(sources.memory(host, membership, variables))


def _read_common(host: Host) -> tuple[dict[str, str], Membership]:
    """What every resource needs, read once."""
    return sources.read_variables(host), sources.read_membership(host)
