"""Numbers that a caller gives, checked: here, and nowhere else."""

from __future__ import annotations

from coresize.errors import ConfigError


#: A thousandth of a core or of a GPU.
_LEAST_AMOUNT = 0.001
_MOST_AMOUNT = 1e6


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


def check_callable(name: str, function: object) -> None:
    """See that what a caller gave can be called, or is None.

    Raises:
        TypeError: it cannot, as the standard library says it.
    """
    if function is not None and not callable(function):
        msg = f"{name} must be a callable"
        raise TypeError(msg)


def check_workers(number: object) -> None:
    """See that a number of workers is possible, or is None.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    if number is not None:
        # The words of the standard library, whose tests look for them.
        words = ": max_workers must be greater than 0"
        check_count("max_workers", number, 1, words)
