"""Measuring in turns, so that drift of the machine favours nobody."""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def least_in_turns(
    measures: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, float]:
    """The least that each measure gave, all of them asked once in each round."""
    best = dict.fromkeys(measures, float("inf"))
    for _ in range(rounds):
        for name, measure in measures.items():
            best[name] = min(best[name], measure())
    return best
