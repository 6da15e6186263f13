"""Reads every source that can limit this process; keeps no limit between calls."""

from __future__ import annotations

from coresize.detection import (
    affinity,
    cgroup,
    cgroup_v1,
    cgroup_v2,
    cpuset,
    environ,
    system,
)
from coresize.detection.cgroup import read_membership
from coresize.detection.environ import read_variables, reserved_cores
from coresize.detection.parse_cgroup import LXCFS
from coresize.detection.reading import keep_last


__all__ = [
    "cpu",
    "memory",
    "others",
    "read_membership",
    "read_variables",
    "reserved_cores",
]


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from coresize.detection.cgroup import Membership
    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource

    Source: TypeAlias = Callable[[Host, tuple[str, ...]], Iterator[FactOrGap]]


def _of_cgroups(
    host: Host,
    membership: Membership,
    controller: str,
    resource: Resource,
    ask: Mapping[int, Source],
) -> Iterator[FactOrGap]:
    """Yield the facts and gaps from the cgroups that limit this process."""
    chains, gaps = cgroup.locate(membership, controller, resource)
    yield from gaps
    for version, directories in chains:
        found = False
        for finding in ask[version](host, directories):
            found = True
            yield finding
        if not found:
            yield from cgroup.check_shown(host, version, directories[-1], resource)


def _with_shares(
    host: Host, resource: Resource, findings: Iterator[FactOrGap]
) -> Iterator[FactOrGap]:
    """The facts and gaps, and this rank's shares; few programs are ranks."""
    from coresize.detection import ranks

    return ranks.with_shares(host, resource, findings)


_QUOTAS = {1: cgroup_v1.quotas, 2: cgroup_v2.quotas}
_MEMORY = {1: cgroup_v1.memory, 2: cgroup_v2.memory}


def _of_platform(host: Host, what: str) -> Iterator[FactOrGap]:
    """The facts and gaps that only system calls of Windows tell."""
    if host.platform != "win32":
        return iter(())
    from coresize.detection import platforms  # no other system has it

    return platforms.READERS[what](host)


def cpu(
    host: Host,
    membership: Membership,
    variables: dict[str, str],
    *,
    capacity: bool = True,
    physical: bool = False,
) -> Iterator[FactOrGap]:
    """Facts and gaps about cores: machine, affinity, cgroups and environment.

    Args:
        host: the machine.
        membership: the cgroups of this process, from `read_membership`.
        variables: the marks of the job and the overrides, from `read_variables`.
        capacity: read the CPUs online even if they cannot change the answer. The
            kernel keeps the affinity within them (sched_getaffinity(2)); only lxcfs
            shows fewer CPUs to a container, and mountinfo shows lxcfs.
        physical: count physical cores too.

    Raises:
        ConfigError: a variable of coresize is malformed.
    """
    ranks = environ.shares_ranks(variables)
    found = _cpu(
        *(host, membership, variables),
        capacity=capacity or ranks,
        physical=physical,
        cpusets=ranks,
    )
    return _with_shares(host, "cpu", found) if ranks else found


def _cpu(
    host: Host,
    membership: Membership,
    variables: dict[str, str],
    *,
    capacity: bool,
    physical: bool,
    cpusets: bool,
) -> Iterator[FactOrGap]:
    """See `cpu`; ``cpusets`` reads the cpusets even if the affinity is known."""
    mask, cpus = affinity.affinity(host)
    if capacity or not cpus or _may_show_fewer(membership):
        yield from system.online_cpus(host)
    yield mask
    yield from _of_platform(host, "cores")
    if physical:
        yield affinity.physical_cores(host, cpus)
    yield from _of_cgroups(host, membership, "cpu", "cpu", _QUOTAS)
    if cpusets or not cpus:  # the affinity contains the cpuset
        chains, _ = cgroup.locate(membership, "cpuset", "cpu")
        for version, directories in chains:
            yield from cpuset.cpus(host, version, directories)
    yield from environ.findings(host, variables, "cpu")


@keep_last
def _may_show_fewer(membership: Membership) -> bool:
    """Whether lxcfs may show fewer CPUs online than the affinity has."""
    return not membership.mountinfo or LXCFS in membership.mountinfo


def memory(
    host: Host, membership: Membership, variables: dict[str, str]
) -> Iterator[FactOrGap]:
    """Facts and gaps about memory: machine, cgroups and environment.

    Arguments and errors are those of `cpu`.
    """
    found = _memory(host, membership, variables)
    ranks = environ.shares_ranks(variables)
    return _with_shares(host, "memory", found) if ranks else found


def _memory(
    host: Host, membership: Membership, variables: dict[str, str]
) -> Iterator[FactOrGap]:
    """See `memory`."""
    from coresize.detection import memory as machine_memory  # the cores need none
    from coresize.detection import memory_nodes, rlimits

    yield from machine_memory.machine(host)
    yield from memory_nodes.memory(host, membership)
    yield from _of_cgroups(host, membership, "memory", "memory", _MEMORY)
    yield from rlimits.memory(host)
    yield from _of_platform(host, "memory")
    yield from environ.findings(host, variables, "memory")


def others(
    host: Host, membership: Membership, variables: dict[str, str]
) -> Iterator[FactOrGap]:
    """Facts and gaps about GPUs, from the environment, and about workers of a pool."""
    from coresize.detection import worker_limits  # the cores do not need it

    yield from environ.findings(host, variables, "gpu")
    yield from worker_limits.platform(host)
    yield from _of_platform(host, "processes")
    # The gaps of the membership are those of the cores and the memory.
    chains, _ = cgroup.locate(membership, "pids", "processes")
    for version, directories in chains:
        yield from worker_limits.pids(host, version, directories)
    yield from worker_limits.rlimits(host)
    yield from worker_limits.kernel(host)
