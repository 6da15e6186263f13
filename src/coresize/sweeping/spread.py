"""Whether rounds tell two numbers of workers apart. Pure.

By the notches of box plots: median ± 1.57 IQR / sqrt(n); where those of two do not
overlap, their medians differ (R. McGill, J. W. Tukey, W. A. Larsen, "Variations of Box
Plots", The American Statistician 32, 1978, 12-16). Medians and quartiles take no notice
of how bad a single round was, and notches get narrower with more rounds.
"""

from __future__ import annotations

import math
import statistics


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
