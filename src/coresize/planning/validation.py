"""Validation of outside values by pydantic schemas, with errors that users can act on.

The description of every schema field says which values are allowed; an error repeats
the description and names the value and its origin.
"""

from __future__ import annotations

import difflib
import operator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from coresize import units
from coresize.errors import ConfigError
from coresize.units import to_bytes, to_memory


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from coresize.planning.options import Option


class Schema(BaseModel):
    """Base class of all schemas: unknown keys are errors, and 1 is not True."""

    model_config = ConfigDict(extra="forbid", strict=True)


SchemaT = TypeVar("SchemaT", bound=Schema)


def _size(amount: Any) -> int:
    return to_memory("size", amount)


def _bytes(amount: Any) -> int:
    return to_bytes("size", amount)


def _index(number: Any) -> Any:
    """An integer of another library as Python's; other values unchanged, to fail."""
    if isinstance(number, bool):
        return number
    try:
        return operator.index(number)
    except TypeError:
        return number


#: A whole number, of Python or another library.
Whole = Annotated[int, BeforeValidator(_index)]

#: A size in bytes, as a number or as a text such as "2GiB".
Size = Annotated[int, BeforeValidator(_size), Field(description=units.SIZES)]
#: The same, where a small number may have been measured.
Bytes = Annotated[int, BeforeValidator(_bytes), Field(description=units.SIZES)]
Seconds = Annotated[
    float, Field(ge=0, le=1e12, allow_inf_nan=False, description="seconds, 0 or above")
]


def _listed(value: object) -> object:
    """A text as the command line takes it, with commas, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


#: What the values of each kind of option are.
_TYPES: dict[str, Any] = {
    "whole": Whole,
    "number": Annotated[float, Field(gt=0)],
    "part": Annotated[float, Field(gt=0, le=1)],
    "flag": bool,
    "text": str,
    "size": Size | Literal["auto"],
    "list": Annotated[list[str], BeforeValidator(_listed)],
    "table": dict[str, Any],
}


def schema_of(name: str, options: Sequence[Option]) -> type[Schema]:
    """The schema of a table of options: each may be left away.

    Args:
        name: of the schema.
        options: the table.
    """
    fields: dict[str, Any] = {}
    for row in options:
        values: Any = _TYPES.get(row.kind)
        if row.kind == "choice":
            values = Literal[row.choices]
        elif row.kind == "whole":
            values = Annotated[Whole, Field(ge=row.least)]
        if row.default is None:
            values = values | None
        fields[row.name] = values, Field(default=row.default, description=row.allowed)
    return create_model(name, __base__=Schema, **fields)


def check(
    schema: type[SchemaT],
    values: Mapping[str, object],
    where: str,
    *,
    texts: bool = False,
) -> SchemaT:
    """Validate values by a schema.

    Args:
        schema: the schema.
        values: the values by name.
        where: the file, function or table that holds the values, for messages.
        texts: whether all values are texts, as environment variables are.

    Raises:
        ConfigError: a key is not known, or a value is not valid.
    """
    try:
        if texts:
            return schema.model_validate_strings(values)
        return schema.model_validate(values)
    except ValidationError as error:
        raise _explained(schema, error.errors()[0], where) from None


def _explained(schema: type[BaseModel], error: ErrorDetails, where: str) -> ConfigError:
    # For a field of several types, the last part names a type: nothing of the user's.
    names = [str(part) for part in error["loc"] if "[" not in str(part)]
    setting = ".".join(names)
    if where:
        setting = f"{where}: {setting}" if setting else where
    if error["type"] == "extra_forbidden":
        return ConfigError(setting, error["input"], _nearest(names[-1], schema))
    field = schema.model_fields.get(names[0]) if names else None
    allowed = (field.description if field else None) or error["msg"]
    is_size = isinstance(error.get("ctx", {}).get("error"), ConfigError)
    hint = units.unit_hint(error["input"]) if is_size else ""
    return ConfigError(setting, error["input"], allowed + hint)


def _nearest(name: str, schema: type[BaseModel]) -> str:
    """The key to write instead of an unknown one."""
    known = sorted(schema.model_fields)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if near:
        return f"{near[0]!r} instead, the nearest known key"
    return f"one of the known keys: {', '.join(known)}"
