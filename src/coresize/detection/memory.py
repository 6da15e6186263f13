"""The memory of the machine itself: the total, and what is available now."""

from __future__ import annotations

from coresize import units
from coresize.detection import meminfo, parse, rlimits
from coresize.detection.reading import parse_fact, read_fact, read_text
from coresize.detection.system import MEMINFO, platform_fact
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host


def machine(host: Host) -> Iterator[FactOrGap]:
    """The machine's memory in bytes: the total, and the memory available now."""
    source = "system:meminfo"
    text = read_text(host, MEMINFO, "memory", source)
    if isinstance(text, Gap):
        yield from (text, text)  # of the total, and of what is available
    elif text is None:
        most, left = host.memory()
        total = platform_fact("memory", "capacity", "memory_total", most or None)
        told = platform_fact("memory", "available", "memory_available", left)
        yield total
        yield from meminfo.available(total, told)
    else:
        total = parse_fact(
            text,
            MEMINFO,
            parse.meminfo_total,
            resource="memory",
            role="capacity",
            source=source,
            lines=("MemTotal:",),
        )
        told = parse_fact(
            text,
            MEMINFO,
            parse.meminfo,
            resource="memory",
            role="available",
            source=source,
            lines=("MemAvailable:",),
        )
        yield total
        yield from meminfo.available(total, told, text)
        yield from _promised(host, text)


#: The only value of vm.overcommit_memory with which an allocation is refused because of
#: others (kernel Documentation/mm/overcommit-accounting.rst).
_STRICT = 2
_OVERCOMMIT = "/proc/sys/vm/overcommit_memory"
_RESERVES = ("/proc/sys/vm/admin_reserve_kbytes", "/proc/sys/vm/user_reserve_kbytes")


def _promised(host: Host, text: str) -> Iterator[FactOrGap]:
    """What can still be allocated, if the kernel promises no more than there is."""
    mode = _number(host, _OVERCOMMIT)
    if isinstance(mode, Gap):
        yield mode
    if not isinstance(mode, Fact) or mode.amount != _STRICT:
        return
    found = [_number(host, path) for path in _RESERVES]
    admin, user = (
        1024 * (fact.amount or 0) if isinstance(fact, Fact) else 0.0 for fact in found
    )
    left = meminfo.promised(text, (admin, user), rlimits.size(host))
    if left is None:
        reason = "CommitLimit or Committed_AS is missing"
        yield Gap(
            code="malformed",
            resource="memory",
            source=mode.source,
            where=MEMINFO,
            reason=reason,
        )
    else:
        yield Fact(
            resource="memory",
            amount=left,
            role="available",
            source=mode.source,
            where=MEMINFO,
            raw=meminfo.commit_lines(text),
        )


def _number(host: Host, path: str) -> FactOrGap | None:
    """The number in a file about overcommitting."""
    return read_fact(
        host,
        path,
        units.whole,
        resource="memory",
        role="available",
        source="sysctl:vm.overcommit_memory",
    )
