"""Numbers and sizes in bytes: parsed from text, formatted, and estimated for values."""

from __future__ import annotations

import sys

from coresize.errors import ConfigError, ParseError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never

#: 2**64 has 20 digits; neither a kernel nor a person writes a longer number.
_LONGEST_NUMBER = 20

_UNITS = {"": 1, "B": 1}

for _power, _letter in enumerate("KMGTPE", start=1):
    _UNITS[_letter] = _UNITS[_letter + "B"] = 1000**_power
    _UNITS[_letter + "I"] = _UNITS[_letter + "IB"] = 1024**_power

_SHOWN_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

#: What `size` accepts, for messages.
SIZES = (
    'a size above 0, such as "4GB", "512MiB", "16Gi" or a number of bytes '
    '(not "512m", of which Docker and Kubernetes think differently)'
)


def fail(msg: str) -> Never:
    """Refuse a text with a `ParseError`."""
    raise ParseError(msg)


def shown(text: str) -> str:
    """A text as messages show it: quoted, and shortened when it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def whole(text: str) -> int:
    """A whole number, 0 or above; white space around it is ignored."""
    digits = text.strip()
    if digits.isdigit() and digits.isascii() and len(digits) <= _LONGEST_NUMBER:
        return int(digits)
    fail(f"{shown(text)} is not a whole number")


def positive(text: str) -> int:
    """A whole number above 0."""
    return whole(text) or fail(f"{shown(text)} is not above 0")


def switch(text: str) -> bool:
    """Whether a text means on or off, in any of the usual words."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    return word not in ("0", "false", "no", "off") and fail(
        f"{shown(text)} is neither on nor off"
    )


def cores(text: str) -> float:
    """A number of cores above 0, such as ``8`` or ``8.5``."""
    numerator, denominator = _decimal(text.strip())
    return numerator / denominator or fail(f"{shown(text)} is not above 0")


def size(text: str) -> int:
    """A number of bytes above 0, as people and Kubernetes write it.

    ``4096``, ``4GB`` and ``1.5G`` (powers of 1000), ``512MiB`` and ``16Gi`` (powers of
    1024). ``k`` is the only single letter that may be lower case: ``m`` means a
    thousandth in Kubernetes and a mebibyte in Docker.
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
    """An amount of memory in the largest unit that keeps the number at 1 or above.

    >>> format_bytes(536870912), format_bytes(1536), format_bytes(1)
    ('512.0 MiB', '1.5 KiB', '1 byte')
    """
    power = 0
    while amount >= 1024 and power < len(_SHOWN_UNITS) - 1:
        amount /= 1024
        power += 1
    if power:
        return f"{amount:.1f} {_SHOWN_UNITS[power]}"
    return f"{amount:g} {'byte' if amount == 1 else 'bytes'}"


def format_count(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun, singular or plural.

    >>> format_count(1, "worker"), format_count(0, "core")
    ('1 worker', '0 cores')
    >>> format_count(2, "process", "processes")
    '2 processes'
    """
    return f"{number:.15g} {noun if number == 1 else plural or f'{noun}s'}"


def _decimal(text: str) -> tuple[int, int]:
    """Numerator and denominator, exact at any size: ``8.5`` is 85 / 10."""
    digits, point, fraction = text.partition(".")
    if not point:
        return whole(digits), 1
    both = digits + fraction
    if not (digits and fraction and both.isdigit() and len(both) <= _LONGEST_NUMBER):
        fail(f"{shown(text)} is not a number")
    return whole(both), 10 ** len(fraction)


#: More bytes than any machine has.
_MOST = 2**63


def to_bytes(name: str, amount: str | int) -> int:
    """The bytes in an amount: a number of bytes, or a text such as "2GiB".

    Args:
        name: the argument or setting that holds the amount, for the message.
        amount: the amount; a number may be 0.

    Raises:
        ConfigError: the amount is neither; the message lists the accepted forms.

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


#: A number without a unit that is smaller than this is hardly meant in bytes.
_LEAST_BARE = 1024**2
#: Up to this number, gigabytes are the more likely unit.
_FEW = 64


def unit_hint(amount: object, least: int = _LEAST_BARE) -> str:
    """A question for a number without a unit that is too small to be meant in bytes.

    Args:
        amount: the amount.
        least: the smallest number that may be meant in bytes.

    Returns:
        The question, to be appended to a message; "" for any other amount.

    >>> unit_hint(4), unit_hint("512"), unit_hint("4KB"), unit_hint(2**20)
    (': 4 bytes; did you mean "4GB"?', ': 512 bytes; did you mean "512MB"?', '', '')
    """
    try:
        text = amount if isinstance(amount, str) else str(amount.__index__())  # type: ignore[attr-defined]
        count = whole(text)
    except (ParseError, TypeError, AttributeError):
        return ""
    if isinstance(amount, bool) or not 0 < count < least:
        return ""
    likely = f"{count}{'GB' if count <= _FEW else 'MB'}"
    return f': {format_bytes(count)}; did you mean "{likely}"?'


def to_memory(name: str, amount: str | int, least: int = _LEAST_BARE) -> int:
    """The bytes in an amount of memory that a user has given for a task or a limit.

    Raises:
        ConfigError: the amount is not valid, as for `to_bytes`, or is a number so small
            that its unit was forgotten.

    >>> to_memory("memory", "4GB"), to_memory("memory", "4KB"), to_memory("memory", 0)
    (4000000000, 4000, 0)
    """
    hint = unit_hint(amount, least)
    if hint:
        raise ConfigError(name, amount, SIZES + hint)
    return to_bytes(name, amount)


def measured(count: int | None) -> int | str | None:
    """A number of bytes that nobody has written by hand, as `to_memory` takes it."""
    return f"{count}B" if unit_hint(count) else count


def memory_size(text: str) -> int:
    """Bytes as `size` reads them, but for a small number without a unit."""
    hint = unit_hint(text)
    return fail(shown(text) + hint) if hint else size(text)


#: The factor by which each later value reduces the expected size.
_FADES = 0.9


def expect(before: float, size: float) -> float:
    """The expected size of the next value.

    This is the size of the last value, or the previous expectation as it decays.

    >>> expect(0, 1000), expect(1000, 10)
    (1000, 900.0)
    """
    return max(size, _FADES * before)


#: How many elements of a container `estimate` samples, and how deep it descends.
_SAMPLE, _DEPTH = 32, 3


def estimate(value: object, depth: int = _DEPTH) -> int:
    """A rough estimate of the bytes that a value takes, good enough for bounds.

    Arrays and data frames know their size; of a container, a sample of the elements is
    measured.

    >>> estimate(bytes(1000)) > 1000, estimate([bytes(1000)] * 100) > 100_000
    (True, True)
    """
    try:
        size = getattr(value, "nbytes", None)
        if type(size) is int:
            return size
        size = sys.getsizeof(value)
        if depth and isinstance(value, (list, tuple, set, frozenset, dict)) and value:
            elements = value.values() if isinstance(value, dict) else value
            sample = [part for part, _ in zip(elements, range(_SAMPLE), strict=False)]
            mean = sum(estimate(part, depth - 1) for part in sample) / len(sample)
            size += int(mean * len(value))
    except Exception:  # noqa: BLE001 - attributes are the user's code
        return 0
    return size
