"""The recommended count of workers, from measurements. Pure."""

from __future__ import annotations

import math
import statistics

from coresize.model import Value
from coresize.sweeping import usl


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coresize.sweeping.usl import Model


#: A count whose throughput is within this part of the best counts as equally good, and
#: the smaller count costs less.
NEAR = 0.05


class Advice(Value):
    """The recommended count of workers, and the reason.

    Attributes:
        recommended: the smallest measured count that is about as good as the best
            count that fits into memory; if no measured count fits, the number of
            workers that do, at least 1.
        best: the measured count with the highest throughput.
        top: the best count that fits into memory; if none fits, the smallest count.
        alike: the counts that fit into memory and that the rounds do not distinguish
            from ``top``.
        flat: whether several counts fit and the rounds distinguish none from ``top``.
        model: the fitted Universal Scalability Law; None for too few points.
        reason: one or more sentences.
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
    """Recommend a count of workers.

    Args:
        points: throughput by number of workers, at least one of them above 0.
        memory_bound: workers that fit into memory; None if unknown.
        rounds: throughput of each round by number of workers, if known.

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
    best, top = (max(rates, key=rates.__getitem__) for rates in (points, allowed))
    known = rounds or {}
    alike = tuple(
        n
        for n in allowed
        if n == top or not apart(known.get(n, ()), known.get(top, ()))
    )
    if fits:
        chosen = min(n for n, x in allowed.items() if x >= allowed[top] * (1 - NEAR))
        sentences = [_chosen(chosen, top, allowed, points)]
    else:  # never more than fit
        chosen = max(1, memory_bound or 0)
        sentences = ["No measured count fits."]
    if not fits or len(allowed) < len(points):
        gain = points[best] / allowed[top] - 1
        more = f"; {best} had {gain:.0%} more" if fits and best not in allowed else ""
        sentences.append(f"Memory has room for {memory_bound}{more}.")
    model = usl.fit(points)
    flat = len(alike) == len(allowed) > 1
    if not flat:  # otherwise the law would explain noise
        sentences.append(_law(model, points))
    return Advice(
        recommended=chosen,
        best=best,
        top=top,
        alike=alike,
        flat=flat,
        model=model,
        reason=" ".join(filter(None, sentences)),
    )


def _chosen(
    chosen: int, top: int, allowed: Mapping[int, float], points: Mapping[int, float]
) -> str:
    workers, costs = f"{chosen} workers are", "cost"
    if chosen == 1:
        workers, costs = "1 worker is", "costs"
    if chosen == top:
        measured = "of those that fit" if len(allowed) < len(points) else "measured"
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
    peak = f"The fitted law has its peak at {model.peak:.1f}"
    if not min(points) <= model.peak <= max(points):
        return f"{peak}, outside of what was measured: an extrapolation."
    return f"{peak}."


# -----------------------------------------------------------------------------
# Whether rounds distinguish two numbers of workers. Pure.
#
# The test uses the notches of box plots: median ± 1.57 IQR / sqrt(n). Where the notches
# of two counts do not overlap, their medians differ (R. McGill, J. W. Tukey, W. A.
# Larsen, "Variations of Box Plots", The American Statistician 32, 1978, 12-16). Medians
# and quartiles are robust against a single bad round, and notches get narrower with
# more rounds.


#: With fewer rounds than this, the spread is unknown, and any difference counts.
LEAST_ROUNDS = 3

_NOTCH = 1.57


def apart(rates: Sequence[float], others: Sequence[float]) -> bool:
    """Whether the medians of two counts differ by more than the spread of their rounds.

    Args:
        rates: throughput of each round with one count of workers.
        others: throughput of each round with another count.

    >>> apart([78, 79, 80], [40, 41, 42]), apart([69, 79, 83], [70, 87, 103])
    (True, False)
    >>> apart([20, 79, 80], [40, 41, 42])  # one slow round hides nothing
    True
    >>> apart([79], [80])  # too few rounds: any difference counts
    True
    """
    if min(len(rates), len(others)) < LEAST_ROUNDS:
        return True
    low, high = sorted((_notch(rates), _notch(others)))
    return low[1] < high[0]


def _notch(rates: Sequence[float]) -> tuple[float, float]:
    first, middle, third = statistics.quantiles(rates, n=4, method="inclusive")
    half = _NOTCH * (third - first) / math.sqrt(len(rates))
    return middle - half, middle + half
