"""Cores: the counts of other programs, overrides, and cores that stay unused."""

from __future__ import annotations

from coresize.detection import environ
from coresize.diagnosis.findings import Finding
from coresize.model import CFS_QUOTA
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.context import Context
    from coresize.diagnosis.findings import Severity
    from coresize.model import Fact

#: The factors from which too many workers are costly, or many times too slow.
_MUCH, _FAR = 1.5, 4.0


def counts(context: Context) -> Iterator[Finding]:
    """What programs count that do not know the limits: too many CPUs, or a quota."""
    yield from belief(context)
    yield from surplus(context)


def belief(context: Context) -> Iterator[Finding]:
    """The counts of os.cpu_count() and nproc, compared with what this process has."""
    tightest = context.tightest
    counts = {
        "os.cpu_count()": context.host.cpu_count(),
        "nproc": context.limits.cpu.affinity,
    }
    most = max((count for count in counts.values() if count), default=0)
    if tightest is None:
        return
    factor = most / max(1.0, context.machine_cores)  # there is always one worker
    if factor < _MUCH:
        return
    counted = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    yield Finding(
        severity="error" if factor >= _FAR else "warning",
        code="cpu-count-too-high",
        check="counted CPUs",
        title=f"programs that count CPUs start {factor:.3g} times too many workers",
        seen=f"{counted}; may be used: {context.machine_cores:g}",
        where=f"{tightest.where} ({tightest.raw})",
        why="pools, BLAS and compilers start one worker or thread for each CPU that "
        "they count; with too few cores, these are throttled or wait for each other",
        advice=f"{_first(context)}tell them that there "
        f"{'is' if context.real_cores == 1 else 'are'} {context.real_cores}: "
        "coresize run -- CMD, or available_cores() in Python",
    )


def _first(context: Context) -> str:
    """The advice to first unset overrides that make coresize itself count too many."""
    names = [fact.where for fact in _active(context)]
    too_many = context.cores > context.real_cores
    return f"unset {' and '.join(names)}, and " if too_many and names else ""


def _active(context: Context) -> list[Fact]:
    return [
        fact
        for fact in context.limits.facts
        if fact.resource == "cpu" and fact.role == "override"
    ]


def overrides(context: Context) -> Iterator[Finding]:
    """Active overrides, compared with the machine, and overrides without effect."""
    for fact in _active(context):
        amount = fact.amount or 0.0
        allowed = context.machine_cores or amount
        yield _override(fact.where, fact.raw, amount, allowed)
        for name in context.variable(*environ.NAMES):
            if name in _OVERRIDES and name != fact.where:
                yield _without_effect(
                    name,
                    f"{fact.where}={fact.raw} takes precedence",
                    "unset one of the two",
                )
    for gap in context.limits.gaps:
        if gap.where.isupper():  # a variable, which the user can correct
            yield _without_effect(gap.where, gap.reason, "set a valid value")


#: The override variables, in order of precedence.
_OVERRIDES = ("PARALLELLY_OVERRIDE_CORES", "PYTHON_CPU_COUNT")


def _without_effect(name: str, reason: str, advice: str) -> Finding:
    return Finding(
        severity="warning",
        code="override-ignored",
        check="overrides",
        title=f"{name} is set, and has no effect",
        seen=reason,
        where=name,
        why="whoever set it expects it to have an effect",
        advice=advice,
    )


def _override(where: str, raw: str, amount: float, allowed: float) -> Finding:
    severity: Severity = "note"
    code = "override-active"
    title = f"an override is active: {where}={raw}"
    why = "it replaces the detected number of cores"
    if amount > allowed * _MUCH:
        severity, code = "warning", "override-above-cores"
        title = f"{where}={raw} asks for more cores than there are"
        why = "workers without a core of their own wait for each other"
    elif amount * 2 <= allowed:
        severity, code = "warning", "override-below-cores"
        title = f"{where}={raw} leaves {allowed - amount:g} of {allowed:g} cores idle"
        why = "cores that are paid for are idle"
    return Finding(
        severity=severity,
        code=code,
        check="overrides",
        title=title,
        seen=f"override {amount:g}, without it {allowed:g}",
        where=where,
        why=why,
        advice=f"unset {where} if you no longer need it",
    )


def caps(context: Context) -> Iterator[Finding]:
    """Caps and counts of the user that leave many cores unused, or ask for too many."""
    allowed = context.machine_cores
    caps = [
        (f"{fact.where}={fact.raw}", fact.where, fact.amount)
        for fact in context.limits.facts
        if fact.resource == "cpu" and fact.role == "cap" and fact.amount
    ]
    if not context.settings.parallel:
        yield _serial(context.settings.origins["parallel"])
    workers = context.settings.workers
    if workers is not None:
        origin = context.settings.origins["workers"]
        name = origin if origin.isupper() else "workers"
        caps.append((f"{name}={workers}", origin, workers))
    for named, where, amount in caps:
        if amount * 2 <= allowed:
            yield Finding(
                severity="warning",
                code="cap-below-cores",
                check="caps",
                title=f"{named} leaves {allowed - amount:g} of {allowed:g} cores idle",
                seen=f"{amount:g} of {allowed:g} may be used",
                where=where,
                why="cores that are paid for are idle",
                advice=f"raise the number in {where}, or request fewer cores",
            )
    if workers is not None and allowed and workers > max(1.0, allowed) * _MUCH:
        yield Finding(
            severity="note",
            code="workers-above-cores",
            check="caps",
            title=f"{name}={workers} asks for more workers than there are cores",
            seen=f"{format_count(workers, 'worker')}, {format_count(allowed, 'core')}",
            where=origin,
            why="this is right for tasks that mostly wait, but tasks that compute wait "
            "for each other",
            advice=f"lower the number in {origin} if the tasks compute",
        )


def _serial(origin: str) -> Finding:
    return Finding(
        severity="warning",
        code="parallel-off",
        check="caps",
        title="everything runs serially",
        seen=f"parallel = false, by {origin}",
        where=origin,
        why="every pool of coresize runs its tasks in the thread of the caller",
        advice=f"unset {origin} to run in parallel again"
        if origin.isupper()
        else f"remove parallel from {origin} to run in parallel again",
    )


def surplus(context: Context) -> Iterator[Finding]:
    """A quota above the number of CPUs, which R's package parallelly rejects.

    parallelly warns "out of range" and uses its fallback instead (availableCores.R,
    getCGroupsCpuQuota).
    """
    quota, there = context.limits.cpu.quota, context.limits.cpu.affinity
    if quota and there and quota > there:
        yield Finding(
            severity="note",
            code="quota-above-cpus",
            check="counted CPUs",
            title=f"the CPU quota is {quota:g}, and there are {there} CPUs",
            seen=f"quota {quota:g}, CPUs {there}",
            where=next(
                fact.where
                for fact in context.limits.facts
                if fact.source in CFS_QUOTA.values() and fact.amount == quota
            ),
            why="the quota never binds; R's package parallelly rejects such a quota, "
            "and then uses fewer cores than there are",
            advice="start R by coresize run -- Rscript ..., which tells it the cores",
        )
