"""Throttling: how often the quota was used up, and how long everything waited."""

from __future__ import annotations

import time

from coresize import counters
from coresize.diagnosis.findings import Finding


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.counters import Throttling
    from coresize.diagnosis.patient import Patient

#: Parts of the periods that are worth a word, that cost much, that cost most.
_SOME, _MUCH, _MOST = 0.01, 0.05, 0.5

#: Periods below which a share says nothing.
_FEW = 20


def throttling(patient: Patient) -> Iterator[Finding]:
    """The own cgroup and every visible ancestor, since they were made and now."""
    before = counters.throttling(patient.host)
    if not before:
        return
    time.sleep(patient.seconds)
    told = set()
    for where, whole in counters.throttling(patient.host).items():
        counts = (whole.periods, whole.throttled, whole.seconds)
        if counts in told:  # one cgroup at several mount points
            continue
        told.add(counts)
        now = whole.since(before.get(where, whole))
        if max(whole.share, now.share) < _SOME or whole.periods < _FEW:
            continue
        yield _finding(whole, now, patient.seconds)


def _finding(whole: Throttling, now: Throttling, seconds: float) -> Finding:
    lately = now.share if now.periods else 0.0
    severity = "note"
    if max(whole.share, lately) >= _MUCH:
        severity = "error" if lately >= _MOST else "warning"
    return Finding(
        severity=severity,  # type: ignore[arg-type]
        check="throttling",
        title=f"the CPU quota was used up in {whole.share:.0%} of its periods",
        seen=f"{whole.throttled} of {whole.periods} periods since it was made, "
        f"{whole.seconds:.1f} s lost by all threads together; in the last "
        f"{seconds:g} s {now.throttled} of {now.periods}",
        where=whole.where,
        why="when the quota of a period (mostly 0.1 s) is used up, all threads stand "
        "still until the next: with too many of them that is most of the time",
        advice="run as many workers as the quota has cores, one thread each "
        "(coresize workers --explain), or raise the quota",
    )
