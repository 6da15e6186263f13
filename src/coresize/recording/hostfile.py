"""A recorded host as TOML text, and back (docs/reference/host-file.md).

Pure: text in, value out. A byte that is not UTF-8 reaches us as a surrogate, which TOML
cannot hold; the file has the private-use character U+EF00 + byte instead.
"""

from __future__ import annotations

import errno
import json

from coresize.detection import parse
from coresize.errors import HostFileError, ParseError
from coresize.model import Value
from coresize.recording.recorded import Recorded
from coresize.texts import undo_escapes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Never

FORMAT = 1

_TO_PRIVATE = {0xDC00 + byte: 0xEF00 + byte for byte in range(0x80, 0x100)}
_FROM_PRIVATE = {private: surrogate for surrogate, private in _TO_PRIVATE.items()}


class HostFile(Value):
    """The content of a host file.

    Attributes:
        host: the machine.
        note: a sentence about the machine.
        expect: the answers that detection must give, by name; may be empty.
        unknown: tables and keys that coresize does not know, perhaps misspelt.
    """

    host: Recorded
    note: str
    expect: dict[str, object]
    unknown: tuple[str, ...]


_TABLES = ("format", "note", "host", "env", "calls", "files", "unreadable", "expect")
_HOST_KEYS = (
    "platform",
    "cpu_count",
    "physical_cores",
    "affinity",
    "hostname",
    "memory_total",
    "memory_available",
    "bound_nodes",
    "open_files",
    "user_tasks",
)


def loads(text: str, path: str) -> HostFile:
    """The host in a TOML text.

    Args:
        text: the content of the file.
        path: the path of the file, for messages.

    Raises:
        HostFileError: the text is not TOML, or not a host of this format.
    """
    import tomllib

    try:
        tables = tomllib.loads(undo_escapes(text))
    except UnicodeError as error:
        raise HostFileError(path, f"not {error}") from None
    except (ValueError, RecursionError) as error:
        raise HostFileError(path, f"not TOML: {error}") from None
    reader = _Reader(tables, path)
    if tables.get("format") != FORMAT:
        reader.fail(f"format = {FORMAT} is needed, found {tables.get('format')!r}")
    host = Recorded(
        files=reader.texts("files"),
        unreadable=reader.errnos("unreadable"),
        env=reader.texts("env"),
        calls=reader.texts("calls"),
        affinity=reader.cpus("host", "affinity"),
        cpu_count=reader.number("host", "cpu_count"),
        physical_cores=reader.number("host", "physical_cores"),
        memory=(
            reader.number("host", "memory_total"),
            reader.number("host", "memory_available"),
        ),
        hostname=reader.text("host", "hostname"),
        bound_nodes=reader.cpus("host", "bound_nodes"),
        open_files=reader.number("host", "open_files"),
        user_tasks=reader.number("host", "user_tasks"),
        platform=reader.text("host", "platform") or "linux",
    )
    return HostFile(
        host=host,
        note=str(tables.get("note", "")),
        expect=reader.table("expect"),
        unknown=(
            *(repr(name) for name in tables if name not in _TABLES),
            *(f"[host] {key}" for key in reader.table("host") if key not in _HOST_KEYS),
        ),
    )


def dumps(host: Recorded, note: str = "") -> str:
    """The TOML text of a host; `loads` is the inverse."""
    affinity, memory, nodes = host.affinity(), host.memory(), host.bound_nodes()
    described = {
        "platform": host.platform if host.platform != "linux" else None,
        "cpu_count": host.cpu_count(),
        "physical_cores": host.physical_cores(),
        "affinity": parse.format_cpu_list(affinity) if affinity else None,
        "hostname": host.hostname(),
        "memory_total": memory[0],
        "memory_available": memory[1],
        "bound_nodes": parse.format_cpu_list(nodes) if nodes else None,
        "open_files": host.open_files(),
        "user_tasks": host.user_tasks(),
    }
    lines = [f"format = {FORMAT}"]
    if note:
        lines.append(f"note = {_quoted(note)}")
    known = {key: value for key, value in described.items() if value is not None}
    tables: dict[str, Mapping[str, object]] = {
        "host": known,
        "env": host.env,
        "files": host.files,
        "unreadable": host.unreadable,
    }
    if calls := host.calls():
        tables["calls"] = calls
    for name, table in tables.items():
        lines += ["", f"[{name}]"]
        lines += [
            f"{_key(key)} = {_toml(value)}" for key, value in sorted(table.items())
        ]
    return "\n".join(lines) + "\n"


class _Reader:
    """Typed access to the tables; its errors name the file, the table and the key."""

    def __init__(self, tables: Mapping[str, object], path: str) -> None:
        self.tables = tables
        self.path = path

    def fail(self, reason: str) -> Never:
        raise HostFileError(self.path, reason)

    def table(self, name: str) -> dict[str, object]:
        table = self.tables.get(name, {})
        if not isinstance(table, dict):
            self.fail(f"[{name}] is not a table")
        return table

    def number(self, table: str, key: str) -> int | None:
        value = self.table(table).get(key)
        if value is None:
            return None
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or not 0 <= value < 2**63
        ):
            self.fail(f"[{table}] {key} = {value!r} is not a whole number")
        return value

    def text(self, table: str, key: str) -> str | None:
        value = self.table(table).get(key)
        if value is not None and not isinstance(value, str):
            self.fail(f"[{table}] {key} = {value!r} is not a text")
        return value

    def cpus(self, table: str, key: str) -> frozenset[int] | None:
        text = self.text(table, key)
        try:
            return None if text is None else parse.cpu_list(text)
        except ParseError as error:
            self.fail(f"[{table}] {key}: {error}")

    def texts(self, name: str) -> dict[str, str]:
        texts = {}
        for key, value in self.table(name).items():
            if not isinstance(value, str):
                self.fail(f"[{name}] {key!r} = {value!r} is not a text")
            texts[key.translate(_FROM_PRIVATE)] = value.translate(_FROM_PRIVATE)
        return texts

    def errnos(self, name: str) -> dict[str, str]:
        names = self.texts(name)
        for path, code in names.items():
            if not code.startswith("E") or not hasattr(errno, code):
                self.fail(f"[{name}] {path!r} = {code!r} is not an errno name")
        return names


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else _quoted(name)


def _toml(value: object) -> str:
    return _text(value) if isinstance(value, str) else str(value)


def _text(text: str) -> str:
    """The text as literal lines where TOML allows that, otherwise as one string."""
    plain = text.endswith("\n") and "'''" not in text and len(text) > 1
    if plain and text.translate(_TO_PRIVATE).replace("\n", "").isprintable():
        return f"'''\n{text.translate(_TO_PRIVATE)}'''"
    return _quoted(text)


def _quoted(text: str) -> str:
    """A TOML basic string: escaped as in JSON, except that TOML also escapes DEL."""
    private = text.translate(_TO_PRIVATE)
    return json.dumps(private, ensure_ascii=False).replace("\x7f", "\\u007f")
