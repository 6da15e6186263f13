"""What is left below a memory limit now: the limit less the working set."""

from __future__ import annotations

from coresize.detection import parse
from coresize.detection.reading import read_fact
from coresize.model import Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coresize.detection.reading import Finding
    from coresize.host import Host


def available(
    host: Host,
    limits: Iterable[Finding | None],
    *,
    usage: str,
    stat: str,
    inactive: str,
) -> Iterator[Finding]:
    """The bytes left below each limit of one directory.

    The working set is the usage less the inactive file pages, which the kernel drops
    before it kills (the rule of kubelet's ``memory.available``). It is never below 0:
    the two files are read one after the other.

    Args:
        host: the machine.
        limits: what the directory's limit files say.
        usage: the file with the bytes in use.
        stat: the file with the inactive file pages.
        inactive: how its line begins.
    """
    bounds = [
        fact for fact in limits if isinstance(fact, Fact) and fact.amount is not None
    ]
    if not bounds:
        return
    source = bounds[0].source.partition(":")[0] + ":working set"
    used = read_fact(
        host, usage, parse.whole, resource="memory", role="available", source=source
    )
    cache = read_fact(
        host,
        stat,
        parse.memory_stat,
        resource="memory",
        role="available",
        source=source,
        line=inactive,
    )
    yield from (gap for gap in (used, cache) if gap and not isinstance(gap, Fact))
    if not isinstance(used, Fact):
        return
    droppable = cache.amount if isinstance(cache, Fact) else 0
    working_set = max(0, (used.amount or 0) - (droppable or 0))
    for bound in bounds:
        yield Fact(
            resource="memory",
            amount=max(0, (bound.amount or 0) - working_set),
            role="soft_available" if bound.role == "soft" else "available",
            source=source,
            where=usage,
            raw=f"{bound.raw} - ({used.raw} - {droppable})",
        )
