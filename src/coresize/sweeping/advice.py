"""The count that is recommended, from what was measured. Pure."""

from __future__ import annotations

import math
import statistics

from coresize.model import Value
from coresize.sweeping import usl


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coresize.sweeping.usl import Model


#: A count within this part of the best is as good, and a smaller one costs less.
NEAR = 0.05


class Advice(Value):
    """The count that is recommended, and why.

    Attributes:
        recommended: the smallest measured count that is as good as the best of those
            that memory allows; where it allows none, as many as it does, at least 1.
        best: the measured count with the highest throughput.
        top: the same of those that memory allows, or the least where it allows none.
        alike: those that memory allows and that the rounds do not tell from that one.
        flat: there are others, and the rounds tell none from it.
        model: the Universal Scalability Law, fitted; None for too few points.
        reason: a sentence or two.
    """

    recommended: int
    best: int
    top: int
    alike: tuple[int, ...]
    flat: bool
    model: Model | None
    reason: str


def advise(
    points: Mapping[int, float],
    memory_bound: int | None = None,
    rounds: Mapping[int, Sequence[float]] | None = None,
) -> Advice:
    """The count that is recommended.

    Args:
        points: throughput by number of workers, at least one of them above 0.
        memory_bound: workers that fit into memory; None where nobody knows.
        rounds: throughput in each round by number of workers, where that is known.

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
    fits = bool(allowed)
    allowed = allowed or {min(points): points[min(points)]}  # the nearest to the bound
    best, top = (max(those, key=those.__getitem__) for those in (points, allowed))
    known = rounds or {}
    alike = tuple(
        n
        for n in allowed
        if n == top or not apart(known.get(n, ()), known.get(top, ()))
    )
    if fits:
        chosen = min(n for n, x in allowed.items() if x >= allowed[top] * (1 - NEAR))
        said = [_chosen(chosen, top, allowed, points)]
    else:  # never more than fit
        chosen = max(1, memory_bound or 0)
        said = ["No count that was measured may fit."]
    if not fits or len(allowed) < len(points):
        gain = points[best] / allowed[top] - 1
        more = f"; {best} had {gain:.0%} more" if fits and best not in allowed else ""
        said.append(f"Memory has room for {memory_bound}{more}.")
    model = usl.fit(points)
    flat = len(alike) == len(allowed) > 1
    if not flat:  # else the law would explain noise
        said.append(_law(model, points))
    return Advice(
        recommended=chosen,
        best=best,
        top=top,
        alike=alike,
        flat=flat,
        model=model,
        reason=" ".join(filter(None, said)),
    )


def _chosen(
    chosen: int, top: int, allowed: Mapping[int, float], points: Mapping[int, float]
) -> str:
    workers, costs = f"{chosen} workers are", "cost"
    if chosen == 1:
        workers, costs = "1 worker is", "costs"
    if chosen == top:
        measured = "of those that may fit" if len(allowed) < len(points) else "measured"
        return f"{workers} the best {measured}."
    less = 1 - allowed[chosen] / allowed[top]
    return f"{workers} within {less:.1%} of the best, {top}, and {costs} less."


def _law(model: Model | None, points: Mapping[int, float]) -> str:
    if model is None:
        if len(points) >= usl.LEAST_POINTS:
            return "No law fits the points."
        count = f"{len(points)} of {usl.LEAST_POINTS}"
        return f"There are not enough points for a law ({count})."
    if model.peak is None:
        low, high = model.throughput(min(points)), model.throughput(max(points))
        if high * (1 - NEAR) <= low:
            return "The fitted law is flat: more workers gain nothing."
        return "The fitted law only rises."
    told = f"The fitted law has its peak at {model.peak:.1f}"
    if not min(points) <= model.peak <= max(points):
        return f"{told}, outside of what was measured: an extrapolation."
    return f"{told}."


# -----------------------------------------------------------------------------
# Whether rounds tell two numbers of workers apart. Pure.
#
# By the notches of box plots: median ± 1.57 IQR / sqrt(n); where those of two do not
# overlap, their medians differ (R. McGill, J. W. Tukey, W. A. Larsen, "Variations of
# Box Plots", The American Statistician 32, 1978, 12-16). Medians and quartiles take no
# notice of how bad a single round was, and notches get narrower with more rounds.


#: Fewer rounds have no spread to speak of, and count as they are.
LEAST_ROUNDS = 3

_NOTCH = 1.57


def apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the medians of two differ beyond the spread of their rounds.

    Args:
        one: throughput by round.
        other: the same of another count.

    >>> apart([78, 79, 80], [40, 41, 42]), apart([69, 79, 83], [70, 87, 103])
    (True, False)
    >>> apart([20, 79, 80], [40, 41, 42])  # one slow round hides nothing
    True
    >>> apart([79], [80])  # nobody knows, so it is taken as it is
    True
    """
    if min(len(one), len(other)) < LEAST_ROUNDS:
        return True
    low, high = sorted((_notch(one), _notch(other)))
    return low[1] < high[0]


def _notch(rates: Sequence[float]) -> tuple[float, float]:
    first, middle, third = statistics.quantiles(rates, n=4, method="inclusive")
    half = _NOTCH * (third - first) / math.sqrt(len(rates))
    return middle - half, middle + half
