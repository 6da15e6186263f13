"""Lengths of time as a user writes them. Pure."""

from __future__ import annotations

import re

from coresize.errors import ConfigError


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}

_WITH_UNITS = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")

#: Those forms of Slurm that cannot be read in two ways: 30 would be minutes, 1:30 would
#: be minutes and seconds.
_WITH_DAYS = re.compile(r"(\d+)-(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?")
_WITH_COLONS = re.compile(r"()(\d+):(\d{2}):(\d{2})")

_ALLOWED = (
    'a time with units, such as "90m", "2h" or "1d12h", or a time as "D-HH:MM:SS" or '
    '"HH:MM:SS"'
)


def seconds_of(name: str, text: str) -> int:
    """The seconds in a length of time.

    Args:
        name: the option that holds the text, for the message.
        text: the length.

    Raises:
        ConfigError: the text is no length of time above 0.

    >>> [seconds_of("--time", text) for text in ("90m", "1d12h", "1-12", "02:00:00")]
    [5400, 129600, 129600, 7200]
    """
    trimmed = text.strip().lower() if text.isascii() else ""
    for grammar in (_WITH_UNITS, _WITH_DAYS, _WITH_COLONS):
        found = grammar.fullmatch(trimmed)
        if found and len(trimmed) <= _LONGEST:
            amounts = zip(found.groups(), _UNITS.values(), strict=True)
            seconds = sum(int(amount or 0) * unit for amount, unit in amounts)
            if seconds:
                return seconds
    raise ConfigError(name, text, _ALLOWED)


#: No length of time that is meant has more characters.
_LONGEST = 20
