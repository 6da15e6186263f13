"""Settings with one precedence, each value with the place that it came from.

Rule 1: arguments go before the command line, that before the environment, that before
the file, that before the defaults. Rule 2: a setting that is wrong raises, wherever it
stands, even where a stronger place would win. Rule 3: pydantic is imported only where
something is set.
"""

from __future__ import annotations

import copy
import os

from coresize.detection import environ
from coresize.host import CLAIMED, MARK, SHARD, STATUS, current
from coresize.model import Value
from coresize.planning import exports, settings_files
from coresize.planning.values import DEFAULT


TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from coresize.host import Host
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.values import Kind

#: The fields that one value is enough for, with the variable of each.
VARIABLES = {
    name: f"CORESIZE_{name.upper()}"
    for name in (
        *("workers", "parallel", "reserve_cores", "memory_fraction", "rounding"),
        "history",
    )
}
NAMES = frozenset({settings_files.CONFIG, *VARIABLES.values()})

#: How many jobs an array has, or the range of their indices, where no variable of the
#: scheduler tells.
SHARDS = "CORESIZE_SHARDS"

_PREFIX = "CORESIZE_"
_OURS = {
    *(name for name in environ.NAMES if name.startswith(_PREFIX)),
    *(*NAMES, SHARD, SHARDS, STATUS, CLAIMED, exports.SET, MARK),
}

_DEFAULTS: dict[str, object] = {
    "workers": None,
    "parallel": True,
    "reserve_cores": 0,
    "memory_fraction": 0.8,
    "rounding": "nearest",
    "history": False,
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
        history: whether batches keep what their tasks took.
        profiles: what tasks need, by name.
        kinds: what kinds of task use, by name.
        origins: where each value came from, by name.
        warnings: sentences about files and variables that no setting is read from.
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
    defaults: Mapping[str, object] | None = None,
    host: Host | None = None,
) -> Settings:
    """The settings of this program, and where each came from.

    A file that CORESIZE_CONFIG names is TOML or, with the extra ``yaml``, YAML.
    Otherwise the nearest ``coresize.toml``, or ``pyproject.toml`` with a table
    ``[tool.coresize]``, of the working directory and those above it is read, unless it
    belongs to another user than this one and root, or everybody may write to it. Where
    ``parallel`` is off and a stronger place sets ``workers``, it is on.

    Args:
        arguments: values by name, stronger than all others; None is not given.
        command_line: what a command line set, as argparse gives it; None is not given,
            and flags that are no settings are passed over.
        file: a settings file, instead of CORESIZE_CONFIG or one that is found.
        defaults: values by name of a program that has its own, weaker than all others.
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
    named = None if file is None else os.fspath(file)
    found, doubts = settings_files.find(host, named, present)
    layers = (
        _given(DEFAULT, defaults),
        found,
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
    foreign = [name for name in host.names(_PREFIX) if name not in _OURS]
    return Settings(
        **values,  # type: ignore[arg-type]
        origins=origins,
        warnings=(*doubts, *(_misspelt(name) for name in sorted(foreign))),
    )


def _misspelt(name: str) -> str:
    """A sentence about a variable that looks like ours; it may be another's."""
    from difflib import get_close_matches

    ours = [one.removeprefix(_PREFIX) for one in sorted(_OURS)]
    near = get_close_matches(name.removeprefix(_PREFIX), ours, n=1)
    meant = f": did you mean {_PREFIX}{near[0]}?" if near else ""
    return f"{name} is no variable of coresize, and has no effect{meant}"


def _own(value: object) -> object:
    """A value that nobody else holds, so that nobody else can change it."""
    return dict(value) if isinstance(value, dict) else value


def _from_environment(present: dict[str, str]) -> dict[str, tuple[object, str]]:
    found = {name: var for name, var in VARIABLES.items() if var in present}
    if not found:
        return {}
    from coresize.planning.schemas import check_variable

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
    from coresize.planning.schemas import check_settings

    return {
        name: (value, origin) for name, value in check_settings(given, origin).items()
    }
