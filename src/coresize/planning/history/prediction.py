"""Predicting the memory of a task from earlier tasks of its function. Pure.

The peak of a task is fitted to its size by least squares (a constant, the size, its
square; with relative errors, so that small tasks count as well). The tasks that were
not fitted show how far peaks lie above the fit: the prediction is multiplied by the
upper quantile of these ratios. This is split conformal prediction (J. Lei et al.,
"Distribution-Free Predictive Inference for Regression", JASA 2018, arXiv:1604.04173):
it covers the next task as often as stated, whatever the true law, as long as tasks are
exchangeable. The tasks to fit are drawn at random, because two kinds of tasks may
alternate, but always with the same seed. A margin is added on top.
"""

from __future__ import annotations

import math
import numbers
import random

from coresize import least_squares
from coresize.errors import ConfigError
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    #: The size of the item (None if unknown), and the peak in bytes.
    Seen = tuple[float | None, int]

#: One task in a hundred may need more than predicted, before the margin.
COVERED = 0.99
MARGIN = 1.1

#: With fewer tasks than this, the largest recorded peak is the prediction.
FEW = 20


def size_of(value: object) -> float:
    """Check the size of an item, and return it.

    Raises:
        ConfigError: the size is not a number, or below 0.

    >>> size_of(3)
    3.0
    """
    try:
        size = float(value) if isinstance(value, numbers.Real) else math.nan
    except OverflowError:
        size = math.inf
    if not 0 <= size < math.inf:
        allowed = "a number, 0 or above, in the unit in which sizes were recorded"
        raise ConfigError("item_size", value, allowed)
    return size


class Prediction(Value):
    """The predicted memory of a task.

    Attributes:
        need: bytes, including the margin.
        tasks: the number of tasks that the prediction is based on.
        method: "largest seen", "quantile" (without sizes), "conformal"; for a size
            above all recorded ones "extrapolated" or, from few tasks, "largest seen,
            extrapolated", which have no guarantee.
    """

    need: int
    tasks: int
    method: str


class Predictor:
    """Predicts the memory of tasks of one function, fitted once to earlier tasks.

    Args:
        seen: sizes and peaks of at least one successful task, in order of recording.

    >>> seen = [(float(n), 1_000_000 + 2_000 * n) for n in range(0, 2000, 20)]
    >>> prediction = Predictor(seen).predict(1000)
    >>> prediction.method, round(prediction.need / 1.1 / 3_000_000, 2)
    ('conformal', 1.0)
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._peaks = sorted(peak for _, peak in seen)
        sized = [(size, peak) for size, peak in seen if size is not None and size >= 0]
        self._sized = len(sized)
        self._largest = max((size for size, _ in sized), default=math.inf)
        if self._sized >= FEW:
            self._scale = self._largest or 1.0
            points = [(size / self._scale, peak) for size, peak in sized]
            random.Random(0).shuffle(points)  # noqa: S311 - a sample, no secret
            self._law = _fit(points[::2])
            others = points[1::2]
            self._ratios = sorted(peak / _at(self._law, size) for size, peak in others)

    def predict(self, size: float | None) -> Prediction:
        """Predict the memory of a task of this size; None for an unknown size."""
        count = len(self._peaks)
        beyond = size is not None and size > self._largest
        if count < FEW or (size is not None and self._sized < FEW):
            method = "largest seen, extrapolated" if beyond else "largest seen"
            return _with_margin(self._peaks[-1], count, method)
        if size is None:
            return _with_margin(_quantile(self._peaks), count, "quantile")
        peak = _at(self._law, size / self._scale) * _quantile(self._ratios)
        method = "extrapolated" if beyond else "conformal"
        return _with_margin(peak, self._sized, method)


def _with_margin(peak: float, tasks: int, method: str) -> Prediction:
    return Prediction(need=math.ceil(peak * MARGIN), tasks=tasks, method=method)


def _quantile(ordered: Sequence[float]) -> float:
    """The upper quantile, corrected for a small sample; at most the largest value."""
    rank = math.ceil((len(ordered) + 1) * COVERED)
    return ordered[min(rank, len(ordered)) - 1]


def _terms(size: float) -> tuple[float, float, float]:
    return 1.0, size, size * size


def _at(law: Sequence[float], size: float) -> float:
    return max(1.0, least_squares.value(law, _terms(size)))


def _fit(points: Sequence[tuple[float, int]]) -> list[float]:
    """The coefficients of the best fit; none is negative: more never needs less."""
    rows = [
        ([term / (peak or 1) for term in _terms(size)], 1.0) for size, peak in points
    ]
    subsets = ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,))
    laws = [least_squares.solve(rows, used) for used in subsets]
    return min(
        (law for law in laws if law is not None and min(law) >= 0),
        key=lambda law: math.fsum(
            (least_squares.value(law, terms) - target) ** 2 for terms, target in rows
        ),
    )
