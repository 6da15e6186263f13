"""Many facts, one answer for each resource: the minimum, and the fact that binds.

Rule 1: pure; the order of the facts never matters, and a further limit never raises
the answer. Rule 2: an override replaces what was detected, then caps still apply.
"""

from __future__ import annotations

from coresize.detection.parse import format_bytes
from coresize.model import (
    AFFINITY,
    CFS_QUOTA,
    CpuLimits,
    Fact,
    Gap,
    Limits,
    MemoryLimits,
)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from coresize.model import Resource, Role

#: Of facts with equal amounts the first of these binds: a limit that is no tighter
#: than the machine is not worth naming.
_ORDER = {"override": "0", "capacity": "1", "limit": "2", "cap": "3"}


def combine(findings: Iterable[Fact | Gap]) -> Limits:
    """Everything that was found, as what this process may use."""
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
    """The cores alone, as `combine_cpu` finds them; None when nothing is known."""
    binding = _binding(_of("cpu", findings))
    return binding.amount if binding else None


def combine_cpu(findings: Iterable[Fact | Gap]) -> CpuLimits:
    """The cores: the minimum of everything that was found about them."""
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
    """The memory: the tightest limit that is below the machine's total.

    A limit at or above the total limits nothing. An override is believed whatever the
    machine has, for what is available as for the limit.
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
    """The fact with the least amount of those that join the minimum."""
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


# --- What a person should look at ---------------------------------------------


def _warnings(
    facts: Sequence[Fact], gaps: Sequence[Gap], cpu: CpuLimits, memory: MemoryLimits
) -> Iterator[str]:
    for gap in gaps:
        if gap.where.isupper():  # a variable, which somebody set and can mend
            yield f"{gap.where} is ignored: {gap.reason}"
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
