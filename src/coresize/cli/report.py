"""Limits as text for people and as JSON for programs. Pure."""

from __future__ import annotations

import json
import textwrap

from coresize.planning.values import DEFAULT
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from coresize.model import Fact, Gap, Limits, Notice
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.values import WorkerPlan

    #: The settings by name, value and origin, as of `Settings.rows`.
    Rows: TypeAlias = Sequence[Mapping[str, object]]

WIDTH = 80
_INDENT = " " * 9
_BINDS = "  <- binds"


def as_json(
    limits: Limits,
    *,
    cores: int,
    reserve: int,
    settings: Rows = (),
    warnings: Sequence[Notice] = (),
) -> dict[str, object]:
    """The output of ``coresize report --json`` (docs/reference/report.md)."""
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
            "available_together": memory.available_together,
            "soft_available": memory.soft_available,
            "total": memory.total,
            "binding": memory.binding.as_dict() if memory.binding else None,
        },
        "facts": [fact.as_dict() for fact in limits.facts],
        "gaps": [gap.as_dict() for gap in limits.gaps],
        "warnings": [*limits.warnings, *warnings],
        "warning_codes": [notice.code for notice in (*limits.warnings, *warnings)],
        "settings": list(settings),
    }


def as_text(
    limits: Limits,
    *,
    cores: int,
    reserve: int,
    settings: Rows = (),
    warnings: Sequence[Notice] = (),
) -> str:
    """A report for 80 columns: the answers, then facts, gaps and warnings."""
    warnings = (*limits.warnings, *warnings)
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
            else "GAPS     none: all visible sources could be read",
            *(line for gap in limits.gaps for line in _gap_lines(gap)),
            "",
            "WARNINGS" if warnings else "WARNINGS none",
            *(line for notice in warnings for line in _notice_lines(notice)),
            "",
            *settings_as_text(settings),
        ]
    )


def plan_as_text(plan: WorkerPlan, limits: Limits, settings: Rows) -> str:
    """A plan for people: the sentence, all bounds, the limits and the settings."""
    warnings = (*plan.warnings, *limits.warnings)
    memory = plan.memory_per_worker
    each = "unknown" if memory is None else format_bytes(memory)
    return "\n".join(
        [
            f"WORKERS  {plan}",
            *_wrap(plan.reason),
            f"{_INDENT}for each: threads {plan.threads_per_worker}, memory {each}",
            "",
            "BOUNDS",
            *(
                f"{_INDENT}{number:<8}{name}{_BINDS if name == plan.binding else ''}"
                for name, number in plan.bounds.items()
            ),
            "",
            "CPU",
            *_cpu_limit_lines(limits),
            *_memory_lines(limits),
            "",
            *settings_as_text(settings),
            "",
            "WARNINGS" if warnings else "WARNINGS none",
            *(line for notice in warnings for line in _notice_lines(notice)),
        ]
    )


def settings_as_text(settings: Rows) -> Iterator[str]:
    """Yield each setting that is not a default, with its origin."""
    chosen = [row for row in settings if row["origin"] != DEFAULT]
    yield "SETTINGS for planning workers" if chosen else "SETTINGS defaults only"
    for row in chosen:
        yield from _beside(
            f"{_INDENT}{row['name']} = {json.dumps(row['value'])}", f"{row['origin']}"
        )


def profile_as_json(profile: TaskProfile, exit_code: int | None) -> dict[str, object]:
    """The output of ``coresize profile --json``, in bytes and seconds."""
    return {
        "peak_memory": profile.peak_memory,
        "idle_memory": profile.idle_memory,
        "wall": profile.wall,
        "cpu": profile.cpu,
        "cpu_share": profile.cpu_share,
        "threads": profile.threads,
        "thread_limit": profile.thread_limit,
        "exit_code": exit_code,
        "method": profile.method,
        "peaks": list(profile.peaks),
    }


#: Seconds without a CPU from which on they are reported.
_MUCH_DELAY = 0.005


def profile_as_text(
    profile: TaskProfile, delay: float, ended: str, failure: str | None
) -> str:
    """A measured profile for people, with advice on its use.

    Args:
        profile: the profile.
        delay: seconds that the command was ready to run but had no CPU.
        ended: how the command ended.
        failure: why the profile is not reliable, if the command failed.
    """
    spread = ""
    if len(profile.peaks) > 1:
        least = format_bytes(min(profile.peaks))
        spread = f", the largest of {len(profile.peaks)} runs; the least was {least}"
    limit = profile.thread_limit
    needed = -(-(profile.memory or 0) // 1024**2)
    advice = f"To size a pool of it: coresize workers --memory {needed}MiB"
    return "\n".join(
        [
            f"PEAK     {format_bytes(profile.memory or 0)} of memory{spread}",
            f"TIME     {profile.wall:.2f} s, of which {profile.cpu:.2f} s on a CPU"
            + (f", and {delay:.2f} s without a CPU" if delay >= _MUCH_DELAY else ""),
            f"THREADS  {profile.threads}, busy {profile.cpu_share:.0%} of the time"
            + (f"; libraries were allowed {limit}" if limit else ""),
            f"ENDED    it {ended}",
            f"METHOD   {profile.method}",
            "",
            failure or advice,
        ]
    )


def _cpu_lines(limits: Limits, cores: int, reserve: int) -> Iterator[str]:
    yield f"CPU      {format_count(cores, 'core')}"
    kept = f", {reserve} to keep free (CORESIZE_RESERVE_CORES)" if reserve else ""
    yield from _cpu_limit_lines(limits, kept)


def _cpu_limit_lines(limits: Limits, kept: str = "") -> Iterator[str]:
    cpu = limits.cpu
    if cpu.limit is None:
        yield f"{_INDENT}nothing is known, so one core is assumed"
        return
    yield f"{_INDENT}limit {cpu.limit:g}{kept}"
    yield from _binding_lines(cpu.binding)


def _memory_lines(limits: Limits) -> Iterator[str]:
    memory = limits.memory
    known = memory.available is not None
    now = f"{format_bytes(memory.available or 0)} available now" if known else "unknown"
    yield f"MEMORY   {now}"
    yield from _cache_lines(limits)
    if memory.total is not None:
        nodes = any(fact.source == "system:memory nodes" for fact in limits.facts)
        place = "the memory nodes that may be used" if nodes else "the machine"
        yield f"{_INDENT}of {format_bytes(memory.total)} in {place}"
    if memory.available != memory.available_together:
        together = format_bytes(memory.available_together or 0)
        yield f"{_INDENT}to this process; to all of its workers together {together}"
    if memory.soft_limit is not None:
        high = format_bytes(memory.soft_limit)
        yield f"{_INDENT}throttled above {high} (memory.high)"
    if memory.limit is None:
        hidden = any(gap.resource == "memory" for gap in limits.gaps)
        yield f"{_INDENT}no limit{' found, see GAPS' if hidden else ''}"
    else:
        yield f"{_INDENT}limit {format_bytes(memory.limit)}"
        yield from _binding_lines(memory.binding)


def _cache_lines(limits: Limits) -> Iterator[str]:
    """How much of the available memory is free, and how much is cache."""
    left = limits.memory.available or 0
    folders = {
        _folder(fact)
        for fact in limits.facts
        if fact.role == "available" and fact.amount == left
    }
    for fact in limits.facts:
        if fact.role == "reclaimable" and _folder(fact) in folders:
            cache = min(left, fact.amount or 0)
            free, given_up = format_bytes(left - cache), format_bytes(cache)
            yield f"{_INDENT}{free} free, {given_up} of cache that the kernel gives up"
            return


def _folder(fact: Fact) -> str:
    return fact.where.rpartition("/")[0]


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
        *_wrap(f"{gap.reason} [{gap.code}]"),
    ]


def _notice_lines(notice: Notice) -> list[str]:
    return _wrap(f"{notice} [{notice.code}]")


def _amount(fact: Fact) -> str:
    if fact.amount is None:
        return "no limit"
    counted = fact.resource in ("cpu", "gpu", "workers", "processes", "files")
    return f"{fact.amount:.15g}" if counted else format_bytes(fact.amount)


def _beside(start: str, where: str) -> list[str]:
    """Add the place on the same line if it fits, else below; a variable has none."""
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
    """A path on as many lines as it needs, broken after slashes if possible."""
    lines = [_INDENT]
    for component in path.replace("/", "/\0").split("\0"):
        if len(lines[-1]) + len(component) > WIDTH and lines[-1].strip():
            lines.append(f"{_INDENT}  ")
        lines[-1] += component
        while len(lines[-1]) > WIDTH:
            lines[-1:] = [lines[-1][:WIDTH], f"{_INDENT}  {lines[-1][WIDTH:]}"]
    return lines
