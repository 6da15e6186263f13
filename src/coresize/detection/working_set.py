"""The memory that is left below a limit now: the limit less the working set."""

from __future__ import annotations

from coresize import units
from coresize.detection import parse
from coresize.detection.reading import read_fact
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host


def available(
    host: Host,
    limits: Iterable[FactOrGap | None],
    *,
    usage: str,
    stat: str,
    inactive: tuple[str, ...],
) -> Iterator[FactOrGap]:
    """The bytes left below the hard limit, and the soft limit, of one directory.

    The working set is the usage less the inactive file pages, which the kernel drops
    before it kills (the rule of kubelet's ``memory.available``). A difference below 0
    counts as 0, since the two files are read one after the other.

    Args:
        host: the machine.
        limits: the facts and gaps from the directory's limit files.
        usage: the file with the bytes in use.
        stat: the file with the inactive file pages.
        inactive: the possible starts of their line; the first one found counts.
    """
    bounds = [
        fact for fact in limits if isinstance(fact, Fact) and fact.amount is not None
    ]
    if not bounds:
        return
    source = bounds[0].source.partition(":")[0] + ":working set"
    used = read_fact(
        host, usage, units.whole, resource="memory", role="available", source=source
    )
    if not isinstance(used, Fact):
        yield from filter(None, (used,))
        return
    cache = read_fact(
        host,
        stat,
        parse.memory_stat,
        resource="memory",
        role="available",
        source=source,
        lines=inactive,
    )
    if isinstance(cache, Gap):
        yield cache
    droppable = cache.amount if isinstance(cache, Fact) else 0
    working_set = max(0, (used.amount or 0) - (droppable or 0))
    for role in ("limit", "soft"):
        of_role = [bound for bound in bounds if bound.role == role]
        if of_role:
            bound = min(of_role, key=lambda fact: fact.amount or 0)
            yield Fact(
                resource="memory",
                amount=max(0, (bound.amount or 0) - working_set),
                role="soft_available" if role == "soft" else "available",
                source=source,
                where=usage,
                raw=f"{bound.raw} - ({used.raw} - {droppable})",
            )
