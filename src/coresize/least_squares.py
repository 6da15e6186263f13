"""Least squares for a few unknowns, without a library of matrices. Pure."""

from __future__ import annotations

import math


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: A pivot below this says that the unknowns cannot be told apart.
_TINY = 1e-300


def value(found: Sequence[float], terms: Sequence[float]) -> float:
    """What unknowns that were found make of some terms.

    >>> value([2.0, 3.0], (1, 4))
    14.0
    """
    return sum(map(math.prod, zip(found, terms, strict=True)))


def solve(
    rows: Sequence[tuple[Sequence[float], float]], used: Sequence[int]
) -> list[float] | None:
    """The unknowns of rows of terms and a target, by the normal equations.

    Args:
        rows: terms and a target each.
        used: the terms that count; the unknowns of the others are 0.

    Returns:
        One for each term; None where they cannot be told.

    >>> rows = [((1, 0), 2), ((1, 1), 5), ((1, 2), 8)]
    >>> solve(rows, (0, 1)), solve(rows, (0,))
    ([2.0, 3.0], [5.0, 0.0])
    """
    matrix = [
        [
            *(math.fsum(terms[i] * terms[j] for terms, _ in rows) for j in used),
            math.fsum(terms[i] * target for terms, target in rows),
        ]
        for i in used
    ]
    solution = _eliminate(matrix)
    if solution is None:
        return None
    known = dict(zip(used, solution, strict=True))
    return [known.get(term, 0.0) for term in range(len(rows[0][0]))]


def _eliminate(matrix: list[list[float]]) -> list[float] | None:
    """The solution of a small system, by Gauss and Jordan; None where there is none."""
    size = len(matrix)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        if abs(matrix[pivot][column]) < _TINY:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        for row in range(size):
            if row != column:
                factor = matrix[row][column] / matrix[column][column]
                matrix[row] = [
                    x - factor * y
                    for x, y in zip(matrix[row], matrix[column], strict=True)
                ]
    return [matrix[row][size] / matrix[row][row] for row in range(size)]
