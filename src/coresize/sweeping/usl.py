"""The Universal Scalability Law, fitted to throughput by number of workers. Pure.

X(n) = L n / (1 + a (n - 1) + b n (n - 1)): a is contention, the part of the work that
is serial; b is coherence, the cost of each worker to every other (N. J. Gunther, "A
General Theory of Computational Scalability Based on Rational Functions", 2008,
arXiv:0808.1431). n / X is linear in 1, n - 1 and n (n - 1). The fit begins with the
least squares of n / X, each residual weighted by X / n; without weights, slow counts,
whose n / X is large, would dominate. From there it proceeds to the least squares of X.
"""

from __future__ import annotations

import math

from coresize import least_squares
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The law has three parameters and is not fitted to fewer points than this.
LEAST_POINTS = 4

#: The most steps of the fit, and the most halvings of a step.
_STEPS, _HALVINGS = 50, 20


class Model(Value):
    """A fitted law.

    Attributes:
        a: contention, 0 or above.
        b: coherence, 0 or above.
        single: throughput of one worker, by the law.
        peak: the number of workers with the highest throughput; None if throughput
            only rises (b is 0).
    """

    a: float
    b: float
    single: float
    peak: float | None

    def throughput(self, workers: float) -> float:
        """The throughput of this number of workers, in the unit of the points."""
        n = workers
        return self.single * n / (1 + self.a * (n - 1) + self.b * n * (n - 1))


def fit(points: Mapping[int, float]) -> Model | None:
    """Fit the law; None for fewer than four points above 0.

    Args:
        points: throughput by number of workers.

    >>> law = Model(a=0.1, b=0.01, single=100, peak=None)
    >>> model = fit({n: law.throughput(n) for n in (1, 2, 4, 8)})
    >>> round(model.a, 6), round(model.b, 6), round(model.peak, 3)
    (0.1, 0.01, 9.487)
    """
    known = {n: x for n, x in points.items() if n >= 1 and x > 0}
    if len(known) < LEAST_POINTS:
        return None
    # a and b must not be negative: try all subsets of terms, take the best lawful fit.
    fits = [_fit(known, used) for used in ((0, 1, 2), (0, 1), (0, 2), (0,))]
    lawful = [law for law in fits if law is not None]
    if not lawful:
        return None
    base, linear, square = min(lawful, key=lambda law: _error(known, law))
    a, b = linear / base + 0.0, square / base + 0.0  # -0.0 is 0
    return Model(a=a, b=b, single=1 / base, peak=_peak(a, b))


def _peak(a: float, b: float) -> float | None:
    """The peak of the law; with a of 1 or above, the law falls from 1 on."""
    if a >= 1:
        return 1.0
    return max(1.0, math.sqrt((1 - a) / b)) if b else None


def _terms(n: int) -> tuple[float, float, float]:
    return 1.0, n - 1.0, n * (n - 1.0)


def _throughput(n: int, law: Sequence[float]) -> float:
    return n / least_squares.value(law, _terms(n))


def _error(points: Mapping[int, float], law: Sequence[float]) -> float:
    return math.fsum((_throughput(n, law) - x) ** 2 for n, x in points.items())


def _fit(points: Mapping[int, float], used: tuple[int, ...]) -> list[float] | None:
    """The coefficients of the used terms, 0 for the others; None if any is unlawful.

    The fit starts from the linear problem. Gauss-Newton steps, halved until they help,
    then lead to the least squares of throughput itself.
    """
    start = _solve(used, [(n, x / n, 1.0) for n, x in points.items()])
    if start is None or not _is_lawful(start):
        return None
    law, error = start, _error(points, start)
    for _ in range(_STEPS):
        models = {n: _throughput(n, law) for n in points}
        rows = [(n, models[n] ** 2 / n, models[n] - x) for n, x in points.items()]
        step = _solve(used, rows)
        if step is None:
            break
        better = None
        for halving in range(_HALVINGS):
            trial = [c + s / 2**halving for c, s in zip(law, step, strict=True)]
            if _is_lawful(trial) and _error(points, trial) < error:
                better = trial
                break
        if better is None:
            break
        law, error = better, _error(points, better)
    return law


def _is_lawful(law: Sequence[float]) -> bool:
    return law[0] > 0 and min(law) >= 0


def _solve(
    used: tuple[int, ...], rows: Sequence[tuple[int, float, float]]
) -> list[float] | None:
    """Coefficients by least squares, from rows of count, weight of terms, target."""
    weighted = [([term * w for term in _terms(n)], y) for n, w, y in rows]
    return least_squares.solve(weighted, used)
