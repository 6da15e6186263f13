"""Reads the items of a batch from files, and imports its function by name."""

from __future__ import annotations

import csv
import glob
import importlib
import io
import json
import sys
import traceback
from pathlib import Path

from coresize.errors import ConfigError, CoresizeError
from coresize.texts import decode


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_ITEMS = (
    "a .jsonl file (a JSON value per line), a .csv file (an item per row, with column "
    "names in the first line), a .txt file (an item per line), or @PATTERN for the "
    "paths of matching files"
)


def read_items(source: str) -> list[Any]:
    """The items in a file, or the paths that a pattern matches.

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
    read = _READERS.get(source.rpartition(".")[2].lower())
    if read is None:
        raise ConfigError("items", source, _ITEMS)
    try:
        return read(source, decode(Path(source).read_bytes()))
    except OSError as error:
        allowed = f"the path of a file ({error.strerror})"
        raise ConfigError("items", source, allowed) from None
    except UnicodeError as error:
        raise ConfigError("items", source, str(error)) from None


def _read_lines(_source: str, text: str) -> list[Any]:
    return [line for line in _lines(text) if line.strip()]


def _lines(text: str) -> list[str]:
    """The lines of a file, without their ends: LF, CR LF or CR.

    `str.splitlines` would also split lines at U+2028.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _read_json_lines(source: str, text: str) -> list[Any]:
    items = []
    for number, line in enumerate(_lines(text), 1):
        if line.strip():
            try:
                items.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                where = f"{source}, line {number}"
                raise ConfigError("items", where, f"valid JSON ({error})") from None
    return items


def _read_table(source: str, text: str) -> list[Any]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    items = []
    try:
        _check_names(source, rows.fieldnames or ())
        for item in rows:
            if None in item or None in item.values():
                allowed = f"as many fields as the first line, unlike {item}"
                raise ConfigError("items", f"{source}, line {rows.line_num}", allowed)
            items.append(item)
    except csv.Error as error:
        # The reader counts a line only after reading it.
        where = f"{source}, line {rows.line_num + 1}"
        raise ConfigError("items", where, f"valid CSV ({error})") from None
    return items


def _check_names(source: str, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            allowed = f"unique column names: {name!r} occurs twice"
            raise ConfigError("items", f"{source}, line 1", allowed)


_READERS: dict[str, Callable[[str, str], list[Any]]] = {
    "jsonl": _read_json_lines,
    "ndjson": _read_json_lines,
    "csv": _read_table,
    "txt": _read_lines,
}


def load_function(name: str) -> Callable[..., Any]:
    """Import the function "module:function", also from the working folder.

    Raises:
        ConfigError: there is no such function or module.
        CoresizeError: the module cannot be imported.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise ConfigError("function", name, '"module:function", such as "tasks:run"')
    if "" not in sys.path:
        sys.path.insert(0, "")
    found = _imported(module_name, name)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError("function", name, f"a function of {module_name}")
    function: Callable[..., Any] = found
    return function


def _imported(module: str, name: str) -> Any:
    """Import the module of a function, and report any error of its code."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Otherwise the missing module is one that the user's module imports.
        if error.name and f"{module}.".startswith(f"{error.name}."):
            allowed = f"a module that can be imported from here ({error})"
            raise ConfigError("function", name, allowed) from None
        msg = _failure(module, error)
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        msg = _failure(module, error)
    raise CoresizeError(msg) from None


def _failure(module: str, error: Exception) -> str:
    """Why and where the import of a module failed, in one line."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    last = traceback.extract_tb(error.__traceback__)[-1]
    # The message of a SyntaxError names the place itself.
    if not isinstance(error, SyntaxError):
        reason = f"{reason} ({last.filename}, line {last.lineno})"
    return f"the module {module} cannot be imported: {reason}"
