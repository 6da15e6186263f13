"""The sub-command ``history``: shows the recorded tasks of earlier runs."""

from __future__ import annotations

import json

from coresize.texts import one_line
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands


def add_history(commands: Commands) -> None:
    """Add the sub-command ``history``."""
    text = "show what run_batch(history=True) has recorded, by function"
    command = commands.add_parser("history", help=text)
    command.add_argument("name", nargs="?", help="the function: module:name")
    asked = command.add_mutually_exclusive_group()
    asked.add_argument(
        "--size",
        type=float,
        metavar="N",
        help="predict the needs of an item of this size",
    )
    asked.add_argument(
        "--export", action="store_true", help="print each task as a line of JSON"
    )
    asked.add_argument(
        "--forget", action="store_true", help="delete the history of the function"
    )
    command.add_argument(
        "--all", action="store_true", help="with --forget: of all functions"
    )
    command.set_defaults(run=_history)


def _history(options: argparse.Namespace) -> str:
    from coresize.errors import ConfigError
    from coresize.planning.history import store

    if options.forget:
        if (options.name is None) != options.all:
            raise ConfigError(
                "--forget", options.name, "with a function, or with --all"
            )
        of = f" of {options.name}" if options.name else ""
        tasks = format_count(store.forget(options.name), "task")
        return f"deleted the history of {tasks}{of}"
    if options.all:
        raise ConfigError("--all", options.all, "with --forget")
    if options.size is not None and options.name is None:
        raise ConfigError("--size", options.size, "with a function, module:function")
    if options.export:
        return _exported(options.name)
    if options.name is None:
        return _listed()
    return _shown(options.name, options.size)


def _exported(name: str | None) -> str:
    from coresize.planning.history import store

    names = [name] if name is not None else [one for one, *_ in store.names()]
    return "\n".join(
        json.dumps({"name": one, **seen.as_dict()})
        for one in names
        for seen in store.recall(one)
    )


def _listed() -> str:
    from coresize.planning.history import store
    from coresize.units import format_bytes

    rows = [
        f"{count:>8}  {format_bytes(peak):>10}  {one_line(name)}"
        for name, count, peak in store.names()
    ]
    if not rows:
        return "nothing is recorded: use run_batch(history=True) or CORESIZE_HISTORY=1"
    return "\n".join([f"{'TASKS':>8}  {'LARGEST':>10}  FUNCTION", *rows])


def _shown(name: str, size: float | None) -> str:
    from coresize.planning.history.profile import profile_of
    from coresize.units import format_bytes

    profile = profile_of(name, size)
    of = "" if size is None else f" of size {size:g}"
    return (
        f"a task{of} needs {format_bytes(profile.peak_memory or 0)} "
        f"({profile.method}, margin 10 %), and typically takes {profile.wall:.3g} s"
    )
