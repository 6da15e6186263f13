"""What several sub-commands take: a machine, and how workers are planned."""

from __future__ import annotations

import argparse

from coresize import recording
from coresize.cli import streams
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


def host(options: argparse.Namespace) -> Host:
    """The machine that is asked about."""
    if options.host is None:
        return current()
    if options.host == "-":
        file = hostfile.loads(streams.read(), "on standard input")
    else:
        file = recording.read_host_file(options.host)
    for name in file.unknown:
        where = f"host file {options.host}"
        streams.complain(
            f"coresize: warning: {where}: {name} is not known and is ignored"
        )
    return file.host


def of_host() -> argparse.ArgumentParser:
    """The option for a recorded machine."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--host",
        metavar="FILE",
        help="use a recorded machine instead of this one; - is standard input",
    )
    return parser


#: Options that say what a task needs, and how many workers there may be.
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
        parser: or a group of one.
        options: the table.
        strict: argparse refuses what is no choice; else whoever checks the values does.
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
    """The options that decide how many workers there are."""
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
    """Whether any option says that there are several processes, or what they need."""
    names = [name.strip("-").replace("-", "_") for name, *_ in _NEEDS]
    return any(getattr(options, name) is not None for name in names)


def settings_of(options: argparse.Namespace, machine: Host) -> Settings:
    """The settings, with those of the command line."""
    return load_settings(
        command_line={row.name: getattr(options, row.name, None) for row in SETTINGS},
        file=options.config,
        host=machine,
    )


def plan_of(
    options: argparse.Namespace, limits: Limits, settings: Settings
) -> WorkerPlan:
    """The plan for what the options say."""
    from coresize.planning.plan import plan_workers

    return plan_workers(
        memory=options.memory,
        cpus=options.cpus,
        gpus=options.gpus,
        profile=options.profile,
        kind="cpu" if options.kind is None else options.kind,
        tasks=options.tasks,
        at_most=options.max_workers,
        strict=options.strict,
        limits=limits,
        settings=settings,
    )
