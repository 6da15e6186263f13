"""Settings files: finding the one to read, and reading it."""

from __future__ import annotations

from coresize import storage
from coresize.errors import ConfigError
from coresize.host import Live
from coresize.model import Notice
from coresize.texts import one_line, undo_escapes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from coresize.host import Host

CONFIG = "CORESIZE_CONFIG"
#: The names of settings files, nearest folder first; in a folder the first name wins.
FILES = ("coresize.toml", "pyproject.toml")
#: The file that belongs to many programs: coresize does not complain about its errors.
_SHARED = "pyproject.toml"


#: Settings by name, each with its origin.
Found = dict[str, tuple[object, str]]


def find(
    host: Host, file: str | None, present: dict[str, str]
) -> tuple[Found, list[Notice]]:
    """The settings in the named file, or in the nearest one, with their origin.

    An unnamed file is obeyed only if it belongs to this user (or root): other users
    who may write to a parent folder, such as /tmp, must not change the settings.

    Args:
        host: the machine.
        file: the path of a file, or None.
        present: the environment variables that are set.

    Returns:
        The settings, and a sentence about each file that is ignored, and each name
        that is read as another.

    Raises:
        ConfigError: the file cannot be read, or its content is not valid.
    """
    named = present.get(CONFIG) if file is None else storage.check_path("file", file)
    if named:
        by = CONFIG if file is None else "file"
        try:
            # A path from the command line is on this machine, whatever the host.
            ours = file is not None or isinstance(host, Live)
            text = storage.read_named(named) if ours else host.read(named)
        except OSError as error:
            allowed = f"the path of a TOML or YAML file ({error.strerror})"
            raise ConfigError(by, named, allowed) from None
        values, notes = _parsed(named, text, named=True)
        return _at(named, values or {}), notes
    doubts: list[Notice] = []
    for path in host.find_upward(FILES):
        try:
            doubt = host.doubt(path)
            if doubt:
                doubts += _doubts(host, path, doubt)
                continue
            values, notes = _parsed(path, host.read(path), named=False)
        except OSError as error:
            if path.endswith(_SHARED):
                continue
            allowed = f"a file that can be read ({error.strerror})"
            raise ConfigError("settings", path, allowed) from None
        if values is not None:
            return _at(path, values), [*doubts, *notes]
    return {}, doubts


def _at(path: str, values: dict[str, object]) -> Found:
    return {name: (value, path) for name, value in values.items()}


def _doubts(host: Host, path: str, doubt: str) -> list[Notice]:
    """A sentence about a file that is ignored; none if the file has no settings."""
    if path.endswith(_SHARED):
        try:
            if _table(path, _content(path, host.read(path), named=False)) is None:
                return []
        except (OSError, ConfigError):
            return []
    hint = f"name it by {CONFIG} if it is meant, or make it your own (chown, chmod o-w)"
    text = f"the settings in {one_line(path)} are not obeyed: {doubt}; {hint}"
    return [Notice("settings-file-ignored", text)]


def read_table(path: str, setting: str) -> dict[str, object]:
    """The table that a TOML or YAML file holds, with any keys.

    Raises:
        ConfigError: the file cannot be read, or does not hold a table.
    """
    path = storage.check_path(setting, path)
    try:
        text = storage.read_named(path)
    except OSError as error:
        allowed = f"the path of a TOML or YAML file ({error.strerror})"
        raise ConfigError(setting, path, allowed) from None
    content = _content(path, text, named=True)
    if not isinstance(content, dict):
        raise ConfigError(setting, path, "a table of keys and values")
    return content


#: The last text of each file and the settings in it: most files do not change.
_last: dict[tuple[str, bool], tuple[str, dict[str, object] | None, list[Notice]]] = {}
_MOST_KEPT = 16


def _parsed(
    path: str, text: str, *, named: bool
) -> tuple[dict[str, object] | None, list[Notice]]:
    """The settings in a file, and notes; None for a shared file without settings."""
    last = _last.get((path, named))
    if last is None or last[0] != text:
        if len(_last) >= _MOST_KEPT:
            _last.clear()
        content = _content(path, text, named=named)
        table = None if content is None else _table(path, content, named=named)
        notes: list[Notice] = []
        if table is not None:
            from coresize.planning.schemas import check_named

            table, notes = check_named(table, path)
        last = _last[path, named] = (text, table, notes)
    return last[1:]


def _content(path: str, text: str, *, named: bool) -> object:
    """The content of a file; None for an unnamed shared file that is not valid."""
    try:
        text = undo_escapes(text)
        if path.endswith((".yaml", ".yml")):
            return _yaml(path, text)
        import tomllib

        return tomllib.loads(text)
    except UnicodeError as error:
        if path.endswith(_SHARED) and not named:
            return None
        raise ConfigError("settings", path, str(error)) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        if path.endswith(_SHARED) and not named:
            return None
        raise ConfigError("settings", path, f"valid TOML ({error})") from None


def _yaml(path: str, text: str) -> object:
    try:
        import yaml
    except ImportError:
        allowed = "TOML, or install the extra that reads YAML: coresize[yaml]"
        raise ConfigError("settings", path, allowed) from None
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError("settings", path, f"valid YAML ({reason})") from None
    return {} if content is None else content


def _table(path: str, content: Any, *, named: bool = False) -> dict[str, object] | None:
    """The table of settings: the whole of our own file, or its part of another one."""
    if not isinstance(content, dict):
        raise ConfigError("settings", path, "a table of keys and values")
    tool = content.get("tool")
    if isinstance(tool, dict) and "coresize" in tool:
        table = tool["coresize"]
    elif path.endswith(_SHARED):
        return {} if named else None
    else:
        table = content.get("coresize", content)
    if not isinstance(table, dict):
        raise ConfigError("settings", path, "a table of keys and values")
    return table
