"""The items of a batch as they stand in files, and its function by name."""

from __future__ import annotations

import csv
import glob
import importlib
import json
import sys

from coresize import storage
from coresize.errors import ConfigError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ITEMS = (
    "a file .jsonl (a JSON value a line), .csv (a row each, by the names in the first "
    "line) or .txt (a line each), or @PATTERN for the paths of files"
)


def read_items(source: str) -> list[Any]:
    """The items that a file holds, or the paths that a pattern matches.

    Args:
        source: a path, or "@" and a pattern.

    Raises:
        ConfigError: the file cannot be read or understood, or nothing matches.
    """
    if source.startswith("@"):
        paths = sorted(glob.glob(source[1:], recursive=True))  # noqa: PTH207 - texts
        if not paths:
            raise ConfigError("items", source, "a pattern that matches some file")
        return list(paths)
    read = _READERS.get(source.rpartition(".")[2])
    if read is None:
        raise ConfigError("items", source, _ITEMS)
    try:
        return read(source, storage.read(source))
    except OSError as error:
        allowed = f"the path of a file ({error.strerror})"
        raise ConfigError("items", source, allowed) from None
    except UnicodeDecodeError as error:
        raise ConfigError("items", source, f"text in UTF-8 ({error})") from None


def _read_lines(_source: str, text: str) -> list[Any]:
    return [line for line in _lines(text) if line.strip()]


def _lines(text: str) -> list[str]:
    """Lines as files have them; `str.splitlines` ends them at U+2028, too."""
    return text.split("\n")


def _read_json_lines(source: str, text: str) -> list[Any]:
    items = []
    for number, line in enumerate(_lines(text), 1):
        if line.strip():
            try:
                items.append(json.loads(line))
            except ValueError as error:
                where = f"{source}, line {number}"
                raise ConfigError("items", where, f"valid JSON ({error})") from None
    return items


def _read_table(source: str, text: str) -> list[Any]:
    lines = _lines(text.removeprefix("\ufeff"))
    rows = csv.DictReader(f"{line}\n" for line in lines)
    items = list(rows)
    for item in items:
        if None in item or None in item.values():
            allowed = f"as many fields as the first line in every row, unlike {item}"
            raise ConfigError("items", source, allowed)
    return items


_READERS: dict[str, Callable[[str, str], list[Any]]] = {
    "jsonl": _read_json_lines,
    "ndjson": _read_json_lines,
    "csv": _read_table,
    "txt": _read_lines,
}


def load_function(name: str) -> Callable[..., Any]:
    """The function that "module:function" names; the working folder is looked in, too.

    Raises:
        ConfigError: there is none, or its module cannot be imported.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise ConfigError("function", name, '"module:function", such as "tasks:run"')
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # of what the module itself imports
        allowed = f"a module that can be imported from here ({error})"
        raise ConfigError("function", name, allowed) from None
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError("function", name, f"a function of {module_name}")
    function: Callable[..., Any] = found
    return function
