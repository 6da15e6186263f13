"""Combines all facts about a resource: the minimum, and the fact that binds.

Rule 1: pure; the order of the facts never matters, and a further limit never raises
the answer. Rule 2: an override replaces what was detected, then caps still apply.
"""

from __future__ import annotations

from coresize.errors import ConfigError
from coresize.model import (
    AFFINITY,
    CFS_QUOTA,
    CpuLimits,
    Fact,
    Gap,
    Limits,
    MemoryLimits,
)
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from coresize.model import Resource, Role

#: The ways to round a fraction of a core.
ROUNDINGS = ("nearest", "floor", "ceil")

#: The order in which facts with equal amounts bind: a limit that equals the machine's
#: capacity is not worth naming.
_ORDER = {"override": "0", "capacity": "1", "limit": "2", "cap": "3"}


def combine(findings: Iterable[Fact | Gap]) -> Limits:
    """The limits of this process, from all facts and gaps."""
    found = tuple(findings)
    facts = tuple(fact for fact in found if isinstance(fact, Fact))
    gaps = tuple(gap for gap in found if isinstance(gap, Gap))
    cpu = combine_cpu(facts)
    memory = combine_memory(facts)
    return Limits(
        cpu=cpu,
        memory=memory,
        facts=facts,
        gaps=gaps,
        warnings=tuple(dict.fromkeys(_warnings(facts, gaps, cpu, memory))),
    )


def cpu_limit(findings: Iterable[Fact | Gap]) -> float | None:
    """Only the limit in cores of `combine_cpu`; None if no fact is known."""
    binding = _binding(_of("cpu", findings))
    return binding.amount if binding else None


def combine_cpu(findings: Iterable[Fact | Gap]) -> CpuLimits:
    """The limits of the cores: the minimum of all facts about cores."""
    facts = _of("cpu", findings)
    binding = _binding(facts)
    affinity = _least(fact for fact in facts if fact.source == AFFINITY)
    capacity = _least(fact for fact in facts if fact.role == "capacity")
    return CpuLimits(
        limit=binding.amount if binding else None,
        quota=_least(fact for fact in facts if fact.source in CFS_QUOTA.values()),
        affinity=None if affinity is None else int(affinity),
        capacity=None if capacity is None else int(capacity),
        binding=binding,
    )


def combine_memory(findings: Iterable[Fact | Gap]) -> MemoryLimits:
    """The limits of the memory: the tightest limit below the machine's total.

    A limit at or above the total does not count. An override always counts, even above
    the total; it is both the limit and the available memory.
    """
    facts = _of("memory", findings)
    total = _least_bytes(facts, "capacity")
    binding = _binding(facts)
    limit = None
    if binding and binding.role != "capacity" and binding.amount is not None:
        limit = int(binding.amount)
    overridden = any(fact.role == "override" for fact in facts)
    available = None if overridden else _least_bytes(facts, "available")
    soft = _least_bytes(facts, "soft")
    return MemoryLimits(
        limit=limit,
        soft_limit=soft if soft is None or total is None or soft < total else None,
        available=min((n for n in (available, limit) if n is not None), default=None),
        soft_available=None if overridden else _least_bytes(facts, "soft_available"),
        total=total,
        binding=binding,
    )


def _of(resource: Resource, findings: Iterable[Fact | Gap]) -> list[Fact]:
    return [
        found
        for found in findings
        if isinstance(found, Fact) and found.resource == resource
    ]


def _binding(facts: Sequence[Fact]) -> Fact | None:
    """The fact with the least amount among those whose role counts."""
    overridden = "override" in [fact.role for fact in facts]
    joining = ("override", "cap") if overridden else ("capacity", "limit", "cap")
    return min(
        [fact for fact in facts if fact.amount is not None and fact.role in joining],
        key=_tightness,
        default=None,
    )


def _tightness(fact: Fact) -> tuple[float, str, str, str]:
    return (fact.amount or 0, _ORDER[fact.role], fact.source, fact.where)


def _least(facts: Iterable[Fact]) -> float | None:
    return min((fact.amount for fact in facts if fact.amount is not None), default=None)


def _least_bytes(facts: Iterable[Fact], role: Role) -> int | None:
    least = _least(fact for fact in facts if fact.role == role)
    return None if least is None else int(least)


# --- Warnings -----------------------------------------------------------------


def _warnings(
    facts: Sequence[Fact], gaps: Sequence[Gap], cpu: CpuLimits, memory: MemoryLimits
) -> Iterator[str]:
    for gap in gaps:
        if gap.where.isupper():  # a variable, which its user can correct
            yield f"{gap.where} is ignored: {gap.reason}"
    for fact in facts:
        if fact.where == "PYTEST_XDIST_WORKER_COUNT" and fact == cpu.binding:
            yield (
                f"{fact.where}: this process is one of several workers of pytest-xdist "
                f"and counts its share ({fact.raw} cores); CORESIZE_SHARE_RANKS=0 "
                "counts everything"
            )
    for fact in facts:
        if fact.role == "override" and fact.resource == "cpu":
            least = min(filter(None, (cpu.affinity, cpu.capacity)), default=None)
            yield from _override_warnings(fact, cpu.binding, least, _as_cores)
        elif fact.role == "override":
            yield from _override_warnings(
                fact, memory.binding, memory.total, format_bytes
            )


def _override_warnings(
    override: Fact,
    binding: Fact | None,
    most: float | None,
    shown: Callable[[float], str],
) -> Iterator[str]:
    named = f"{override.where}={override.raw}"
    if binding and binding.role == "cap":
        yield f"{named} is lowered to {shown(binding.amount or 0)} by {binding.source}"
    elif most is not None and override.amount is not None and override.amount > most:
        yield f"{named} is obeyed, although there are only {shown(most)} to use"


def _as_cores(amount: float) -> str:
    return f"{amount:g} CPUs"


# --- From limits to numbers -------------------------------------------------------


def whole_cores(
    limit: float | None, *, rounding: str = "nearest", reserve: int = 0
) -> int:
    """The whole cores in a limit, at least 1.

    Args:
        limit: cores, maybe a fraction; None, if no limit is known, counts as 1.
        rounding: "nearest" (a half is rounded up), "floor" or "ceil".
        reserve: whole cores to keep free, subtracted after rounding.

    Raises:
        ConfigError: rounding or reserve is not valid.

    >>> whole_cores(8.342), whole_cores(1.5), whole_cores(0.2)
    (8, 2, 1)
    >>> whole_cores(1.5, rounding="floor"), whole_cores(8.342, reserve=2)
    (1, 6)
    """
    if rounding not in ROUNDINGS:
        raise ConfigError("rounding", rounding, '"nearest", "floor" or "ceil"')
    if reserve != 0:
        from coresize.arguments import check_count  # rarely needed

        reserve = check_count("reserve", reserve, 0)
    cores = limit or 0.0
    if rounding == "nearest":
        whole = (cores + 0.5) // 1
    elif rounding == "floor":
        whole = cores // 1
    else:
        whole = -(-cores // 1)
    return max(1, int(whole) - reserve)


def memory_budget(memory: MemoryLimits, fraction: float) -> int | None:
    """The bytes that workers may use: a part of the memory available now."""
    left = memory_left(memory)
    return None if left is None else int(left * fraction)


def memory_left(memory: MemoryLimits) -> int | None:
    """The bytes that can be allocated before a limit is reached; None if unknown.

    If memory.high is set, it counts as a limit, since the kernel heavily throttles a
    process above it (kernel Documentation/admin-guide/cgroup-v2.rst, "memory.high").
    """
    known = (memory.available, memory.soft_available)
    return min((n for n in known if n is not None), default=None)


def memory_limit(limits: Limits) -> str:
    """A sentence on the memory limit that a killed process may have reached."""
    memory = limits.memory
    if memory.limit is None or memory.binding is None:
        return "there is no memory limit below the machine's"
    where = memory.binding.where
    return f"the memory limit is {format_bytes(memory.limit)} ({where})"
