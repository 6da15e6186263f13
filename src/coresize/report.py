"""Limits as text for people and as JSON for programs. Pure."""

from __future__ import annotations

import textwrap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.model import Fact, Gap, Limits

WIDTH = 80
_INDENT = " " * 9
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def as_json(limits: Limits, *, cores: int, reserve: int) -> dict[str, object]:
    """What ``coresize report --json`` prints (docs/reference/report.md)."""
    cpu, memory = limits.cpu, limits.memory
    return {
        "cpu": {
            "limit": cpu.limit,
            "cores": cores,
            "reserve": reserve,
            "quota": cpu.quota,
            "affinity": cpu.affinity,
            "capacity": cpu.capacity,
            "binding": cpu.binding.as_dict() if cpu.binding else None,
        },
        "memory": {
            "limit": memory.limit,
            "soft_limit": memory.soft_limit,
            "available": memory.available,
            "soft_available": memory.soft_available,
            "total": memory.total,
            "binding": memory.binding.as_dict() if memory.binding else None,
        },
        "facts": [fact.as_dict() for fact in limits.facts],
        "gaps": [gap.as_dict() for gap in limits.gaps],
        "warnings": list(limits.warnings),
    }


def as_text(limits: Limits, *, cores: int, reserve: int) -> str:
    """A report that can be read on 80 columns: answers, then facts, gaps, warnings."""
    return "\n".join(
        [
            *_cpu_lines(limits, cores, reserve),
            *_memory_lines(limits),
            "",
            "FACTS    ROLE           AMOUNT      SOURCE, AND WHERE",
            *(line for fact in limits.facts for line in _fact_lines(fact)),
            "",
            "GAPS"
            if limits.gaps
            else "GAPS     none: all that is visible could be read",
            *(line for gap in limits.gaps for line in _gap_lines(gap)),
            "",
            "WARNINGS" if limits.warnings else "WARNINGS none",
            *(line for warning in limits.warnings for line in _wrap(warning)),
        ]
    )


def format_bytes(amount: float) -> str:
    """An amount of memory in the largest unit of which it is at least one.

    >>> format_bytes(536870912), format_bytes(1536), format_bytes(1)
    ('512.0 MiB', '1.5 KiB', '1 bytes')
    """
    power = 0
    while amount >= 1024 and power < len(_UNITS) - 1:
        amount /= 1024
        power += 1
    return f"{amount:.1f} {_UNITS[power]}" if power else f"{amount:g} bytes"


def _cpu_lines(limits: Limits, cores: int, reserve: int) -> Iterator[str]:
    cpu = limits.cpu
    yield f"CPU      {cores} core{'s' if cores != 1 else ''}"
    if cpu.limit is None:
        yield f"{_INDENT}nothing is known, so one core is assumed"
        return
    kept = f", {reserve} to keep free (CORESIZE_RESERVE_CORES)" if reserve else ""
    yield f"{_INDENT}limit {cpu.limit:g}{kept}"
    yield from _binding_lines(cpu.binding)


def _memory_lines(limits: Limits) -> Iterator[str]:
    memory = limits.memory
    known = memory.available is not None
    now = f"{format_bytes(memory.available or 0)} available now" if known else "unknown"
    yield f"MEMORY   {now}"
    if memory.total is not None:
        yield f"{_INDENT}of {format_bytes(memory.total)} in the machine"
    if memory.soft_limit is not None:
        high = format_bytes(memory.soft_limit)
        yield f"{_INDENT}throttled above {high} (memory.high)"
    if memory.limit is None:
        hidden = any(gap.resource == "memory" for gap in limits.gaps)
        yield f"{_INDENT}no limit{' found, see GAPS' if hidden else ''}"
    else:
        yield f"{_INDENT}limit {format_bytes(memory.limit)}"
        yield from _binding_lines(memory.binding)


def _binding_lines(binding: Fact | None) -> Iterator[str]:
    if binding is not None:
        yield from _wrap(f'set by {binding.source} = "{_short(binding.raw)}"')
        if not binding.source.endswith(binding.where):
            yield from _wrap_path(binding.where)


def _fact_lines(fact: Fact) -> list[str]:
    amount = _amount(fact)
    start = f"{fact.resource[:7]:9}{fact.role:15}{amount:12}{fact.source}"
    return _beside(start, fact.where)


def _gap_lines(gap: Gap) -> list[str]:
    return [
        *_beside(f"{gap.resource[:7]:9}{gap.source}", gap.where),
        *_wrap(gap.reason),
    ]


def _amount(fact: Fact) -> str:
    if fact.amount is None:
        return "no limit"
    return f"{fact.amount:g}" if fact.resource == "cpu" else format_bytes(fact.amount)


def _beside(start: str, where: str) -> list[str]:
    """The place on the same line where it fits, else below; none for a variable."""
    line = start if start.endswith(where) else f"{start}  {where}"
    return [line] if len(line) <= WIDTH else [start[:WIDTH], *_wrap_path(where)]


def _short(raw: str) -> str:
    raw = " ".join(raw.split())
    return raw if len(raw) <= 36 else f"{raw[:33]}..."


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )


def _wrap_path(path: str) -> list[str]:
    """A path on as many lines as it needs, broken after slashes where it can be."""
    lines = [_INDENT]
    for component in path.replace("/", "/\0").split("\0"):
        if len(lines[-1]) + len(component) > WIDTH and lines[-1].strip():
            lines.append(f"{_INDENT}  ")
        lines[-1] += component
        while len(lines[-1]) > WIDTH:
            lines[-1:] = [lines[-1][:WIDTH], f"{_INDENT}  {lines[-1][WIDTH:]}"]
    return lines
