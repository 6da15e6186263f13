"""Values as YAML text, so that the core needs no YAML library. Pure."""

from __future__ import annotations

import json
import re


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Texts that need no quotes: YAML reads them as texts, except for the words below.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}

#: Lines that can be written as they are: printable ASCII, and no space at an end.
_BLOCK = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?\n){2,}")

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def dump(value: dict[str, object]) -> str:
    """A dict of dicts, lists, texts, numbers and truth values, as YAML.

    >>> print(dump({"name": "a", "env": [{"name": "HOME", "value": "1"}], "args": []}))
    name: a
    env:
      - name: HOME
        value: "1"
    args: []
    <BLANKLINE>
    """
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: object) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _entry(f"{_scalar(key)}:", part)
    elif isinstance(value, (list, tuple)) and value:
        for part in value:
            first, *rest = _lines(part)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    elif isinstance(value, str) and _BLOCK.fullmatch(value):
        yield "|"
        yield from value.splitlines()
    else:
        yield _scalar(value)


def _entry(name: str, part: object) -> Iterator[str]:
    first, *rest = _lines(part)
    if isinstance(part, (dict, list, tuple)) and part:
        yield name
        yield f"  {first}"
    else:
        yield f"{name} {first}"
    yield from (f"  {line}" for line in rest)


def _scalar(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)  # YAML has the numbers and words of JSON
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return f'"{"".join(map(_escaped, value))}"'


def _escaped(character: str) -> str:
    """A character inside double quotes; what cannot be printed is written as a number.

    >>> _escaped("a"), len(_escaped(chr(0x85))), len(_escaped(chr(0x2028)))
    ('a', 4, 6)
    """
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
