"""What a task will need, from what others of its function took. Pure.

The peak of a task is fitted to its size by least squares (a constant, the size, its
square; relative, so that small tasks count as well). How far above that tasks were is
taken from others than those that were fitted, and of these ratios the upper quantile:
split conformal prediction (J. Lei et al., "Distribution-Free Predictive Inference for
Regression", JASA 2018, arXiv:1604.04173), which covers the next task as often as it
says whatever the law, where tasks are alike. Which are fitted is drawn, as two kinds of
tasks may take turns; always by the same seed. A margin comes on top.
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

    #: The size of the item, None if unknown, and the peak in bytes.
    Seen = tuple[float | None, int]

#: One task in a hundred may need more than predicted, before the margin.
COVERED = 0.99
MARGIN = 1.1

#: For fewer tasks than this the largest that was seen counts.
FEW = 20


def size_of(given: object) -> float:
    """The size of an item, checked.

    Raises:
        ConfigError: it is no number, or below 0.

    >>> size_of(3)
    3.0
    """
    try:
        size = float(given) if isinstance(given, numbers.Real) else math.nan
    except OverflowError:
        size = math.inf
    if not 0 <= size < math.inf:
        allowed = "a number, 0 or above, in the unit in which sizes were recorded"
        raise ConfigError("item_size", given, allowed)
    return size


class Prediction(Value):
    """What a task will need.

    Attributes:
        need: bytes, with the margin.
        tasks: how many it is predicted from.
        method: "largest seen", "quantile" (without sizes), "conformal"; for sizes above
            all that were seen "extrapolated", or of few tasks "largest seen,
            extrapolated", of which nothing is promised.
    """

    need: int
    tasks: int
    method: str


class Predictor:
    """What tasks of one function need, learned once from those that were seen.

    Args:
        seen: sizes and peaks of tasks that ended well, at least one, as they came.

    >>> seen = [(float(n), 1_000_000 + 2_000 * n) for n in range(0, 2000, 20)]
    >>> prediction = Predictor(seen).predict(1000)
    >>> prediction.method, round(prediction.need / 1.1 / 3_000_000, 2)
    ('conformal', 1.0)
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._peaks = sorted(peak for _, peak in seen)
        sized = [(one, peak) for one, peak in seen if one is not None and one >= 0]
        self._sized = len(sized)
        self._largest = max((one for one, _ in sized), default=math.inf)
        if self._sized >= FEW:
            self._scale = self._largest or 1.0
            points = [(one / self._scale, peak) for one, peak in sized]
            random.Random(0).shuffle(points)  # noqa: S311 - a sample, no secret
            self._law = _fit(points[::2])
            others = points[1::2]
            self._ratios = sorted(peak / _at(self._law, one) for one, peak in others)

    def predict(self, size: float | None) -> Prediction:
        """What a task of some size will need; None for an unknown size."""
        count = len(self._peaks)
        beyond = size is not None and size > self._largest
        if count < FEW or (size is not None and self._sized < FEW):
            method = "largest seen, extrapolated" if beyond else "largest seen"
            return _told(self._peaks[-1], count, method)
        if size is None:
            return _told(_quantile(self._peaks), count, "quantile")
        peak = _at(self._law, size / self._scale) * _quantile(self._ratios)
        return _told(peak, self._sized, "extrapolated" if beyond else "conformal")


def _told(peak: float, tasks: int, method: str) -> Prediction:
    return Prediction(need=math.ceil(peak * MARGIN), tasks=tasks, method=method)


def _quantile(ordered: Sequence[float]) -> float:
    """The upper quantile, corrected for how few there are; at most the largest."""
    rank = math.ceil((len(ordered) + 1) * COVERED)
    return ordered[min(rank, len(ordered)) - 1]


def _terms(size: float) -> tuple[float, float, float]:
    return 1.0, size, size * size


def _at(law: Sequence[float], size: float) -> float:
    return max(1.0, least_squares.value(law, _terms(size)))


def _fit(points: Sequence[tuple[float, int]]) -> list[float]:
    """The coefficients, none of them negative: more never needs less."""
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
