"""The CPUs of the machine itself, and what the platform answers without files."""

from __future__ import annotations

from coresize.detection import parse
from coresize.detection.reading import not_told, read_fact
from coresize.model import Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

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
        yield platform_fact("cpu", "capacity", "cpu_count", count)


def platform_fact(
    resource: Resource, role: Role, name: str, amount: float | None
) -> FactOrGap:
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
