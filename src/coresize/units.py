"""Amounts of memory as users give them to functions and write them in files."""

from __future__ import annotations

import operator
import sys
from itertools import islice

from coresize.detection import parse
from coresize.errors import ConfigError, ParseError


#: More than any machine has: what a size_t is.
_MOST = 2**63


def to_bytes(name: str, amount: str | int) -> int:
    """The bytes in an amount: a number of them, or a text such as "2GiB".

    Args:
        name: the argument or setting that holds it, for the message.
        amount: what it holds; a number may be 0.

    Raises:
        ConfigError: it is neither, with the forms that are.

    >>> to_bytes("memory", "1.5G"), to_bytes("memory", "16Gi"), to_bytes("memory", 4096)
    (1500000000, 17179869184, 4096)
    """
    try:
        if isinstance(amount, str):
            return parse.size(amount)
        size = -1 if isinstance(amount, bool) else operator.index(amount)
        if 0 <= size < _MOST:
            return size
    except (ParseError, TypeError):
        pass
    raise ConfigError(name, amount, parse.SIZES)


#: Of the largest size that is expected, what each later one leaves.
_FADES = 0.9


def expect(before: float, size: float) -> float:
    """The size to expect of the next value: the last, or the largest as it fades.

    >>> expect(0, 1000), expect(1000, 10)
    (1000, 900.0)
    """
    return max(size, _FADES * before)


#: How many elements of a container are looked at, and how deep it goes.
_SAMPLE, _DEPTH = 32, 3


def estimate(value: object, depth: int = _DEPTH) -> int:
    """About how many bytes a value takes, for what is to be bounded, not billed.

    Arrays and frames tell; of containers a sample of the elements is looked at.

    >>> estimate(bytes(1000)) > 1000, estimate([bytes(1000)] * 100) > 100_000
    (True, True)
    """
    try:
        size = getattr(value, "nbytes", None)
        if type(size) is int:
            return size
        size = sys.getsizeof(value)
        if depth and isinstance(value, (list, tuple, set, frozenset, dict)) and value:
            parts = value.values() if isinstance(value, dict) else value
            sample = list(islice(parts, _SAMPLE))
            each = sum(estimate(part, depth - 1) for part in sample) / len(sample)
            size += int(each * len(value))
    except Exception:  # noqa: BLE001 - attributes are the user's code
        return 0
    return size
