"""The settings file of a batch: what ``coresize batch`` takes, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from coresize.errors import ConfigError
from coresize.planning import settings_files
from coresize.planning.validation import Schema, Size, Whole, check


if TYPE_CHECKING:
    from collections.abc import Mapping


def _listed(value: object) -> object:
    """A text as the command line takes it, with commas, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


_COUNT = Annotated[Whole, Field(ge=1)]
_TIMES = Annotated[Whole, Field(ge=0)]

#: Other names that people's files have.
OTHER_NAMES = {
    "parallel_execution": "parallel",
    "num_workers": "workers",
    "n_jobs": "workers",
    "ram": "memory",
}


class BatchConfig(Schema):
    """What may stand in the file; each may be given on the command line as well."""

    function: str | None = Field(default=None, description='"module:function"')
    items: str | None = Field(
        default=None, description="a .jsonl, .csv or .txt file, or @PATTERN"
    )
    key: str | None = Field(default=None, description="the name of a field")
    parameters: dict[str, Any] = Field(
        default={}, description="a table of arguments for the function, by name"
    )
    executor: Literal["process", "thread", "serial", "joblib"] | None = Field(
        default=None, description='"process", "thread", "serial" or "joblib"'
    )
    parallel: bool | None = Field(default=None, description="true or false")
    workers: _COUNT | None = Field(default=None, description="a number above 0")
    memory: Size | Literal["auto"] | None = Field(
        default=None, description='a size such as "2GiB", or "auto"'
    )
    cpus: float | None = Field(
        default=None, gt=0, description="cores that one task keeps busy, above 0"
    )
    timeout: float | None = Field(
        default=None, gt=0, description="seconds that one task may take, above 0"
    )
    retries: _TIMES | None = Field(default=None, description="a number, 0 or above")
    retry: Annotated[list[str], BeforeValidator(_listed)] | None = Field(
        default=None, description='a list of statuses, such as ["failed", "oom"]'
    )
    retry_timeouts: bool | None = Field(default=None, description="true or false")
    oom_retries: _TIMES | None = Field(default=None, description="a number, 0 or above")
    journal: str | None = Field(default=None, description="the path of a file")
    serializer: Literal["json", "pickle"] | None = Field(
        default=None, description='"json" or "pickle"'
    )
    shard: str | None = Field(default=None, description='"i/n" or "auto"')
    shard_by: Literal["index", "key"] | None = Field(
        default=None, description='"index" or "key"'
    )


def load(path: str) -> tuple[dict[str, Any], list[str]]:
    """What a settings file says, by name, and notes about names that stand for others.

    The table ``batch`` of a file is read where it has one, else the whole.

    Raises:
        ConfigError: the file cannot be read, or something in it is not valid.
    """
    content = settings_files.read_table(path, "config")
    table = content.get("batch", content)
    if not isinstance(table, dict):
        setting = f"{path}: batch"
        raise ConfigError(setting, table, "a table of keys and values")
    named, notes = _renamed(path, table)
    given = check(BatchConfig, named, path)
    return {name: getattr(given, name) for name in given.model_fields_set}, notes


def check_words(words: Mapping[str, Any]) -> dict[str, Any]:
    """What a command line says, by name; None is not given.

    Raises:
        ConfigError: something in it is not valid.
    """
    known = BatchConfig.model_fields
    named = {
        name: value
        for name, value in words.items()
        if name in known and value is not None
    }
    check(BatchConfig, named, "command line")
    return named


def _renamed(path: str, table: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    named: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in table.items():
        known = OTHER_NAMES.get(name, name)
        if known != name:
            notes.append(f"{path}: {name} is read as {known}")
        if known in named:
            setting, allowed = f"{path}: {name}", f"{known} alone: both are there"
            raise ConfigError(setting, value, allowed)
        named[known] = value
    return named, notes
