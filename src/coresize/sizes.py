"""Amounts of memory as users give them to functions and write them in files."""

from __future__ import annotations

import operator

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
