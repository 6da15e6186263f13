"""Settings with one precedence, each value with the place that it came from.

Rule 1: arguments go before the command line, that before the environment, that before
the file, that before the defaults. Rule 2: a setting that is wrong raises, wherever it
stands, even where a stronger place would win. Rule 3: pydantic is imported only where
something is set.
"""

from __future__ import annotations

import copy
import os

from coresize.errors import ConfigError
from coresize.host import Live, current
from coresize.model import Value
from coresize.plans import DEFAULT


TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping
    from typing import Any

    from coresize.host import Host
    from coresize.plans import Kind
    from coresize.profiles import TaskProfile

#: The fields that one value is enough for, with the variable of each.
VARIABLES = {
    name: f"CORESIZE_{name.upper()}"
    for name in ("workers", "parallel", "reserve_cores", "memory_fraction", "rounding")
}
CONFIG = "CORESIZE_CONFIG"
NAMES = frozenset({CONFIG, *VARIABLES.values()})
#: The files that are looked for, nearest folder first; the first of one folder wins.
FILES = ("coresize.toml", "pyproject.toml")
#: The one that belongs to many programs: what is wrong with it is not ours to say.
_SHARED = "pyproject.toml"

_DEFAULTS: dict[str, object] = {
    "workers": None,
    "parallel": True,
    "reserve_cores": 0,
    "memory_fraction": 0.8,
    "rounding": "nearest",
    "profiles": {},
    "kinds": {},
}


class Settings(Value):
    """What the user decided, and where.

    Attributes:
        workers: the count of workers, whatever would be planned; None to plan it.
        parallel: False for one worker, so that everything runs serially.
        reserve_cores: whole cores to keep free.
        memory_fraction: the part of the memory available now that workers may use.
        rounding: what becomes of a fraction of a core.
        profiles: what tasks need, by name.
        kinds: what kinds of task use, by name.
        origins: where each value came from, by name.
    """

    __slots__ = (  # noqa: RUF023
        "workers",
        "parallel",
        "reserve_cores",
        "memory_fraction",
        "rounding",
        "profiles",
        "kinds",
        "origins",
    )

    workers: int | None
    parallel: bool
    reserve_cores: int
    memory_fraction: float
    rounding: str
    profiles: Mapping[str, TaskProfile]
    kinds: Mapping[str, Kind]
    origins: Mapping[str, str]

    def rows(self) -> list[dict[str, object]]:
        """Name, value and origin of each, as the report shows them."""
        values = {name: getattr(self, name) for name in VARIABLES}
        values["profiles"] = sorted(self.profiles)
        values["kinds"] = sorted(self.kinds)
        return [
            {"name": name, "value": value, "origin": self.origins[name]}
            for name, value in values.items()
        ]


def load_settings(
    *,
    arguments: Mapping[str, object] | None = None,
    command_line: Mapping[str, object] | Namespace | None = None,
    file: str | os.PathLike[str] | None = None,
    host: Host | None = None,
) -> Settings:
    """The settings of this program, and where each came from.

    A file that CORESIZE_CONFIG names is TOML or, with the extra ``yaml``, YAML.
    Otherwise the nearest ``coresize.toml``, or ``pyproject.toml`` with a table
    ``[tool.coresize]``, of the working directory and those above it is read. Where
    ``parallel`` is off and a stronger place sets ``workers``, it is on.

    Args:
        arguments: values by name, stronger than all others; None is not given.
        command_line: what a command line set, as argparse gives it; None is not given,
            and flags that are no settings are passed over.
        file: a settings file, instead of CORESIZE_CONFIG or one that is found.
        host: the machine; None is this one.

    Raises:
        ConfigError: a value or a key is not valid, or a file cannot be read.

    >>> from coresize import load_settings
    >>> from coresize.testing import container
    >>> host = container(env={"CORESIZE_WORKERS": "4", "CORESIZE_PARALLEL": "off"})
    >>> settings = load_settings(command_line={"parallel": True}, host=host)
    >>> settings.workers, settings.parallel
    (4, True)
    >>> settings.origins["workers"], settings.origins["parallel"]
    ('CORESIZE_WORKERS', 'command line')
    """
    host = host or current()
    present = host.variables(NAMES)
    values, origins = copy.deepcopy(_DEFAULTS), dict.fromkeys(_DEFAULTS, DEFAULT)
    layers = (
        _from_file(host, os.fspath(file) if file else None, present),
        _from_environment(present),
        _given("command line", _known(command_line)),
        _given("argument", arguments),
    )
    strength = dict.fromkeys(_DEFAULTS, -1)
    for rank, layer in enumerate(layers):
        for name, (value, origin) in layer.items():
            values[name], origins[name], strength[name] = _own(value), origin, rank
    if not values["parallel"] and strength["workers"] > strength["parallel"]:
        values["parallel"] = True
        origins["parallel"] = f"{origins['workers']}, for workers"
    return Settings(**values, origins=origins)  # type: ignore[arg-type]


def _own(value: object) -> object:
    """A value that nobody else holds, so that nobody else can change it."""
    return dict(value) if isinstance(value, dict) else value


def _from_environment(present: dict[str, str]) -> dict[str, tuple[object, str]]:
    found = {name: var for name, var in VARIABLES.items() if var in present}
    if not found:
        return {}
    from coresize.schemas import check_variable

    return {
        name: (check_variable(name, variable, present[variable]), variable)
        for name, variable in found.items()
    }


def _known(flags: Mapping[str, object] | Namespace | None) -> dict[str, object]:
    """The settings among the flags of a program, which has others of its own."""
    named = vars(flags) if hasattr(flags, "__dict__") else dict(flags or {})
    return {name: value for name, value in named.items() if name in _DEFAULTS}


def _given(
    origin: str, values: Mapping[str, object] | None
) -> dict[str, tuple[object, str]]:
    given = {name: value for name, value in (values or {}).items() if value is not None}
    if not given:
        return {}
    from coresize.schemas import check_settings

    return {
        name: (value, origin) for name, value in check_settings(given, origin).items()
    }


# --- The file -----------------------------------------------------------------


def _from_file(
    host: Host, file: str | None, present: dict[str, str]
) -> dict[str, tuple[object, str]]:
    named = file or present.get(CONFIG)
    if named:
        by = "file" if file else CONFIG
        try:
            # What a command line names is this machine's, of whatever host one asks.
            text = (Live() if file else host).read(named)
        except OSError as error:
            allowed = f"the path of a TOML or YAML file ({error.strerror})"
            raise ConfigError(by, named, allowed) from None
        values = _parsed(named, text, named=True)
        return {name: (value, named) for name, value in (values or {}).items()}
    for path in host.find_upward(FILES):
        try:
            values = _parsed(path, host.read(path), named=False)
        except OSError as error:
            if path.endswith(_SHARED):
                continue
            allowed = f"a file that can be read ({error.strerror})"
            raise ConfigError("settings", path, allowed) from None
        if values is not None:
            return {name: (value, path) for name, value in values.items()}
    return {}


def read_table(path: str, setting: str) -> dict[str, object]:
    """The table that is a TOML or YAML file, whatever is in it.

    Raises:
        ConfigError: it cannot be read, or is no table.
    """
    try:
        text = Live().read(path)
    except OSError as error:
        allowed = f"the path of a TOML or YAML file ({error.strerror})"
        raise ConfigError(setting, path, allowed) from None
    content = _content(path, text, named=True)
    if not isinstance(content, dict):
        raise ConfigError(setting, path, "a table of keys and values")
    return content


#: The last text of each file and what is in it: a text is seldom other than before.
_last: dict[tuple[str, bool], tuple[str, dict[str, object] | None]] = {}
_MOST_KEPT = 16


def _parsed(path: str, text: str, *, named: bool) -> dict[str, object] | None:
    """The settings in a file; None where it is somebody else's and has none."""
    last = _last.get((path, named))
    if last is None or last[0] != text:
        if len(_last) >= _MOST_KEPT:
            _last.clear()
        content = _content(path, text, named=named)
        table = None if content is None else _table(path, content, named=named)
        if table is not None:
            from coresize.schemas import check_settings

            table = check_settings(table, path)
        last = _last[path, named] = (text, table)
    return last[1]


def _content(path: str, text: str, *, named: bool) -> object:
    """What a file holds; None of another's file that was found and is not valid."""
    try:
        if path.endswith((".yaml", ".yml")):
            return _yaml(path, text)
        import tomllib

        return tomllib.loads(text)
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


def _table(path: str, content: Any, *, named: bool) -> dict[str, object] | None:
    """The table of settings: of a file of our own all of it, of others a part."""
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
