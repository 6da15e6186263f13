"""The CPUs of the cpuset, for when the affinity, which contains it, is not known."""

from __future__ import annotations

from coresize.detection import parse
from coresize.detection.reading import read_fact
from coresize.model import Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import Finding
    from coresize.host import Host

#: By version of cgroups. What was asked for (cpuset.cpus) counts in v1 alone, and where
#: the kernel does not tell what is effective: v2 may grant something else.
_FILES = {
    1: ("cpuset.effective_cpus", "cpuset.cpus"),
    2: ("cpuset.cpus.effective",),
}


def cpus(host: Host, version: int, directories: tuple[str, ...]) -> Iterator[Finding]:
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
