"""Keys: texts that identify the tasks of a batch, the same at every start. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import hashlib
import json
import re
import uuid

from coresize.errors import ConfigError
from coresize.texts import LONGEST


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_LONGEST = 200
_SURROGATES = re.compile("[\ud800-\udfff]")
_ALLOWED = (
    "key=, a function that gives each item a text: only plain values, dates, paths, "
    "arrays, dataclasses and models have a hash that is the same at every start"
)


def stable_key(item: object) -> str:
    """The key of an item, the same in every process and on every machine.

    Short texts and whole numbers are their own keys; the key of any other item is a
    hash (BLAKE2b, RFC 7693) of its content.

    Raises:
        ConfigError: the item has a type whose content is not known.

    >>> stable_key("user-17"), stable_key(17), stable_key({"b": 1, "a": (2,)})
    ('user-17', '17', '1373684f03b107b66e4d12181353ff26')
    """
    if type(item) is int:
        return str(item)
    if type(item) is str and 0 < len(item) <= _LONGEST and item.isprintable():
        return item
    return digest(item)


def digest(content: object) -> str:
    """A hash of plain content, of 32 hexadecimal digits.

    Raises:
        ConfigError: a value has a type whose content is not known.
    """
    text = json.dumps(_plain(content), ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def bucket(key: str, count: int) -> int:
    """The bucket of a key, from 0 to count - 1, the same on every machine."""
    hashed = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(hashed.digest(), "big") % count


def checked(key: object, item: object) -> str:
    """The key that the user's function returned for an item, as text.

    Raises:
        ConfigError: the key is neither a text of UTF-8 nor a number, or is too long.
    """
    if isinstance(key, str) and len(key) > LONGEST:
        allowed = f"a text of at most {LONGEST} characters, such as a hash of it"
        raise ConfigError("key", f"{key[:40]}...", allowed)
    if isinstance(key, str) and not _SURROGATES.search(key):
        return str(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    allowed = f"a text of UTF-8, or a whole number, unlike that of {item!r:.200}"
    raise ConfigError("key", key, allowed)


def named(name: str) -> Callable[[Any], object]:
    """A function that takes the key from a field or an attribute of each item.

    >>> named("user")({"user": "u1"}), named("real")(17)
    ('u1', 17)
    """

    def key(item: Any) -> object:
        try:
            return _field(item, name)
        except (LookupError, AttributeError):
            allowed = f"a field of every item, which this one lacks: {item!r:.200}"
            raise ConfigError("key", name, allowed) from None

    return key


def _field(item: Any, name: str) -> object:
    try:
        return item[name]
    except TypeError:  # an item without fields; of a mapping, only fields count
        return getattr(item, name)


# --- Content ------------------------------------------------------------------


def _plain(value: Any) -> Any:  # noqa: PLR0911 - a line for each kind
    """Plain content for JSON, with the name of the type if JSON lacks that type."""
    cls = type(value)
    if value is None or cls in (str, int, float, bool):
        return value
    if cls is list:
        return [_plain(one) for one in value]
    if hasattr(cls, "__fspath__"):
        return {"path": value.__fspath__()}
    for kinds, told in _KINDS.items():
        if isinstance(value, kinds):
            return {cls.__name__: told(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {cls.__name__: [_plain(getattr(value, one.name)) for one in fields]}
    if hasattr(cls, "model_dump"):  # pydantic
        return {cls.__name__: _mapping(value.model_dump())}
    if hasattr(cls, "__array_interface__") and not value.dtype.hasobject:  # numpy
        content = hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()
        return {cls.__name__: [str(value.dtype), list(value.shape), content]}
    raise ConfigError("items", f"a value of type {cls.__name__}", _ALLOWED)


def _mapping(value: Mapping[Any, Any]) -> list[list[Any]]:
    rows = [[_plain(key), _plain(one)] for key, one in value.items()]
    return sorted(rows, key=json.dumps)


def _unordered(value: Any) -> list[Any]:
    return sorted((_plain(one) for one in value), key=json.dumps)


def _ordered(value: Any) -> list[Any]:
    return [_plain(one) for one in value]


#: For each type, the function that turns a value into plain content for JSON.
_KINDS: dict[type | tuple[type, ...], Callable[[Any], Any]] = {
    enum.Enum: lambda value: _plain(value.value),
    dict: _mapping,
    (tuple, list): _ordered,
    (set, frozenset): _unordered,
    (bytes, bytearray): lambda value: bytes(value).hex(),
    (dt.date, dt.time, dt.datetime): lambda value: value.isoformat(),
    dt.timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    (decimal.Decimal, uuid.UUID, complex): str,
    str: lambda value: ["str", str.__str__(value)],
    int: lambda value: ["int", int.__repr__(value)],
    float: lambda value: ["float", float.__repr__(value)],  # numpy's own repr varies
}
