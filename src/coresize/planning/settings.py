"""Settings with one order of precedence, and the origin of each value.

Rule 1: arguments override the command line, which overrides the environment, which
overrides the file, which overrides the defaults. Rule 2: a wrong setting raises an
error wherever it stands, even if a stronger place overrides it. Rule 3: pydantic is
imported only if some place has a setting. Rule 4: a value that nobody stated, such as
the default of a flag, changes nothing.
"""

from __future__ import annotations

import copy
import os

from coresize.detection import environ
from coresize.errors import ConfigError
from coresize.host import CLAIMED, MARK, RETRY, SHARD, STATUS, current
from coresize.model import Notice, Value
from coresize.planning import exports, settings_files, settings_flags, settings_names
from coresize.planning.options import SETTINGS
from coresize.planning.values import DEFAULT


TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    from coresize.host import Host
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.settings_flags import Parser
    from coresize.planning.values import Kind

    #: The settings of one level, each with its origin; and sentences about them.
    Level: TypeAlias = tuple[dict[str, tuple[object, str]], list[Notice]]

_DEFAULTS: dict[str, object] = {row.name: row.default for row in SETTINGS}

#: The settings that hold a single value, each with its environment variable.
VARIABLES = {
    row.name: f"CORESIZE_{row.name.upper()}" for row in SETTINGS if row.kind != "table"
}
NAMES = frozenset({settings_files.CONFIG, *VARIABLES.values()})

#: The number of jobs in an array, or the range of their indices, for schedulers that
#: set no variable for it.
SHARDS = "CORESIZE_SHARDS"

_PREFIX = "CORESIZE_"
#: Variables with another name of a setting.
_OTHER_VARIABLES = {
    f"{_PREFIX}{other.upper()}": name
    for other, name in settings_names.OTHER_NAMES.items()
}
_READ = NAMES.union(_OTHER_VARIABLES)
_OURS = {
    *(name for name in environ.NAMES if name.startswith(_PREFIX)),
    *(*_READ, SHARD, SHARDS, STATUS, RETRY, CLAIMED, exports.SET, MARK),
}
#: What a misspelt variable may mean.
_KNOWN = _OURS.difference(_OTHER_VARIABLES)


class Settings(Value):
    """The settings of the user, with the origin of each.

    Attributes:
        workers: a fixed count of workers, instead of a planned one; None to plan it.
        parallel: False for one worker, so that everything runs serially.
        reserve_cores: whole cores to keep free.
        memory_fraction: the part of the memory available now that workers may use.
        rounding: how to round a fraction of a core.
        history: whether batches record what their tasks took.
        python: whether ``coresize run`` lets Python below 3.13 count what later
            versions do.
        profiles: task profiles by name.
        kinds: kinds of task by name.
        origins: the origin of each value, by name of the setting.
        warnings: sentences about files and variables that were ignored.
    """

    workers: int | None
    parallel: bool
    reserve_cores: int
    memory_fraction: float
    rounding: str
    history: bool
    python: bool
    profiles: Mapping[str, TaskProfile]
    kinds: Mapping[str, Kind]
    origins: Mapping[str, str]
    warnings: tuple[Notice, ...]

    def rows(self) -> list[dict[str, object]]:
        """Name, value and origin of each setting, as the report shows them."""
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
    parser: Parser | None = None,
    file: str | os.PathLike[str] | None = None,
    defaults: Mapping[str, object] | None = None,
    host: Host | None = None,
) -> Settings:
    """The settings of this program, and the origin of each.

    The file that CORESIZE_CONFIG names is TOML or, with the extra ``yaml``, YAML.
    Without it, the nearest ``coresize.toml``, or ``pyproject.toml`` with a table
    ``[tool.coresize]``, in the working directory or its parents is read, unless it
    belongs to a user other than this one or root, or everybody may write to it. If
    ``parallel`` is off and a stronger place sets ``workers``, ``parallel`` is on.
    Other names, such as ``n_jobs`` and ``num_workers``, are read as the settings that
    they mean, with a warning.

    Args:
        arguments: values by name, which override all others; None counts as not set.
        command_line: the parsed command line, as from argparse or click; None counts
            as not set, and flags that are not settings are ignored.
        parser: what has parsed the command line: the ArgumentParser, or the context of
            click or typer. With it, flags that nobody typed count as not set; without
            it, all that are not None are settings, even the False of ``store_true``.
        file: a settings file, instead of CORESIZE_CONFIG or the nearest file.
        defaults: the program's own defaults by name, which all others override.
        host: the machine; None for this one.

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
    present = host.variables(_READ)
    named = None if file is None else os.fspath(file)
    levels = (
        _from_values(DEFAULT, defaults),
        settings_files.find(host, named, present),
        _from_environment(present),
        _from_command_line(command_line, parser),
        _from_values("argument", arguments),
    )
    foreign = sorted(name for name in host.names(_PREFIX) if name not in _OURS)
    doubts = [sentence for _, sentences in levels for sentence in sentences]
    return Settings(
        **_combined([level for level, _ in levels]),
        warnings=(*doubts, *map(_misspelt, foreign)),
    )


def _combined(levels: list[dict[str, tuple[object, str]]]) -> dict[str, Any]:
    """The strongest value of each setting and its origin, the weakest level first."""
    values, origins = copy.deepcopy(_DEFAULTS), dict.fromkeys(_DEFAULTS, DEFAULT)
    strength = dict.fromkeys(_DEFAULTS, -1)
    for rank, level in enumerate(levels):
        for name, (value, origin) in level.items():
            values[name], origins[name], strength[name] = _own(value), origin, rank
    if not values["parallel"] and strength["workers"] > strength["parallel"]:
        values["parallel"] = True
        origins["parallel"] = f"{origins['workers']}, for workers"
    return {**values, "origins": origins}


def _misspelt(name: str) -> Notice:
    """A sentence about an unknown variable that begins like those of coresize."""
    from difflib import get_close_matches

    ours = [variable.removeprefix(_PREFIX) for variable in sorted(_KNOWN)]
    near = get_close_matches(name.removeprefix(_PREFIX), ours, n=1)
    meant = f": did you mean {_PREFIX}{near[0]}?" if near else ""
    text = f"{name} is no variable of coresize, and has no effect{meant}"
    return Notice("unknown-variable", text)


def _own(value: object) -> object:
    """A copy of a table, so that the caller cannot change it later."""
    return dict(value) if isinstance(value, dict) else value


def _from_environment(present: dict[str, str]) -> Level:
    names = {**{var: name for name, var in VARIABLES.items()}, **_OTHER_VARIABLES}
    variables = [variable for variable in names if variable in present]
    if not variables:
        return {}, []
    from coresize.planning.schemas import check_variable

    level: dict[str, tuple[object, str]] = {}
    sentences = []
    for variable in variables:
        name, text = names[variable], present[variable]
        if name in level:
            allowed = f"unset: {level[name][1]} is set as well"
            raise ConfigError(variable, text, allowed)
        level[name] = check_variable(name, variable, text), variable
        if variable in _OTHER_VARIABLES:
            text = f"{variable} is read as {VARIABLES[name]}"
            sentences.append(Notice("other-name", text))
    return level, sentences


def _from_command_line(
    flags: Mapping[str, object] | Namespace | None, parser: Parser | None
) -> Level:
    """The settings among the flags of a program, which may have other flags, too."""
    typed = settings_flags.stated(flags, parser)
    found, written = settings_flags.by_setting(typed, _DEFAULTS)
    origin = "command line"
    level, _ = _from_values(
        origin, {name: found[name] for name in found if written[name] == name}
    )
    sentences = []
    for name, flag in written.items():
        if flag == name:
            continue
        try:
            level.update(_from_values(origin, {name: found[name]})[0])
        except ConfigError as error:
            text = (
                f"the flag {flag}={found[name]!r} is not read as {name}, "
                f"which is {error.allowed}"
            )
            sentences.append(Notice("flag-not-read", text))
    if parser is None and found.get("parallel") is False and found.get("workers"):
        text = (
            f"the flag {written['workers']}={found['workers']} has no effect beside "
            f"{written['parallel']}=False; if nobody typed that, hand the parser on: "
            "load_settings(command_line=..., parser=...)"
        )
        sentences.append(Notice("flag-without-effect", text))
    return level, sentences


def _from_values(origin: str, values: Mapping[str, object] | None) -> Level:
    table = {name: value for name, value in (values or {}).items() if value is not None}
    if not table:
        return {}, []
    from coresize.planning.schemas import check_named

    checked, sentences = check_named(table, origin)
    return {name: (value, origin) for name, value in checked.items()}, sentences
