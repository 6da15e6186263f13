"""What several sub-commands take: a machine, and how workers are planned."""

from __future__ import annotations

import argparse

from coresize import recording
from coresize.cli import streams
from coresize.detection.limits import ROUNDINGS
from coresize.host import current
from coresize.recording import hostfile


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from coresize.host import Host
    from coresize.model import Limits
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
_SETTINGS = (
    ("--workers", int, "N", "number of workers, in place of the planned number"),
    ("--reserve", int, "N", "number of cores to keep free"),
    (
        "--memory-fraction",
        float,
        "PART",
        "fraction of the available memory that workers may use (default: 0.8)",
    ),
)


def of_plan() -> argparse.ArgumentParser:
    """The options that decide how many workers there are."""
    parser = argparse.ArgumentParser(add_help=False, parents=[of_host()])
    needs = parser.add_argument_group("what a task needs")
    for name, kind, metavar, text in _NEEDS:
        needs.add_argument(name, type=kind, metavar=metavar, help=text)
    decided = parser.add_argument_group(
        "settings, which override the settings file and variables"
    )
    for name, kind, metavar, text in _SETTINGS:
        decided.add_argument(name, type=kind, metavar=metavar, help=text)
    decided.add_argument(
        "--rounding", choices=ROUNDINGS, help="how to round a fraction of a core"
    )
    decided.add_argument(
        "--parallel",
        action=argparse.BooleanOptionalAction,
        help="--no-parallel plans one worker",
    )
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
    from coresize.planning.settings import load_settings

    return load_settings(
        command_line={
            "workers": options.workers,
            "parallel": options.parallel,
            "reserve_cores": options.reserve,
            "memory_fraction": options.memory_fraction,
            "rounding": options.rounding,
        },
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
