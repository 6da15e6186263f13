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
_ONLINE = "/sys/devices/system/cpu/online"
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/{}"

#: The files that list the hardware threads of a core, and their grammars.
_THREADS = (
    ("core_cpus_list", parse.cpu_list),
    ("thread_siblings_list", parse.cpu_list),
    ("core_cpus", parse.cpu_mask),
    ("thread_siblings", parse.cpu_mask),
)

#: What contains a core, outermost first: on s390, books and drawers too. Not every
#: processor and kernel has each.
_CONTAINERS = ("drawer_id", "book_id", "physical_package_id", "die_id", "cluster_id")


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
    """The number of physical cores that the affinity mask permits.

    A core counts if this process may run on any of its threads. On Linux, the topology
    files tell the cores apart (kernel Documentation/admin-guide/cputopology.rst);
    elsewhere, the platform knows the number of cores of the whole machine.
    """
    where, source = _TOPOLOGY.format("*", "core_cpus_list"), "system:topology"
    missing = not_told("cpu", source, where)
    try:
        count: int | None = len({_core(host, cpu) for cpu in _online(host, cpus)})
    except (OSError, ParseError) as error:
        count, missing = None, gap(error, resource="cpu", source=source, where=where)
    if not count and (count := host.physical_cores()):
        where, source = "the platform", "system:physical_cores"
    if not count:
        return missing
    return Fact(
        resource="cpu",
        amount=float(count),
        role="limit",
        source=source,
        where=where,
        raw=str(count),
    )


def _online(host: Host, cpus: AbstractSet[int] | None) -> AbstractSet[int]:
    """The CPUs of the mask that are online; an offline CPU has no topology."""
    try:
        online = parse.cpu_list(host.read(_ONLINE))
    except (OSError, ParseError):
        return cpus or frozenset()
    return online if cpus is None else (cpus & online or cpus)


def threads_of_core(host: Host, cpu: int) -> frozenset[int]:
    """The hardware threads of the core of a CPU; empty if no file lists them.

    Kernels before 5.3 have the list under another name; some sandboxes have no list.
    """
    for name, parser in _THREADS:
        try:
            threads = parser(host.read(_TOPOLOGY.format(cpu, name)))
        except (OSError, ParseError):
            continue
        if cpu in threads:  # otherwise the list is about another CPU
            return threads
    return frozenset()


def _core(host: Host, cpu: int) -> object:
    """What identifies the core of a CPU: its hardware threads, else its place.

    core_id is unique only within its cluster, die or package, depending on the
    processor; the list of threads identifies the core on every machine.
    """
    return threads_of_core(host, cpu) or _place(host, cpu)


def _place(host: Host, cpu: int) -> tuple[str, ...]:
    """The numbers of all that contains the core, and the core's own number."""
    core = units.whole(host.read(_TOPOLOGY.format(cpu, "core_id")))
    return *(_number(host, cpu, name) for name in _CONTAINERS), f"{core}"


def _number(host: Host, cpu: int, name: str) -> str:
    """The number of one thing that contains the core; "" without such a file."""
    try:
        number = host.read(_TOPOLOGY.format(cpu, name)).strip()
    except FileNotFoundError:
        return ""
    units.whole(number.removeprefix("-"))  # -1 where the firmware does not tell
    return number
