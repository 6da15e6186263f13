"""The schemas of the settings; imported only where a setting is set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from coresize import units
from coresize.errors import ConfigError, ParseError
from coresize.planning import profiles, settings_names
from coresize.planning.options import SETTINGS
from coresize.planning.validation import Schema, Size, check, schema_of
from coresize.planning.values import Kind, Resources


if TYPE_CHECKING:
    from collections.abc import Mapping

    from coresize.model import Notice

_CORES = Annotated[float, Field(ge=0.001, le=1e6)]
_GPUS = Annotated[float, Field(ge=0, le=1e6)]


_Settings = schema_of("Settings", SETTINGS)


class _Kind(Schema):
    resources: dict[str, Any] = Field(
        default={},
        description='a table such as { cpus = 1, memory = "4GB", gpus = 0 }',
    )
    profile: str | None = Field(default=None, description="the name of a profile")


class _Resources(Schema):
    cpus: _CORES = Field(
        default=1,
        description="a number of cores above 0",
    )
    memory: Size | None = Field(default=None, description=units.SIZES)
    gpus: _GPUS = Field(
        default=0,
        description="a number of GPUs, 0 or above",
    )


#: Settings that hold a whole number; pydantic would also take "1.0" and "1_0".
_WHOLE = [row.name for row in SETTINGS if row.kind == "whole"]


def check_settings(
    values: Mapping[str, object], where: str, notes: list[Notice]
) -> dict[str, object]:
    """The settings in a table, validated; only those that the table holds.

    Args:
        values: the table.
        where: the file, function or level that holds the table, for messages.
        notes: gets a note for each name in a profile or kind that is read as another.

    Raises:
        ConfigError: a key is not known, or a value is not valid.
    """
    checked = check(_Settings, values, where)
    settings: dict[str, Any] = {
        name: getattr(checked, name) for name in checked.model_fields_set
    }
    if "profiles" in settings:
        settings["profiles"] = {
            name: profiles.from_table(table, f"{where}: profiles.{name}", notes)
            for name, table in settings["profiles"].items()
        }
    if "kinds" in settings:
        settings["kinds"] = {
            name: _kind(table, f"{where}: kinds.{name}", notes)
            for name, table in settings["kinds"].items()
        }
    return settings


def check_named(
    values: Mapping[str, object], where: str
) -> tuple[dict[str, object], list[Notice]]:
    """The settings in a table that may have other names of them, and notes on those.

    Raises:
        ConfigError: a key is not known, two mean the same, or a value is not valid.
    """
    named, written = settings_names.renamed(values, where)
    notes = settings_names.notes(written, where)
    with settings_names.own_names(written, where):
        checked = check_settings(named, where, notes)
    return checked, notes


def check_variable(name: str, variable: str, text: str) -> object:
    """The value of one setting in an environment variable.

    Raises:
        ConfigError: the text is not valid.
    """
    allowed = f"{_Settings.model_fields[name].description}, or unset it"
    try:
        if name in _WHOLE:
            checked = check(_Settings, {name: units.whole(text)}, "")
        else:
            checked = check(_Settings, {name: text}, "", texts=True)
    except (ConfigError, ParseError):
        raise ConfigError(variable, text, allowed) from None
    return getattr(checked, name)


def _kind(table: Mapping[str, object], where: str, notes: list[Notice]) -> Kind:
    kind = check(_Kind, table, where)
    place = f"{where}.resources"
    named, written = settings_names.renamed(kind.resources, place, settings_names.NEEDS)
    notes += settings_names.notes(written, place)
    with settings_names.own_names(written, place):
        checked = check(_Resources, named, place)
    resources = Resources(cpus=checked.cpus, memory=checked.memory, gpus=checked.gpus)
    return Kind(resources=resources, profile=kind.profile)
