"""Least squares for a few unknowns, without a library of matrices. Pure."""

from __future__ import annotations

import math


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: A pivot below this says that the unknowns cannot be told apart.
_TINY = 1e-300


def solve(rows: Sequence[tuple[Sequence[float], float]]) -> list[float] | None:
    """The unknowns of rows of terms and a target, by the normal equations.

    None where they cannot be told.

    >>> solve([((1, 0), 2), ((1, 1), 5), ((1, 2), 8)])
    [2.0, 3.0]
    """
    size = range(len(rows[0][0]))
    matrix = [
        [
            *(math.fsum(terms[i] * terms[j] for terms, _ in rows) for j in size),
            math.fsum(terms[i] * target for terms, target in rows),
        ]
        for i in size
    ]
    return _eliminate(matrix)


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
