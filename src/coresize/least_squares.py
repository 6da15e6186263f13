"""Least squares for a few unknowns, without a matrix library. Pure."""

from __future__ import annotations

import math


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: A pivot below this means that the unknowns cannot be determined separately.
_TINY = 1e-300


def value(unknowns: Sequence[float], terms: Sequence[float]) -> float:
    """The sum of the terms, each times its solved unknown.

    >>> value([2.0, 3.0], (1, 4))
    14.0
    """
    return sum(map(math.prod, zip(unknowns, terms, strict=True)))


def solve(
    rows: Sequence[tuple[Sequence[float], float]], used: Sequence[int]
) -> list[float] | None:
    """Solve rows of terms and targets for the unknowns, by the normal equations.

    Args:
        rows: pairs of terms and a target.
        used: the terms to use; the unknowns of the other terms are 0.

    Returns:
        One unknown per term; None where the rows do not determine them.

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
    """Solve a small system by Gauss-Jordan elimination; None without a solution."""
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
