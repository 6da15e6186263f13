"""Throttling: how often the quota was used up, and how long threads waited."""

from __future__ import annotations

import time

from coresize.detection import counters
from coresize.diagnosis.findings import Finding


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.detection.counters import Throttling
    from coresize.diagnosis.context import Context
    from coresize.diagnosis.findings import Severity

#: The parts of throttled periods for a note, for a warning, and for an error.
_SOME, _MUCH, _MOST = 0.01, 0.05, 0.5

#: With fewer periods than this, a share says nothing.
_FEW = 20

#: The same for the short watch, which covers five periods of the usual length.
_FEW_NOW = 4


def throttling(context: Context) -> Iterator[Finding]:
    """Throttling of our cgroup and its visible ancestors, ever and now."""
    before = counters.throttling(context.host)
    if not before:
        return
    time.sleep(context.seconds)
    seen = set()
    for where, whole in counters.throttling(context.host).items():
        counts = (whole.periods, whole.throttled, whole.seconds)
        if counts in seen:  # one cgroup at several mount points
            continue
        seen.add(counts)
        now = whole.since(before.get(where, whole))
        yield from compare(whole, now, context.seconds)


def compare(whole: Throttling, now: Throttling, seconds: float) -> Iterator[Finding]:
    """The counts of a cgroup since it was made, and during the last seconds."""
    lately = now.share if now.periods >= _FEW_NOW else 0.0
    share = max(whole.share, lately)
    if whole.periods < _FEW or share < _SOME:
        return
    severity: Severity = "warning" if share >= _MUCH else "note"
    code, title = (
        "throttled",
        f"the CPU quota was used up in {whole.share:.0%} of its periods",
    )
    if lately >= _MOST:
        severity = "error"
    if lately >= _MOST or lately > whole.share:  # the present share is decisive
        code = "throttled-now"
        title = f"the CPU quota is used up now, in {lately:.0%} of its periods"
    yield Finding(
        severity=severity,
        code=code,
        check="throttling",
        title=title,
        seen=f"{whole.throttled} of {whole.periods} periods since it was made, "
        f"{whole.seconds:.1f} s lost by all threads together; in the last "
        f"{seconds:g} s {now.throttled} of {now.periods}",
        where=whole.where,
        why="when the quota of a period (usually 0.1 s) is used up, all threads stop "
        "until the next period: with too many threads, that is most of the time",
        advice="run as many workers as the quota has cores, one thread each "
        "(coresize workers --explain), or raise the quota",
    )
