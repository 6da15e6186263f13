"""The CPUs this process may run on; the kernel has intersected them with the cpuset."""

from __future__ import annotations

from coresize import units
from coresize.detection import parse
from coresize.detection.reading import gap, keep_last, not_told
from coresize.errors import ParseError
from coresize.model import AFFINITY, Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host

_WHERE = "sched_getaffinity(0)"
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/{}"


def affinity(host: Host) -> tuple[FactOrGap, AbstractSet[int] | None]:
    """The number of CPUs in the affinity mask, and the CPUs (sched_getaffinity(2))."""
    try:
        cpus = host.affinity()
    except OSError as error:
        return gap(error, resource="cpu", source=AFFINITY, where=_WHERE), None
    if not cpus:
        return not_told("cpu", AFFINITY, _WHERE), None
    return _count(frozenset(cpus)), cpus


@keep_last
def _count(cpus: frozenset[int]) -> Fact:
    """The number of CPUs in a mask, as a fact."""
    return Fact(
        resource="cpu",
        amount=float(len(cpus)),
        role="limit",
        source=AFFINITY,
        where=_WHERE,
        raw=parse.format_cpu_list(cpus),
    )


def physical_cores(host: Host, cpus: AbstractSet[int] | None) -> FactOrGap:
    """The number of physical cores among the CPUs of the affinity mask.

    On Linux, the number of distinct (package, core) pairs (kernel
    Documentation/admin-guide/cputopology.rst); elsewhere, the number of cores of the
    whole machine, from the platform.
    """
    where, source = "the platform", "system:physical_cores"
    count = host.physical_cores()
    if count is None and cpus:
        where, source = _TOPOLOGY.format("*", "core_id"), "system:topology"
        try:
            count = len({_core(host, cpu) for cpu in cpus})
        except (OSError, ParseError) as error:
            return gap(error, resource="cpu", source=source, where=where)
    if not count:
        return not_told("cpu", source, where)
    return Fact(
        resource="cpu",
        amount=float(count),
        role="limit",
        source=source,
        where=where,
        raw=str(count),
    )


def _core(host: Host, cpu: int) -> tuple[str, int]:
    """The package and core of a CPU; both are numbers, and a package may be -1."""
    package = host.read(_TOPOLOGY.format(cpu, "physical_package_id")).strip()
    units.whole(package.removeprefix("-"))
    return package, units.whole(host.read(_TOPOLOGY.format(cpu, "core_id")))
