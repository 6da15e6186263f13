"""Numbers that a caller gives, checked: here, and nowhere else."""

from __future__ import annotations

from coresize import units
from coresize.errors import ConfigError, ParseError


#: A thousandth of a core or of a GPU.
_LEAST_AMOUNT = 0.001
_MOST_AMOUNT = 1e6

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
            return units.size(amount)
        size = -1 if isinstance(amount, bool) else amount.__index__()
        if 0 <= size < _MOST:
            return size
    except (ParseError, TypeError, AttributeError):
        pass
    raise ConfigError(name, amount, units.SIZES)


def check_count(name: str, number: object, least: int, more: str = "") -> int:
    """A whole number that a caller gave, of Python or another library.

    Args:
        name: of the argument.
        number: what was given.
        least: what is allowed.
        more: what the message says besides.

    Raises:
        ConfigError: it is none, or less than the least.

    >>> check_count("tasks", 3, 0)
    3
    """
    index = None if isinstance(number, bool) else getattr(number, "__index__", None)
    if index is None or index() < least:
        raise ConfigError(name, number, f"a whole number, {least} or above{more}")
    return int(index())


def check_seconds(name: str, value: object) -> float:
    """A time that a caller gave.

    Raises:
        ConfigError: it is no number above 0.

    >>> check_seconds("timeout", 0.5)
    0.5
    """
    try:
        seconds = 0.0 if isinstance(value, (bool, str)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(name, value, "a number of seconds above 0")
    return seconds


def check_amount(name: str, amount: float, allowed: str) -> float:
    """An amount of cores or devices that a caller gave.

    Args:
        name: of the argument.
        amount: what was given.
        allowed: what the message says is allowed.

    Raises:
        ConfigError: it is no number, or less than a thousandth.

    >>> check_amount("cpus", 0.5, "a number of cores, 0.001 or above")
    0.5
    """
    import math

    try:  # numbers of other libraries too; of a text it would take float("2")
        number = math.fsum([amount])
    except (TypeError, OverflowError):
        number = 0.0
    if isinstance(amount, bool) or not _LEAST_AMOUNT <= number <= _MOST_AMOUNT:
        raise ConfigError(name, amount, allowed)
    return number
