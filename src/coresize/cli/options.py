"""Options of several sub-commands: the machine, and the plan of the workers."""

from __future__ import annotations

import argparse

from coresize import recording
from coresize.cli import streams
from coresize.errors import HostFileError
from coresize.host import current
from coresize.planning.options import SETTINGS
from coresize.planning.settings import load_settings
from coresize.recording import hostfile


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    from coresize.host import Host
    from coresize.model import Limits
    from coresize.planning.options import Option
    from coresize.planning.settings import Settings
    from coresize.planning.values import WorkerPlan

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


#: The path of standard input, for messages.
_STDIN = "on standard input"


def host(options: argparse.Namespace) -> Host:
    """The machine of ``--host``, or this machine."""
    if options.host is None:
        return current()
    if options.host == "-":
        try:
            text = streams.read()
        except UnicodeError as error:
            raise HostFileError(_STDIN, f"not {error}") from None
        file = hostfile.loads(text, _STDIN)
    else:
        file = recording.read_host_file(options.host)
    for name in file.unknown:
        where = f"host file {options.host}"
        streams.complain(
            f"coresize: warning: {where}: {name} is not known and is ignored"
        )
    return file.host


def of_host() -> argparse.ArgumentParser:
    """A parser with the option for a recorded machine."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--host",
        metavar="FILE",
        help="use a recorded machine instead of this one; - is standard input",
    )
    return parser


#: Options for the needs of a task, and for the number of tasks and workers.
_NEEDS = (
    ("--memory", str, "SIZE", 'memory that one task needs, such as "2GiB"'),
    ("--cpus", float, "N", "cores that one task keeps busy (default: 1)"),
    ("--gpus", float, "N", "GPUs that one task needs (default: 0)"),
    (
        "--profile",
        str,
        "NAME",
        "a profile: from the settings, saved, or the path of a file",
    ),
    (
        "--kind",
        str,
        "KIND",
        '"cpu", "io" (mostly waiting), or a kind from the settings',
    ),
    ("--tasks", int, "N", "number of tasks"),
    ("--max-workers", int, "N", "upper bound for the number of workers"),
)


def add(
    parser: argparse._ActionsContainer, options: Iterable[Option], *, strict: bool
) -> None:
    """Add the options of a table that have a name on the command line.

    Args:
        parser: the parser, or a group of it.
        options: the table.
        strict: argparse refuses an unknown choice; otherwise a later check does.
    """
    for row in options:
        words: dict[str, Any] = {"dest": row.name, "help": row.help}
        if row.kind == "flag":
            words["action"] = argparse.BooleanOptionalAction
        else:
            words["type"] = _TYPES.get(row.kind, str)
            words["metavar"] = row.metavar
        if row.kind == "choice" and strict:
            words["choices"] = row.choices
        if row.flag:
            parser.add_argument(row.flag, **words)


_TYPES: dict[str, Callable[[str], object]] = {
    "whole": int,
    "number": float,
    "part": float,
    "list": lambda text: text.split(","),
}


def of_plan() -> argparse.ArgumentParser:
    """A parser with the options that decide the number of workers."""
    parser = argparse.ArgumentParser(add_help=False, parents=[of_host()])
    needs = parser.add_argument_group("what a task needs")
    for name, kind, metavar, text in _NEEDS:
        needs.add_argument(name, type=kind, metavar=metavar, help=text)
    decided = parser.add_argument_group(
        "settings, which override the settings file and variables"
    )
    add(decided, SETTINGS, strict=True)
    needs.add_argument(
        "--strict",
        action="store_true",
        help="fail if not even one task fits into memory",
    )
    decided.add_argument("--config", metavar="FILE", help="a settings file")
    return parser


def is_planned(options: argparse.Namespace) -> bool:
    """Whether any option plans several processes, or names their needs."""
    names = [name.strip("-").replace("-", "_") for name, *_ in _NEEDS]
    return any(getattr(options, name) is not None for name in names)


def settings_of(options: argparse.Namespace, machine: Host) -> Settings:
    """The settings, with the options of the command line."""
    return load_settings(
        command_line={row.name: getattr(options, row.name, None) for row in SETTINGS},
        file=options.config,
        host=machine,
    )


def plan_of(
    options: argparse.Namespace, limits: Limits, settings: Settings
) -> WorkerPlan:
    """The plan of the workers for these options."""
    from coresize.planning.plan import plan_workers

    return plan_workers(
        memory=options.memory,
        cpus=options.cpus,
        gpus=options.gpus,
        profile=options.profile,
        kind="cpu" if options.kind is None else options.kind,
        tasks=options.tasks,
        max_workers=options.max_workers,
        strict=options.strict,
        limits=limits,
        settings=settings,
    )
