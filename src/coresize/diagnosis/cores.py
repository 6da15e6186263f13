"""Cores: what others believe to have, what is overridden, what is paid for."""

from __future__ import annotations

from coresize.diagnosis.findings import Finding


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.patient import Patient

#: From these factors on too many workers cost much, or are many times too slow.
_MUCH, _FAR = 1.5, 4.0


def belief(patient: Patient) -> Iterator[Finding]:
    """What os.cpu_count() and nproc say beside what may be used."""
    cpu = patient.limits.cpu
    counts = {"os.cpu_count()": patient.host.cpu_count(), "nproc": cpu.affinity}
    most = max((count for count in counts.values() if count), default=0)
    factor = most / cpu.limit if cpu.limit else 1.0
    if factor < _MUCH or cpu.binding is None:
        return
    told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    yield Finding(
        severity="error" if factor >= _FAR else "warning",
        check="belief",
        title=f"programs that count CPUs start {factor:.3g} times too many workers",
        seen=f"{told}; may be used: {cpu.limit:g}",
        where=f"{cpu.binding.where} ({cpu.binding.raw})",
        why="pools, BLAS and compilers start as many workers or threads as they count; "
        "so many on so few cores are throttled, or wait for each other",
        advice=f"tell them that there are {patient.cores}: coresize run -- CMD, or "
        "available_cores() in Python",
    )


def overrides(patient: Patient) -> Iterator[Finding]:
    """Overrides that are active, and what they are beside what is there."""
    for fact in patient.limits.overrides:
        if fact.resource != "cpu" or not fact.amount:
            continue
        there = min(
            (
                one.amount
                for one in patient.limits.facts
                if one.resource == "cpu"
                and one.role in ("limit", "capacity")
                and one.amount is not None
            ),
            default=fact.amount,
        )
        yield from _override(fact.where, fact.raw, fact.amount, there)


def _override(where: str, raw: str, amount: float, there: float) -> Iterator[Finding]:
    title, severity, why = (
        f"an override is active: {where}={raw}",
        "note",
        ("it replaces what the machine says"),
    )
    advice = f"unset {where} if that is not wanted any more"
    if amount > there * _MUCH:
        severity, title = "warning", f"{where}={raw} asks for more cores than there are"
        why = "workers that have no core of their own wait for each other"
    elif amount * 2 <= there:
        severity, title = (
            "warning",
            f"{where}={raw} leaves {there - amount:g} cores idle",
        )
        why = "what is paid for is not used"
    yield Finding(
        severity=severity,  # type: ignore[arg-type]
        check="overrides",
        title=title,
        seen=f"override {amount:g}, without it {there:g}",
        where=where,
        why=why,
        advice=advice,
    )


def caps(patient: Patient) -> Iterator[Finding]:
    """Caps and counts of the user's own that leave much of the cores unused."""
    quota = [
        one.amount
        for one in patient.limits.facts
        if one.resource == "cpu"
        and one.role in ("limit", "capacity")
        and one.amount is not None
    ]
    there = min(quota, default=0.0)
    given = [
        (fact.where, fact.raw, fact.amount)
        for fact in patient.limits.facts
        if fact.resource == "cpu" and fact.role == "cap" and fact.amount
    ]
    if patient.settings.workers is not None:
        origin = patient.settings.origins["workers"]
        given.append((origin, str(patient.settings.workers), patient.settings.workers))
    for where, raw, amount in given:
        if amount * 2 <= there:
            yield Finding(
                severity="warning",
                check="caps",
                title=f"{where} = {raw} leaves {there - amount:g} cores idle",
                seen=f"{amount:g} may be used of {there:g}",
                where=where,
                why="what is paid for is not used",
                advice=f"raise or unset {where}, or ask for fewer cores",
            )


def foreign(patient: Patient) -> Iterator[Finding]:
    """Variables that are set and that those they are meant for do not read."""
    found = patient.variable("PARALLELLY_OVERRIDE_CORES")
    for name, value in found.items():
        yield Finding(
            severity="note",
            check="foreign",
            title=f"{name}={value} has no effect in R",
            seen=f"{name}={value}",
            where="environment",
            why="coresize obeys it; R's package parallelly reads names that begin "
            "with R_PARALLELLY_, and reads them when it is loaded, not later",
            advice=f"set R_PARALLELLY_AVAILABLECORES_SYSTEM={value} before R starts, "
            "or coresize run -- Rscript ...",
        )
    if not patient.settings.parallel:
        origin = patient.settings.origins["parallel"]
        yield Finding(
            severity="warning",
            check="foreign",
            title="everything runs serially",
            seen=f"parallel = false, by {origin}",
            where=origin,
            why="every executor of coresize runs its tasks in the caller",
            advice=f"unset it in {origin} to run in parallel again",
        )
