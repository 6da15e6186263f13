"""Numbers, sizes in bytes, and what values take: read from text, shown, estimated."""

from __future__ import annotations

import sys

from coresize.errors import ConfigError, ParseError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never

#: 2**64 has 20 digits; what is longer was not written by a kernel or a person.
_LONGEST_NUMBER = 20

_UNITS = {"": 1, "B": 1}

for _power, _letter in enumerate("KMGTPE", start=1):
    _UNITS[_letter] = _UNITS[_letter + "B"] = 1000**_power
    _UNITS[_letter + "I"] = _UNITS[_letter + "IB"] = 1024**_power

_SHOWN_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

#: What `size` takes, for messages.
SIZES = (
    'a size above 0, such as "4GB", "512MiB", "16Gi" or a number of bytes '
    '(not "512m", of which Docker and Kubernetes think differently)'
)


def fail(msg: str) -> Never:
    """Refuse a text."""
    raise ParseError(msg)


def shown(text: str) -> str:
    """A text as messages show it: quoted, and cut when it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def whole(text: str) -> int:
    """A whole number, 0 or above, with white space around it."""
    digits = text.strip()
    if digits.isdigit() and digits.isascii() and len(digits) <= _LONGEST_NUMBER:
        return int(digits)
    fail(f"{shown(text)} is not a whole number")


def positive(text: str) -> int:
    """A whole number above 0."""
    return whole(text) or fail(f"{shown(text)} is not above 0")


def cores(text: str) -> float:
    """A number of cores above 0, such as ``8`` or ``8.5``."""
    numerator, denominator = _decimal(text.strip())
    return numerator / denominator or fail(f"{shown(text)} is not above 0")


def size(text: str) -> int:
    """A number of bytes above 0, as people and Kubernetes write it.

    ``4096``, ``4GB`` and ``1.5G`` (powers of 1000), ``512MiB`` and ``16Gi`` (powers of
    1024). Of the single letters only ``k`` may be small: ``m`` is a thousandth in
    Kubernetes and a mebibyte in Docker.
    """
    number = text.strip()
    letters = number.lstrip("0123456789.")
    unit = letters.strip()
    known = unit.upper() if len(unit) > 1 or unit == "k" else unit
    if known not in _UNITS:
        fail(f"{shown(text)} has an unknown unit {shown(unit)}")
    numerator, denominator = _decimal(number[: len(number) - len(letters)])
    return numerator * _UNITS[known] // denominator or fail(
        f"{shown(text)} is not above 0"
    )


def format_bytes(amount: float) -> str:
    """An amount of memory in the largest unit of which it is at least one.

    >>> format_bytes(536870912), format_bytes(1536), format_bytes(1)
    ('512.0 MiB', '1.5 KiB', '1 bytes')
    """
    power = 0
    while amount >= 1024 and power < len(_SHOWN_UNITS) - 1:
        amount /= 1024
        power += 1
    return f"{amount:.1f} {_SHOWN_UNITS[power]}" if power else f"{amount:g} bytes"


def format_count(number: int, noun: str, plural: str = "") -> str:
    """A number of things.

    >>> format_count(1, "worker"), format_count(0, "core")
    ('1 worker', '0 cores')
    >>> format_count(2, "process", "processes")
    '2 processes'
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def _decimal(text: str) -> tuple[int, int]:
    """``8.5`` as the fraction 85 / 10, exact at any size."""
    digits, point, fraction = text.partition(".")
    if not point:
        return whole(digits), 1
    both = digits + fraction
    if not (digits and fraction and both.isdigit() and len(both) <= _LONGEST_NUMBER):
        fail(f"{shown(text)} is not a number")
    return whole(both), 10 ** len(fraction)


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
            return size(amount)
        count = -1 if isinstance(amount, bool) else amount.__index__()
        if 0 <= count < _MOST:
            return count
    except (ParseError, TypeError, AttributeError):
        pass
    raise ConfigError(name, amount, SIZES)


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
            sample = [part for part, _ in zip(parts, range(_SAMPLE), strict=False)]
            each = sum(estimate(part, depth - 1) for part in sample) / len(sample)
            size += int(each * len(value))
    except Exception:  # noqa: BLE001 - attributes are the user's code
        return 0
    return size
