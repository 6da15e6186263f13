"""Checks of the arguments that callers pass: here, and nowhere else."""

from __future__ import annotations

import functools
from types import FunctionType

from coresize.errors import ConfigError


#: A thousandth of a core or of a GPU.
_LEAST_AMOUNT = 0.001
_MOST_AMOUNT = 1e6


def check_count(name: str, number: object, least: int, more: str = "") -> int:
    """Check a whole number, of Python or another library, and return it.

    Args:
        name: the name of the argument.
        number: the argument.
        least: the smallest number that is allowed.
        more: text to add to the message.

    Raises:
        ConfigError: the argument is not a whole number, or is too small.

    >>> check_count("tasks", 3, 0)
    3
    """
    index = None if isinstance(number, bool) else getattr(number, "__index__", None)
    if index is None or index() < least:
        raise ConfigError(name, number, f"a whole number, {least} or above{more}")
    return int(index())


def check_seconds(name: str, value: object) -> float:
    """Check a time in seconds, and return it.

    Raises:
        ConfigError: the time is not a number above 0.

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
    """Check an amount of cores or devices, and return it.

    Args:
        name: the name of the argument.
        amount: the argument.
        allowed: the description of allowed amounts, for the message.

    Raises:
        ConfigError: the amount is not a number, below a thousandth, or too large.

    >>> check_amount("cpus", 0.5, "a number of cores, 0.001 or above")
    0.5
    """
    import math

    try:  # takes numbers of other libraries; float() would also accept the text "2"
        number = math.fsum([amount])
    except (TypeError, OverflowError):
        number = 0.0
    if isinstance(amount, bool) or not _LEAST_AMOUNT <= number <= _MOST_AMOUNT:
        raise ConfigError(name, amount, allowed)
    return number


def check_callable(name: str, function: object) -> None:
    """Check that an argument is callable or None.

    Raises:
        TypeError: the argument is neither; the standard library raises the same.
    """
    if function is not None and not callable(function):
        msg = f"{name} must be a callable, not {function!r}"
        raise TypeError(msg)
    check_sync(function)


#: The flags of code whose call makes a coroutine or an asynchronous generator
#: (inspect.CO_COROUTINE, CO_ASYNC_GENERATOR), and runs nothing.
_ASYNC = 0x80 | 0x200


def check_sync(function: object) -> None:
    """Check that a task is not ``async def``: nobody would await what it returns.

    Raises:
        TypeError: it is.

    >>> async def fetch(url): ...
    >>> check_sync(fetch)
    Traceback (most recent call last):
    ...
    TypeError: fetch is async def, and a task is a plain function: let it call \
asyncio.run(fetch(...))
    """
    if type(function) is FunctionType and not function.__code__.co_flags & _ASYNC:
        return  # in a fifth of the time
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    code = getattr(getattr(inner, "__func__", inner), "__code__", None)
    if code is None:  # an object that can be called
        code = getattr(vars(type(inner)).get("__call__"), "__code__", None)
    flags = getattr(code, "co_flags", 0)
    if type(flags) is int and flags & _ASYNC:
        name = getattr(inner, "__name__", type(inner).__name__)
        msg = (
            f"{name} is async def, and a task is a plain function: let it call "
            f"asyncio.run({name}(...))"
        )
        raise TypeError(msg)


def check_workers(number: object) -> None:
    """Check that a number of workers is possible or None.

    Raises:
        ConfigError: the number is not a whole number above 0.
    """
    if number is not None:
        # The standard library's words; its tests look for them.
        words = ": max_workers must be greater than 0"
        check_count("max_workers", number, 1, words)
