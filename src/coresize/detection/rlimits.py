"""The limits of this process's own memory (getrlimit(2)), from /proc/self/limits.

They bind one process, and not all together: each worker has the same limits again.
"""

from __future__ import annotations

from coresize.detection import parse
from coresize.detection.reading import parse_fact, read_fact, read_text
from coresize.errors import ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource, Role

LIMITS = "/proc/self/limits"
STATUS = "/proc/self/status"

#: For each limit of memory: its resource and role, its line in /proc/self/limits, and
#: the line in /proc/self/status with what counts against it. Linux has not enforced
#: RLIMIT_RSS since 2.4.30.
_MEMORY: tuple[tuple[str, Resource, Role, str, str], ...] = (
    ("RLIMIT_AS", "address_space", "limit", "Max address space", "VmSize:"),
    ("RLIMIT_DATA", "data", "limit", "Max data size", "VmData:"),
    ("RLIMIT_RSS", "memory", "unenforced", "Max resident set", ""),
)


def memory(host: Host) -> Iterator[FactOrGap]:
    """Yield the limits of this process's memory, and the bytes left below them.

    RLIMIT_AS always has a fact; the others have one only where they are set.
    """
    text = read_text(host, LIMITS, "address_space", "rlimit:RLIMIT_AS")
    if not isinstance(text, str):
        yield from filter(None, (text,))
        return
    for name, resource, role, line, used in _MEMORY:
        limit = soft_limit(text, line, resource, role, f"rlimit:{name}")
        is_set = isinstance(limit, Fact) and limit.amount is not None
        if is_set or name == "RLIMIT_AS":
            yield limit
        if isinstance(limit, Fact) and is_set and used:
            yield from _left(host, limit, used)


def soft_limit(
    text: str, line: str, resource: Resource, role: Role, source: str
) -> FactOrGap:
    """The soft limit in one line of /proc/self/limits."""
    return parse_fact(
        text,
        LIMITS,
        parse.rlimit,
        resource=resource,
        role=role,
        source=source,
        lines=(line,),
    )


def _left(host: Host, limit: Fact, line: str) -> Iterator[FactOrGap]:
    """What this process can still take below one of its limits."""
    used = read_fact(
        host,
        STATUS,
        parse.meminfo,
        resource="process_memory",
        role="available",
        source=limit.source,
        lines=(line,),
    )
    if isinstance(used, Gap):
        yield used
    size = used.amount or 0 if isinstance(used, Fact) else 0
    yield Fact(
        resource="process_memory",
        amount=max(0, int((limit.amount or 0) - size)),
        role="available",
        source=limit.source,
        where=LIMITS,
        raw=f"{limit.amount:.0f} - {size:.0f}",
    )


def size(host: Host) -> int:
    """The address space of this process in bytes; 0 if unknown."""
    try:
        return parse.meminfo(parse.line(host.read(STATUS), "VmSize:"))
    except (OSError, ParseError):
        return 0
