"""Reads the limits in the v1 directories of a chain.

The files are documented in the kernel's Documentation/admin-guide/cgroup-v1.
"""

from __future__ import annotations

from coresize import units
from coresize.detection import parse, working_set
from coresize.detection.reading import keep_last, read_fact
from coresize.model import CFS_QUOTA, Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host


def quotas(host: Host, directories: tuple[str, ...]) -> Iterator[FactOrGap]:
    """The CFS quota of each directory in cores (scheduler/sched-bwc.rst)."""
    for directory in directories:
        quota = read_fact(
            host,
            f"{directory}/cpu.cfs_quota_us",
            parse.cfs_quota,
            resource="cpu",
            role="limit",
            source=CFS_QUOTA[1],
        )
        if isinstance(quota, Fact) and quota.amount is not None:
            yield _in_cores(host, quota, f"{directory}/cpu.cfs_period_us")
        elif quota:
            yield quota


def _in_cores(host: Host, quota: Fact, where: str) -> FactOrGap:
    """A quota in microseconds divided by its period, which is in another file."""
    period = read_fact(
        host, where, units.positive, resource="cpu", role="limit", source=CFS_QUOTA[1]
    )
    if isinstance(period, Fact) and period.amount and quota.amount:
        raw = f"{quota.raw} {period.raw}"
        return _ratio((quota.amount / period.amount, raw), quota.where)
    if isinstance(period, Gap):
        return period
    reason = "missing beside a quota"
    return Gap(
        code="period-missing",
        resource="cpu",
        source=CFS_QUOTA[1],
        where=where,
        reason=reason,
    )


@keep_last
def _ratio(content: tuple[float, str], where: str) -> Fact:
    """The fact for a quota in cores and the texts of its two files."""
    amount, raw = content
    return Fact(
        resource="cpu",
        amount=amount,
        role="limit",
        source=CFS_QUOTA[1],
        where=where,
        raw=raw,
    )


def memory(host: Host, directories: tuple[str, ...]) -> Iterator[FactOrGap]:
    """The memory limits of each directory, and the bytes left below them (memory.rst).

    ``hierarchical_memory_limit`` is the tightest limit that binds, including those of
    ancestors that are not visible.
    """
    told: FactOrGap | None = None
    for place, directory in enumerate(directories, start=1):
        stat = f"{directory}/memory.stat"
        limit = read_fact(
            host,
            f"{directory}/memory.limit_in_bytes",
            parse.memory_limit,
            resource="memory",
            role="limit",
            source="cgroup1:memory.limit_in_bytes",
        )
        if directory != directories[0] and not _binds(host, directory, limit, told):
            return
        hierarchical = read_fact(
            host,
            stat,
            parse.hierarchical_limit,
            resource="memory",
            role="limit",
            source="cgroup1:memory.stat",
            lines=("hierarchical_memory_limit ",),
        )
        told = told or hierarchical
        if limit:
            yield limit
        if hierarchical and not _says_the_same(hierarchical, limit):
            yield hierarchical
        yield from working_set.available(
            host, (limit, hierarchical), 1, directories[:place]
        )


def _binds(
    host: Host, ancestor: str, limit: FactOrGap | None, told: FactOrGap | None
) -> bool:
    """Whether the limit of an ancestor binds the directories below it.

    The file use_hierarchy decides. If it cannot be read, the limit does not bind if it
    is tighter than the tightest binding limit that the directories below report.
    """
    try:
        return host.read(f"{ancestor}/memory.use_hierarchy").strip() != "0"
    except OSError:
        pass
    if not (isinstance(limit, Fact) and isinstance(told, Fact)):
        return True
    if limit.amount is None:
        return True
    return told.amount is not None and told.amount <= limit.amount


def _says_the_same(hierarchical: FactOrGap, limit: FactOrGap | None) -> bool:
    """Whether no ancestor has a tighter limit than the directory: the usual case."""
    return (
        isinstance(hierarchical, Fact)
        and isinstance(limit, Fact)
        and hierarchical.amount == limit.amount
    )
