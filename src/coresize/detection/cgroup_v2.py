"""Reads the limits in the v2 directories of a chain.

The files are documented in the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from coresize.detection import parse, working_set
from coresize.detection.reading import read_fact
from coresize.model import CFS_QUOTA


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host


def quotas(host: Host, directories: tuple[str, ...]) -> Iterator[FactOrGap]:
    """The CFS quota of each directory in cores."""
    for directory in directories:
        quota = read_fact(
            host,
            f"{directory}/cpu.max",
            parse.cpu_max,
            resource="cpu",
            role="limit",
            source=CFS_QUOTA[2],
        )
        if quota:
            yield quota


def memory(host: Host, directories: tuple[str, ...]) -> Iterator[FactOrGap]:
    """The memory limits of each directory, and the bytes left below them.

    The kernel kills a process above memory.max, but only throttles it above
    memory.high; so memory.high is a separate, soft limit.
    """
    for place, directory in enumerate(directories, start=1):
        hard = read_fact(
            host,
            f"{directory}/memory.max",
            parse.memory_limit,
            resource="memory",
            role="limit",
            source="cgroup2:memory.max",
        )
        high = read_fact(
            host,
            f"{directory}/memory.high",
            parse.memory_limit,
            resource="memory",
            role="soft",
            source="cgroup2:memory.high",
        )
        yield from filter(None, (hard, high))
        yield from working_set.available(host, (hard, high), 2, directories[:place])
