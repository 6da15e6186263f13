"""The identity of a run: the function by name, the arguments bound to it by content."""

from __future__ import annotations

import functools
import types

from coresize.batch import keys
from coresize.batch.journal.schema import Identity
from coresize.batch.shards import Shard
from coresize.errors import ConfigError
from coresize.processes import main_module
from coresize.texts import storable


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def identify(
    function: Callable[..., Any], shard: Shard | None, serializer: str
) -> Identity:
    """The identity of a run, the same at every start.

    Raises:
        ConfigError: an argument that is bound to the function has no stable hash, or
            the name of the function does not identify it.
    """
    bound: list[object] = []
    while isinstance(function, functools.partial):
        bound.append([list(function.args), function.keywords])
        function = function.func
    _check_named(function)
    try:
        parameters = keys.digest(bound) if bound else ""
    except ConfigError as error:
        allowed = "functools.partial with plain values, of which a journal keeps a hash"
        raise ConfigError("fn", error.value, allowed) from None
    part = shard or Shard("0/1")
    return Identity(
        function=name_of(function),
        parameters=parameters,
        shard=str(part),
        shard_by=part.by if part.count > 1 else "index",  # no matter for one part
        serializer=serializer,
    )


def _check_named(function: object) -> None:
    """Check that the name of a function identifies it.

    Raises:
        ConfigError: the function is a lambda, is defined in a function, is a method of
            an object, or is an object; it may have state that its name does not show.
    """
    name = getattr(function, "__qualname__", "<object>")
    of = getattr(function, "__self__", None)
    bound = of is not None and not isinstance(of, (type, types.ModuleType))
    if "<" in name or bound:
        allowed = (
            "a function of a module, since a journal knows it by its name; what it "
            "needs besides an item, bound by functools.partial"
        )
        raise ConfigError("fn", function, allowed)


def name_of(function: object) -> str:
    """The module and name of a function; for a main module, the name of its file.

    >>> import json
    >>> name_of(json.dumps)
    'json:dumps'
    """
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None) or type(function).__module__
    if module == "__main__":
        module = main_module.known().importable_name
    return storable(f"{module}:{name}")  # a file's name may be no UTF-8
