"""The CPUs and the memory of the machine itself."""

from __future__ import annotations

from coresize.detection import parse
from coresize.detection.reading import not_told, read_fact
from coresize.model import Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource, Role

ONLINE = "/sys/devices/system/cpu/online"
MEMINFO = "/proc/meminfo"


def online_cpus(host: Host) -> Iterator[FactOrGap]:
    """The number of CPUs online, from the kernel's file and from the platform.

    The numbers differ if lxcfs writes a container's share into the file, or if a C
    library returns the affinity.
    """
    online = read_fact(
        host,
        ONLINE,
        parse.online,
        resource="cpu",
        role="capacity",
        source="system:online",
    )
    if online:
        yield online
    listed = online.amount if isinstance(online, Fact) else None
    count = float(host.cpu_count() or 0) or None
    if listed is None or (count is not None and count != listed):
        yield _fact("cpu", "capacity", "cpu_count", count)


def memory(host: Host) -> Iterator[FactOrGap]:
    """The machine's memory in bytes: the total, and the memory available now."""
    asked: tuple[tuple[Role, str, Callable[[str], int]], ...] = (
        ("capacity", "MemTotal:", parse.meminfo_total),
        ("available", "MemAvailable:", parse.meminfo),
    )
    for role, line, parser in asked:
        finding = read_fact(
            host,
            MEMINFO,
            parser,
            resource="memory",
            role=role,
            source="system:meminfo",
            lines=(line,),
        )
        if finding is None:
            break
        yield finding
    else:
        return
    total, available = host.memory()
    yield _fact("memory", "capacity", "memory_total", total or None)
    yield _fact("memory", "available", "memory_available", available)


def address_space(host: Host) -> Iterator[FactOrGap]:
    """RLIMIT_AS in bytes: it bounds address space, not memory (getrlimit(2))."""
    limit = read_fact(
        host,
        "/proc/self/limits",
        parse.address_space,
        resource="address_space",
        role="limit",
        source="rlimit:RLIMIT_AS",
        lines=("Max address space",),
    )
    if limit:
        yield limit


def _fact(resource: Resource, role: Role, name: str, amount: float | None) -> FactOrGap:
    """The fact or gap from the platform, used if no file has the number."""
    source = f"system:{name}"
    if amount is None:
        return not_told(resource, source)
    return Fact(
        resource=resource,
        amount=amount,
        role=role,
        source=source,
        where="the platform",
        raw=f"{amount:.0f}",
    )


#: WaitForMultipleObjects waits for 64 handles, and a pool itself needs three of them
#: (learn.microsoft.com, and CPython's concurrent.futures.process).
_WINDOWS_WORKERS = 61


def most_workers(host: Host) -> Iterator[FactOrGap]:
    """The most processes that one pool can have; only Windows has a bound."""
    if host.platform == "win32":
        yield Fact(
            resource="workers",
            amount=_WINDOWS_WORKERS,
            role="limit",
            source="system:WaitForMultipleObjects",
            where="the platform",
            raw=str(_WINDOWS_WORKERS),
        )
