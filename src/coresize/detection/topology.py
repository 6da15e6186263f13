"""Which CPUs are one physical core, and which are on one NUMA node.

Sources: kernel Documentation/admin-guide/cputopology.rst, and
Documentation/ABI/stable/sysfs-devices-node.
"""

from __future__ import annotations

from coresize.detection import affinity, parse
from coresize.errors import ParseError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from coresize.host import Host

_NODES = "/sys/devices/system/node/online"
_NODE = "/sys/devices/system/node/node{}/cpulist"


def cores(host: Host, cpus: Iterable[int]) -> list[frozenset[int]]:
    """The physical cores that have some of these CPUs, each as the set of its CPUs.

    A CPU whose core no file tells is a core of its own.
    """
    found: list[frozenset[int]] = []
    seen: set[int] = set()
    for cpu in sorted(cpus):
        if cpu not in seen:
            core = (affinity.threads_of_core(host, cpu) | {cpu}) - seen
            found.append(core)
            seen |= core
    return found


def nodes(host: Host) -> list[frozenset[int]]:
    """The CPUs of each NUMA node; empty where the kernel knows no nodes."""
    found = (_list(host, _NODE.format(node)) for node in sorted(_list(host, _NODES)))
    return [cpus for cpus in found if cpus]


def _list(host: Host, path: str) -> frozenset[int]:
    """The CPUs in a file; none if it cannot be read or understood."""
    try:
        return parse.cpu_list(host.read(path))
    except (OSError, ParseError):
        return frozenset()
