"""What a parsed command line states: its values without the defaults of its parser.

A parser fills in the flags that nobody typed. ``store_true`` fills in False, which says
nothing, and must not turn off what a file or a variable has turned on. Whether a value
was typed is known exactly to click, which records the source of each value. argparse
does not record it: there, a value that equals the default counts as not typed.
"""

from __future__ import annotations

from collections.abc import Mapping

from coresize.errors import ConfigError
from coresize.planning.settings_names import known_name


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any, Protocol, TypeAlias

    class Context(Protocol):
        """The context of click or typer."""

        def get_parameter_source(self, name: str, /) -> Any:
            """Where the value of a flag comes from."""

    Parser: TypeAlias = argparse.ArgumentParser | Context

#: The sources of click that nobody typed.
_NOT_TYPED = ("DEFAULT", "DEFAULT_MAP")

_FLAGS = "the namespace of argparse, or a mapping of flags by name"
_PARSERS = "the ArgumentParser that has parsed the command line, or click's context"


def stated(flags: object, parser: object) -> dict[str, object]:
    """The flags that somebody typed, by name.

    Args:
        flags: a namespace or a mapping; None for no command line.
        parser: the parser of argparse or the context of click; None if it is not
            known, and then every value that is not None counts as typed.

    Raises:
        ConfigError: ``flags`` or ``parser`` is of another type.
    """
    if flags is None:
        named: dict[str, Any] = {}
    elif isinstance(flags, Mapping):
        named = dict(flags)
    elif hasattr(flags, "__dict__"):
        named = vars(flags)
    else:
        raise ConfigError("command_line", flags, _FLAGS)
    if parser is None:
        typed = named
    elif hasattr(parser, "get_parameter_source"):
        typed = {
            name: value
            for name, value in named.items()
            if getattr(parser.get_parameter_source(name), "name", "") not in _NOT_TYPED
        }
    elif hasattr(parser, "_actions"):
        typed = _typed(named, parser)
    else:
        raise ConfigError("parser", parser, _PARSERS)
    return {name: value for name, value in typed.items() if value is not None}


def by_setting(
    flags: Mapping[str, object], known: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, str]]:
    """The flags that are settings, and the program's own name of each.

    A flag with another name of a setting counts unless the setting has a flag itself:
    other flags are the program's own affair, and no error.

    >>> by_setting({"jobs": 3, "cases": "all"}, {"workers": None})
    ({'workers': 3}, {'workers': 'jobs'})
    """
    found: dict[str, object] = {}
    written: dict[str, str] = {}
    for name in sorted(flags, key=lambda name: name not in known):
        setting = known_name(name)
        if setting in known and setting not in found:
            found[setting], written[setting] = flags[name], name
    return found, written


# -----------------------------------------------------------------------------
# argparse.


def _typed(named: dict[str, Any], parser: Any) -> dict[str, object]:
    """The flags whose value is no default of the parser."""
    defaults = list(_defaults(parser, named))
    return {
        name: value
        for name, value in named.items()
        if not any(name in table and _is_same(value, table[name]) for table in defaults)
    }


def _is_same(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _defaults(parser: Any, named: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Yield the defaults of a parser, and of its sub-commands that may have run.

    A parser of sub-commands records which one has run only if it was given a ``dest``;
    without one, all those count whose flags are all there.
    """
    own = dict(parser._defaults)  # what set_defaults() was given
    for action in reversed(parser._actions):  # the first one counts
        if _parsers(action):
            chosen = named.get(action.dest)
            for name, command in action.choices.items():
                if chosen in (None, name) and _may_have_run(command, named):
                    yield from _defaults(command, named)
        elif action.default != "==SUPPRESS==":
            own[action.dest] = _converted(parser, action)
    yield own


def _parsers(action: Any) -> bool:
    """Whether an action of argparse holds the parsers of sub-commands."""
    return isinstance(action.choices, dict) and all(
        hasattr(choice, "_actions") for choice in action.choices.values()
    )


def _may_have_run(command: Any, named: dict[str, Any]) -> bool:
    """Whether a sub-command may have run: all flags that it fills in are there."""
    flags = {
        action.dest
        for action in command._actions
        if "==SUPPRESS==" not in (action.dest, action.default)
    }
    fixed = command._defaults.items()
    return flags <= {*named} and all(
        name in flags or _is_same(named.get(name), value) for name, value in fixed
    )


def _converted(parser: Any, action: Any) -> object:
    """The default of a flag; argparse converts a text as if it had been typed."""
    if not isinstance(action.default, str):
        return action.default
    try:
        return parser._get_value(action, action.default)
    except Exception:  # noqa: BLE001 - argparse's own, or of the user's type
        return action.default
