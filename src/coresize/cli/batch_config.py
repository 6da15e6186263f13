"""The settings file of a batch: the options of ``coresize batch``, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize.batch.options import OPTIONS
from coresize.errors import ConfigError
from coresize.planning import settings_files, settings_names
from coresize.planning.validation import check, schema_of


if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from coresize.model import Notice


#: Other names for options that users' files have. What is a fixed count of workers in
#: the settings is an upper bound here.
OTHER_NAMES = {
    **{
        other: "max_workers" if name == "workers" else name
        for other, name in settings_names.OTHER_NAMES.items()
    },
    "workers": "max_workers",
    "at_most": "max_workers",
    "cpu": "cpus",
    "ram": "memory",
}


_Config = schema_of("BatchConfig", OPTIONS)


def load(path: str) -> tuple[dict[str, Any], list[Notice]]:
    """The options in a settings file, by name, and notes about names that were renamed.

    If the file has a table ``batch``, only that table is read.

    Raises:
        ConfigError: the file cannot be read, or an option is not valid.
    """
    content = settings_files.read_table(path, "config")
    table = content.get("batch", content)
    if not isinstance(table, dict):
        setting = f"{path}: batch"
        raise ConfigError(setting, table, "a table of keys and values")
    named, written = settings_names.renamed(table, path, OTHER_NAMES)
    with settings_names.own_names(written, path):
        given = check(_Config, named, path)
    options = {name: getattr(given, name) for name in given.model_fields_set}
    return options, settings_names.notes(written, path)


def check_words(words: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command line, by name, without those that are None.

    Raises:
        ConfigError: an option is not valid.
    """
    known = _Config.model_fields
    named = {
        name: value
        for name, value in words.items()
        if name in known and value is not None
    }
    check(_Config, named, "command line")
    return named
