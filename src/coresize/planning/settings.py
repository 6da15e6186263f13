"""Settings with one order of precedence, and the origin of each value.

Rule 1: arguments override the command line, which overrides the environment, which
overrides the file, which overrides the defaults. Rule 2: a wrong setting raises an
error wherever it stands, even if a stronger place overrides it. Rule 3: pydantic is
imported only if some place has a setting.
"""

from __future__ import annotations

import copy
import os

from coresize.detection import environ
from coresize.host import CLAIMED, MARK, RETRY, SHARD, STATUS, current
from coresize.model import Value
from coresize.planning import exports, settings_files
from coresize.planning.options import SETTINGS
from coresize.planning.values import DEFAULT


TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from coresize.host import Host
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.values import Kind

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
_OURS = {
    *(name for name in environ.NAMES if name.startswith(_PREFIX)),
    *(*NAMES, SHARD, SHARDS, STATUS, RETRY, CLAIMED, exports.SET, MARK),
}


class Settings(Value):
    """The settings of the user, with the origin of each.

    Attributes:
        workers: a fixed count of workers, instead of a planned one; None to plan it.
        parallel: False for one worker, so that everything runs serially.
        reserve_cores: whole cores to keep free.
        memory_fraction: the part of the memory available now that workers may use.
        rounding: how to round a fraction of a core.
        history: whether batches record what their tasks took.
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
    profiles: Mapping[str, TaskProfile]
    kinds: Mapping[str, Kind]
    origins: Mapping[str, str]
    warnings: tuple[str, ...]

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

    Args:
        arguments: values by name, which override all others; None counts as not set.
        command_line: the parsed command line, as from argparse; None counts as not
            set, and flags that are not settings are ignored.
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
    present = host.variables(NAMES)
    values, origins = copy.deepcopy(_DEFAULTS), dict.fromkeys(_DEFAULTS, DEFAULT)
    named = None if file is None else os.fspath(file)
    in_file, doubts = settings_files.find(host, named, present)
    layers = (
        _from_values(DEFAULT, defaults),
        in_file,
        _from_environment(present),
        _from_values("command line", _known(command_line)),
        _from_values("argument", arguments),
    )
    strength = dict.fromkeys(_DEFAULTS, -1)
    for rank, layer in enumerate(layers):
        for name, (value, origin) in layer.items():
            values[name], origins[name], strength[name] = _own(value), origin, rank
    if not values["parallel"] and strength["workers"] > strength["parallel"]:
        values["parallel"] = True
        origins["parallel"] = f"{origins['workers']}, for workers"
    foreign = [name for name in host.names(_PREFIX) if name not in _OURS]
    return Settings(
        **values,  # type: ignore[arg-type]
        origins=origins,
        warnings=(*doubts, *(_misspelt(name) for name in sorted(foreign))),
    )


def _misspelt(name: str) -> str:
    """A sentence about an unknown variable that begins like those of coresize."""
    from difflib import get_close_matches

    ours = [variable.removeprefix(_PREFIX) for variable in sorted(_OURS)]
    near = get_close_matches(name.removeprefix(_PREFIX), ours, n=1)
    meant = f": did you mean {_PREFIX}{near[0]}?" if near else ""
    return f"{name} is no variable of coresize, and has no effect{meant}"


def _own(value: object) -> object:
    """A copy of a table, so that the caller cannot change it later."""
    return dict(value) if isinstance(value, dict) else value


def _from_environment(present: dict[str, str]) -> dict[str, tuple[object, str]]:
    variables = {name: var for name, var in VARIABLES.items() if var in present}
    if not variables:
        return {}
    from coresize.planning.schemas import check_variable

    return {
        name: (check_variable(name, variable, present[variable]), variable)
        for name, variable in variables.items()
    }


def _known(flags: Mapping[str, object] | Namespace | None) -> dict[str, object]:
    """The settings among the flags of a program, which may have other flags, too."""
    named = vars(flags) if hasattr(flags, "__dict__") else dict(flags or {})
    return {name: value for name, value in named.items() if name in _DEFAULTS}


def _from_values(
    origin: str, values: Mapping[str, object] | None
) -> dict[str, tuple[object, str]]:
    table = {name: value for name, value in (values or {}).items() if value is not None}
    if not table:
        return {}
    from coresize.planning.schemas import check_settings

    return {
        name: (value, origin) for name, value in check_settings(table, origin).items()
    }
