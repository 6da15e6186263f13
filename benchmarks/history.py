"""How well the history predicts: under-predicted tasks, and what is reserved.

Half of the tasks is seen, the other half predicted by their sizes. Beside it stands
what people do by hand: the largest that was seen, and 1.2 times the mean.
"""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

from coresize.planning.history.prediction import Predictor


if TYPE_CHECKING:
    from collections.abc import Callable

_TASKS = 2000
_MIB = 1024**2


def _linear(size: float, chance: random.Random) -> float:
    return 50 + 2 * size + chance.gauss(0, 3)


def _quadratic(size: float, chance: random.Random) -> float:
    return (40 + 0.05 * size**2) * chance.lognormvariate(0, 0.05)


def _bimodal(size: float, chance: random.Random) -> float:
    return (
        (60 + size) * (4 if chance.random() < 0.3 else 1) * chance.uniform(0.95, 1.05)
    )


LAWS: dict[str, Callable[[float, random.Random], float]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "bimodal": _bimodal,
}


def main() -> None:
    """Print a table."""
    print("need         predicted by         under-predicted   reserved / needed")
    for name, law in LAWS.items():
        chance = random.Random(7)
        sizes = [chance.uniform(1, 200) for _ in range(_TASKS)]
        tasks = [(size, int(law(size, chance) * _MIB)) for size in sizes]
        seen, held_out = tasks[::2], tasks[1::2]
        by = Predictor(seen)
        most = max(peak for _, peak in seen)
        mean = statistics.mean(peak for _, peak in seen)
        ways: dict[str, Callable[[float], float]] = {
            "history": lambda size, by=by: by.predict(size).need,  # type: ignore[misc]
            "largest seen": lambda _, most=most: most,  # type: ignore[misc]
            "1.2 x mean": lambda _, mean=mean: 1.2 * mean,  # type: ignore[misc]
        }
        for way, need in ways.items():
            needs = [(need(size), peak) for size, peak in held_out]
            under = sum(one < peak for one, peak in needs) / len(needs)
            reserved = sum(one for one, _ in needs) / sum(peak for _, peak in needs)
            print(f"{name:<12} {way:<20} {under:>14.1%} {reserved:>18.2f}")


if __name__ == "__main__":
    main()
