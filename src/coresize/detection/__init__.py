"""Ask every source that can limit this process; one call, one answer, nothing kept."""

from __future__ import annotations

from coresize.detection import affinity, cgroup, cgroup_v1, cgroup_v2, environ, system
from coresize.detection.cgroup import read_membership
from coresize.detection.environ import read_variables, reserved_cores
from coresize.detection.parse import LXCFS


__all__ = ["cpu", "memory", "read_membership", "read_variables", "reserved_cores"]


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.cgroup import Membership
    from coresize.detection.reading import Finding
    from coresize.host import Host

_VERSIONS = {1: cgroup_v1, 2: cgroup_v2}


def cpu(
    host: Host,
    membership: Membership,
    variables: dict[str, str],
    *,
    capacity: bool = True,
    physical: bool = False,
) -> Iterator[Finding]:
    """What the machine, the affinity, the cgroups and the environment say about cores.

    Args:
        host: the machine.
        membership: in which cgroups this process is, of `read_membership`.
        variables: in which job, and the overrides, of `read_variables`.
        capacity: ask for the CPUs online even where that cannot change the answer. The
            kernel keeps the affinity within them (sched_getaffinity(2)); only lxcfs
            shows a container fewer, and mountinfo shows lxcfs.
        physical: count physical cores too.

    Raises:
        ConfigError: a variable of coresize's own is malformed.
    """
    mask, cpus = affinity.affinity(host)
    if capacity or not cpus or LXCFS in membership.mountinfo:
        yield from system.online_cpus(host)
    yield mask
    if physical:
        yield from affinity.physical_cores(host, cpus)
    chains, gaps = cgroup.locate(membership, "cpu", "cpu")
    yield from gaps
    for version, directories in chains:
        yield from _VERSIONS[version].quotas(host, directories)
    if not cpus:  # the affinity contains the cpuset
        chains, _ = cgroup.locate(membership, "cpuset", "cpu")
        for version, directories in chains:
            yield from _VERSIONS[version].cpusets(host, directories)
    yield from environ.findings(host, variables, "cpu")


def memory(
    host: Host, membership: Membership, variables: dict[str, str]
) -> Iterator[Finding]:
    """What the machine, the cgroups and the environment say about memory.

    Takes and raises what `cpu` does.
    """
    yield from system.memory(host)
    chains, gaps = cgroup.locate(membership, "memory", "memory")
    yield from gaps
    for version, directories in chains:
        yield from _VERSIONS[version].memory(host, directories)
    yield from system.address_space(host)
    yield from environ.findings(host, variables, "memory")
