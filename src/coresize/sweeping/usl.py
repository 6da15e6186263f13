"""The Universal Scalability Law, fitted to throughput by number of workers. Pure.

X(n) = L n / (1 + a (n - 1) + b n (n - 1)): a is contention, for what is done one after
the other; b is coherence, for what each worker costs every other (N. J. Gunther, "A
General Theory of Computational Scalability Based on Rational Functions", 2008,
arXiv:0808.1431). n / X is linear in 1, n - 1 and n (n - 1): least squares of that, each
residual weighted by X / n, begin; else slow counts, where n / X is large, would decide
alone. From there it goes to the least squares of X.
"""

from __future__ import annotations

import math

from coresize import least_squares
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A law with three numbers is not fitted to fewer points.
LEAST_POINTS = 4

#: Steps at most, and how often each is halved at most.
_STEPS, _HALVINGS = 50, 20


class Model(Value):
    """A fitted law.

    Attributes:
        a: contention, 0 or above.
        b: coherence, 0 or above.
        single: throughput of one worker, by the law.
        peak: the number of workers where throughput is highest; None where it only
            rises (b is 0).
    """

    a: float
    b: float
    single: float
    peak: float | None

    def throughput(self, workers: float) -> float:
        """What so many workers get done, in the unit of the points."""
        n = workers
        return self.single * n / (1 + self.a * (n - 1) + self.b * n * (n - 1))


def fit(points: Mapping[int, float]) -> Model | None:
    """The law that fits best; None for fewer than four points above 0.

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
    # a and b are not negative: of all ways to leave some out, the best that is lawful.
    fits = [_fit(known, used) for used in ((0, 1, 2), (0, 1), (0, 2), (0,))]
    lawful = [one for one in fits if one is not None]
    if not lawful:
        return None
    base, linear, square = min(lawful, key=lambda one: _error(known, one))
    a, b = linear / base + 0.0, square / base + 0.0  # -0.0 is 0
    return Model(a=a, b=b, single=1 / base, peak=_peak(a, b))


def _peak(a: float, b: float) -> float | None:
    """Where the law is highest; from 1 on it only falls where a is 1 or above."""
    if a >= 1:
        return 1.0
    return max(1.0, math.sqrt((1 - a) / b)) if b else None


def _terms(n: int) -> tuple[float, float, float]:
    return 1.0, n - 1.0, n * (n - 1.0)


def _throughput(n: int, found: Sequence[float]) -> float:
    return n / least_squares.value(found, _terms(n))


def _error(points: Mapping[int, float], found: Sequence[float]) -> float:
    return math.fsum((_throughput(n, found) - x) ** 2 for n, x in points.items())


def _fit(points: Mapping[int, float], used: tuple[int, ...]) -> list[float] | None:
    """The coefficients of some terms, 0 for the others; None where they are unlawful.

    First those of the linear problem, then steps of Gauss and Newton, halved until they
    help, towards the least squares of throughput itself.
    """
    start = _solve(used, [(n, x / n, 1.0) for n, x in points.items()])
    if start is None or not _is_lawful(start):
        return None
    found, error = start, _error(points, start)
    for _ in range(_STEPS):
        models = {n: _throughput(n, found) for n in points}
        rows = [(n, models[n] ** 2 / n, models[n] - x) for n, x in points.items()]
        step = _solve(used, rows)
        if step is None:
            break
        better = None
        for halving in range(_HALVINGS):
            tried = [c + s / 2**halving for c, s in zip(found, step, strict=True)]
            if _is_lawful(tried) and _error(points, tried) < error:
                better = tried
                break
        if better is None:
            break
        found, error = better, _error(points, better)
    return found


def _is_lawful(found: Sequence[float]) -> bool:
    return found[0] > 0 and min(found) >= 0


def _solve(
    used: tuple[int, ...], rows: Sequence[tuple[int, float, float]]
) -> list[float] | None:
    """Coefficients by least squares: count, weight of its terms, target."""
    weighted = [([term * w for term in _terms(n)], y) for n, w, y in rows]
    return least_squares.solve(weighted, used)
