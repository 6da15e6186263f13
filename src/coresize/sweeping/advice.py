"""The count that is recommended, from what was measured. Pure."""

from __future__ import annotations

from coresize.model import Value
from coresize.sweeping import usl


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from coresize.sweeping.usl import Model

#: A count within this part of the best is as good, and a smaller one costs less.
NEAR = 0.05


class Advice(Value):
    """The count that is recommended, and why.

    Attributes:
        recommended: the smallest measured count within 5 % of the best, of those that
            memory allows.
        best: the measured count with the highest throughput.
        model: the Universal Scalability Law, fitted; None for too few points.
        reason: a sentence or two.
    """

    __slots__ = ("recommended", "best", "model", "reason")  # noqa: RUF023

    recommended: int
    best: int
    model: Model | None
    reason: str


def advise(points: Mapping[int, float], memory_bound: int | None = None) -> Advice:
    """The count that is recommended.

    Args:
        points: throughput by number of workers, at least one of them above 0.
        memory_bound: workers that fit into memory; None where nobody knows.

    >>> points = {4: 41.67, 8: 61.31, 20: 56.75, 64: 9.51, 128: 9.41}
    >>> advice = advise(points)
    >>> advice.recommended, advice.best, round(advice.model.peak, 1)
    (8, 8, 10.3)
    >>> print(advice.reason)
    8 workers are the best measured. The fitted law has its peak at 10.3.
    """
    allowed = {
        n: x for n, x in points.items() if memory_bound is None or n <= memory_bound
    }
    if not allowed:  # the least is the safest
        allowed = {min(points): points[min(points)]}
    best = max(points, key=points.__getitem__)
    top = max(allowed.values())
    chosen = min(n for n, x in allowed.items() if x >= top * (1 - NEAR))
    model = usl.fit(points)
    reason = (
        f"{_chosen(chosen, allowed, points)}{_beyond(allowed, points, memory_bound)}"
    )
    reason += _law(model, points, rising=top == points[max(points)])
    return Advice(recommended=chosen, best=best, model=model, reason=reason)


def _chosen(
    chosen: int, allowed: Mapping[int, float], points: Mapping[int, float]
) -> str:
    workers = "1 worker is" if chosen == 1 else f"{chosen} workers are"
    best = max(allowed, key=allowed.__getitem__)
    if chosen != best:
        less = 1 - allowed[chosen] / allowed[best]
        return f"{workers} within {less:.1%} of the best, {best}, and cost less."
    measured = "of those that may fit" if len(allowed) < len(points) else "measured"
    return f"{workers} the best {measured}."


def _beyond(
    allowed: Mapping[int, float], points: Mapping[int, float], memory_bound: int | None
) -> str:
    """What is left out because it may not fit into memory."""
    if len(allowed) == len(points):
        return ""
    best, top = max(points, key=points.__getitem__), max(allowed.values())
    more = f"; {best} had {points[best] / top - 1:.0%} more"
    return f" Memory has room for {memory_bound}{more if best not in allowed else ''}."


def _law(model: Model | None, points: Mapping[int, float], *, rising: bool) -> str:
    last, more = max(points), ""
    if rising and len(points) > 1:
        more = f" {last} is the most that was measured: more may be better."
    if model is None:
        count = f"{len(points)} of {usl.LEAST_POINTS}"
        return f" There are not enough points for a law ({count}).{more}"
    if model.peak is None:
        return f" The fitted law only rises.{more}"
    told = f" The fitted law has its peak at {model.peak:.1f}"
    if not min(points) <= model.peak <= last:
        return f"{told}, outside of what was measured: an extrapolation.{more}"
    return f"{told}."
