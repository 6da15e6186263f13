"""The CPUs of the cpuset; read only if the affinity, which includes it, is unknown."""

from __future__ import annotations

from coresize.detection import parse
from coresize.detection.reading import read_fact
from coresize.model import Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host

#: Files by version of cgroups. The requested CPUs (cpuset.cpus) count in v1 only, if
#: the kernel does not report the effective ones: v2 may grant others.
_FILES = {
    1: ("cpuset.effective_cpus", "cpuset.cpus"),
    2: ("cpuset.cpus.effective",),
}


def cpus(host: Host, version: int, directories: tuple[str, ...]) -> Iterator[FactOrGap]:
    """The number of CPUs of the nearest cpuset that names any (cpuset(7))."""
    for directory in directories:
        for name in _FILES[version]:
            found = read_fact(
                host,
                f"{directory}/{name}",
                parse.cpu_list_length,
                resource="cpu",
                role="limit",
                source=f"cgroup{version}:{name}",
            )
            if found:
                yield found
            if isinstance(found, Fact) and found.amount:
                return
