"""The memory that the machine has available, where its numbers contradict each other.

MemAvailable is the kernel's own estimate (Linux 3.14, proc(5)). It is missing on older
kernels and under WSL 1. Programs that write /proc/meminfo for a container, such as
lxcfs, have shown the host's number beside the container's total, or 0 beside a total
that is mostly free. Rule: what is available is at most the total, and a number that
another one of the same source contradicts is a gap with a reason; then an estimate from
the other numbers is taken, or else the total. Pure.
"""

from __future__ import annotations

from coresize.detection import parse
from coresize.model import Fact, Gap
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


#: What makes up an estimate: added, or subtracted. Pages of files on the kernel's lists
#: are what it can drop; without these lines, Cached also counts shared memory and what
#: is locked, neither of which it can drop.
_LISTS = ({"MemFree", "Active(file)", "Inactive(file)", "SReclaimable"}, set[str]())
_CACHES = (
    {"MemFree", "Buffers", "Cached", "SReclaimable"},
    {"Shmem", "Unevictable"},
)

#: The part of the total by which the kernel's number may be below the estimate: the
#: pages that the kernel keeps free for itself (vm.min_free_kbytes) are not available.
_KEPT = 0.5


def available(
    total: Fact | Gap, told: Fact | Gap, text: str = ""
) -> Iterator[Fact | Gap]:
    """Yield the memory available now; what contradicts it is a gap.

    Args:
        total: the memory of the machine.
        told: the memory that the machine says is available.
        text: the meminfo with further numbers; empty without one.
    """
    most = total.amount if isinstance(total, Fact) else None
    estimated = _estimate(text)
    if estimated and most is not None and estimated[0] > most:
        estimated = None
    reason = _contradiction(told, most, estimated)
    if not reason:
        yield told
    elif isinstance(told, Fact):
        yield Gap(
            code="contradicted",
            resource="memory",
            source=told.source,
            where=told.where,
            reason=reason,
        )
    if isinstance(told, Fact) and not reason:
        return
    if estimated:
        yield _instead(told, *estimated)
    elif isinstance(total, Fact) and most is not None:
        yield _instead(told, most, total.raw)


def _contradiction(
    told: Fact | Gap, most: float | None, estimated: tuple[float, str] | None
) -> str:
    """Why what is told cannot be; empty if it can, or if nothing is told."""
    if isinstance(told, Gap) or told.amount is None or most is None:
        return ""
    if told.amount > most:
        return (
            f"{format_bytes(told.amount)} are said to be available of "
            f"{format_bytes(most)} in all"
        )
    if estimated and estimated[0] - told.amount > _KEPT * most:
        return (
            f"{format_bytes(told.amount)} are said to be available, although of "
            f"{format_bytes(most)} in all {format_bytes(estimated[0])} are free or "
            "are pages of files"
        )
    return ""


def _estimate(text: str) -> tuple[int, str] | None:
    """Bytes that are free or can be freed, and how they are made up."""
    amounts = parse.amounts(text)
    if "MemFree" not in amounts:
        return None
    added, subtracted = _LISTS if amounts.keys() >= _LISTS[0] else _CACHES
    signed = {name: n for name, n in amounts.items() if name in added}
    signed |= {name: -n for name, n in amounts.items() if name in subtracted}
    raw = " ".join(
        f"{'-' if n < 0 else '+'} {name} {abs(n) // 1024} kB"
        for name, n in signed.items()
    )
    return max(0, sum(signed.values())), raw.removeprefix("+ ")


def _instead(told: Fact | Gap, amount: float, raw: str) -> Fact:
    """A fact in place of the one that is missing or contradicted."""
    return Fact(
        resource="memory",
        amount=amount,
        role="available",
        source=f"{told.source}, estimated",
        where=told.where,
        raw=raw,
    )


# -----------------------------------------------------------------------------
# What some of the memory nodes have.


def of_nodes(nodes: Iterable[str], machine: str) -> tuple[int, int]:
    """The memory of some nodes in all, and what of it is available.

    The kernel tells what is available of the whole machine alone. What it keeps of that
    which is free or droppable, it keeps of each node in proportion.

    Args:
        nodes: the meminfo of each node.
        machine: /proc/meminfo.
    """
    whole = parse.amounts(machine)
    each = [parse.amounts(text) for text in nodes]
    total = sum(amounts.get("MemTotal", 0) for amounts in each)
    left = sum(map(_droppable, each))
    size = whole.get("MemTotal", 0)
    kept = max(0, _droppable(whole) - whole.get("MemAvailable", _droppable(whole)))
    if size and kept <= _KEPT * size:
        left -= kept * total // size
    return total, max(0, min(left, total))


def _droppable(amounts: Mapping[str, int]) -> int:
    """Bytes that are free, or that the kernel can drop."""
    return sum(amounts.get(name, 0) for name in _LISTS[0])


# -----------------------------------------------------------------------------
# What a strict kernel still promises.


#: The part of its own size that the kernel denies a process, so that others can still
#: be started; at most vm.user_reserve_kbytes (__vm_enough_memory in mm/util.c).
_OWN_PART = 1 / 32


def promised(text: str, reserves: tuple[float, float], size: float) -> float | None:
    """Bytes that can still be allocated with vm.overcommit_memory = 2; None if unknown.

    Every allocation counts against CommitLimit, used or not (kernel
    Documentation/mm/overcommit-accounting.rst).

    Args:
        text: /proc/meminfo.
        reserves: bytes that the kernel keeps for the administrator, and the most that
            it keeps for other programs of the user.
        size: bytes of address space of the process that allocates.
    """
    amounts = parse.amounts(text)
    if not {"CommitLimit", "Committed_AS"} <= amounts.keys():
        return None
    left = amounts["CommitLimit"] - amounts["Committed_AS"] - reserves[0]
    kept = min(reserves[1], max(0, left + size) * _OWN_PART)
    return max(0, int(left - kept))


def commit_lines(text: str) -> str:
    """The two numbers of a strict kernel, as /proc/meminfo has them."""
    names = ("CommitLimit", "Committed_AS")
    lines = (parse.line(text, f"{name}:") for name in names)
    return ", ".join(" ".join(line.split()) for line in lines)
