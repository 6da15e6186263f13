"""What the machine itself has: its CPUs and its memory."""

from __future__ import annotations

from coresize.detection import parse
from coresize.detection.reading import read_fact
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import Finding
    from coresize.host import Host
    from coresize.model import Resource, Role

ONLINE = "/sys/devices/system/cpu/online"
MEMINFO = "/proc/meminfo"


def online_cpus(host: Host) -> Iterator[Finding]:
    """The number of CPUs online.

    The file first, since lxcfs writes a container's share into it and some C libraries
    answer with the affinity instead; then what the platform counts.
    """
    online = read_fact(
        host,
        ONLINE,
        parse.cpu_list_length,
        resource="cpu",
        role="capacity",
        source="system:online",
    )
    if online:
        yield online
    if isinstance(online, Fact) and online.amount:
        return
    count = host.cpu_count()
    cores = None if count is None else float(count)
    yield _told("cpu", "capacity", "cpu_count", cores)


def memory(host: Host) -> Iterator[Finding]:
    """The machine's memory in bytes: all of it, and what is available now."""
    asked: tuple[tuple[Role, str], ...] = (
        ("capacity", "MemTotal:"),
        ("available", "MemAvailable:"),
    )
    for role, line in asked:
        finding = read_fact(
            host,
            MEMINFO,
            parse.meminfo,
            resource="memory",
            role=role,
            source="system:meminfo",
            line=line,
        )
        if finding is None:
            break
        yield finding
    else:
        return
    total, available = host.memory() or (None, None)
    yield _told("memory", "capacity", "memory_total", total)
    yield _told("memory", "available", "memory_available", available)


def address_space(host: Host) -> Iterator[Finding]:
    """RLIMIT_AS in bytes: it bounds address space, not memory (getrlimit(2))."""
    limit = read_fact(
        host,
        "/proc/self/limits",
        parse.address_space,
        resource="address_space",
        role="limit",
        source="rlimit:RLIMIT_AS",
        line="Max address space",
    )
    if limit:
        yield limit


def _told(resource: Resource, role: Role, name: str, amount: float | None) -> Finding:
    """What the platform says where no file does."""
    source = f"system:{name}"
    if amount is None:
        reason = "this platform or recording does not tell"
        return Gap(
            resource=resource, source=source, where="the platform", reason=reason
        )
    return Fact(
        resource=resource,
        amount=amount,
        role=role,
        source=source,
        where="the platform",
        raw=f"{amount:g}",
    )
