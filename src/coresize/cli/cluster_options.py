"""The options of ``coresize shards`` for a cluster; `array_jobs` obeys them."""

from __future__ import annotations

from coresize import storage
from coresize.errors import CoresizeError


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import TypeAlias

    #: Option, type, name of the value, and help.
    _Row: TypeAlias = tuple[str, type, str, str]

#: The options of a job on every scheduler.
COMMON: tuple[_Row, ...] = (
    ("--name", str, "NAME", "name of the job (default: shards)"),
    ("--cpus", float, "N", "cores of one shard (default: 1)"),
    ("--profile", str, "NAME", 'memory by a profile of a task, or "history:FUNCTION"'),
    ("--time", str, "TIME", "longest time of one shard, such as 2h"),
    ("--grace", str, "TIME", "time from SIGTERM to the end by force (default: 60s)"),
    ("--journal", str, "PATH", "journals, such as o-{index}.db, if CMD does not tell"),
)

#: The options on one scheduler alone.
PARTICULAR: dict[str, tuple[_Row, ...]] = {
    "slurm": (("--sbatch", list, "OPTION", "such as --sbatch=--partition=long"),),
    "kubernetes": (
        ("--image", str, "IMAGE", "image of the container, with coresize in it"),
        ("--claim", str, "NAME:PATH", "volume claim for journals, and its place"),
        ("--restarts", int, "N", "starts of a shard after the first (default: 3)"),
        ("--max-failed", int, "N", "failed shards after which all are given up"),
    ),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for a cluster."""
    group = parser.add_argument_group("on a cluster")
    group.add_argument(
        "--on",
        choices=tuple(PARTICULAR),
        help="print a batch script of Slurm, or a manifest of Kubernetes",
    )
    group.add_argument("--submit", action="store_true", default=None, help=_SUBMIT)
    group.add_argument("-o", "--output", metavar="FILE", help="write the job to FILE")
    group.add_argument("--again", metavar="KINDS", help=_AGAIN)
    for row in COMMON:
        _add_option(group, *row)
    for name, rows in PARTICULAR.items():
        for option, kind, metavar, text in rows:
            _add_option(group, option, kind, metavar, f"{name}: {text}")


_SUBMIT = "submit the job, in place of printing it"
_AGAIN = (
    'run the shards again whose journals say "oom" (with more memory), "failed", '
    '"killed", "crashed", "timeout" or "missing" (not begun, or not at the end)'
)


def _add_option(
    group: argparse._ArgumentGroup, option: str, kind: type, metavar: str, text: str
) -> None:
    if kind is list:
        group.add_argument(option, action="append", metavar=metavar, help=text)
    else:
        group.add_argument(option, type=kind, metavar=metavar, help=text)


def types(*tables: tuple[_Row, ...]) -> dict[str, type]:
    """The types of the options in some tables, by the name that argparse gives them."""
    return {
        option.strip("-").replace("-", "_"): kind
        for table in tables
        for option, kind, *_ in table
    }


def logs_of(options: argparse.Namespace) -> str:
    """The folder of the logs.

    Raises:
        ConfigError: it is no path.
    """
    given = options.logs
    return storage.check_path("--logs", "shards" if given is None else given)


def check_local(options: argparse.Namespace) -> None:
    """Check that no option for a cluster is given, for shards on this machine.

    Raises:
        CoresizeError: an option needs ``--on``.
    """
    names = types(COMMON, *PARTICULAR.values())
    for name in ("submit", "output", "again", *names):
        if getattr(options, name) is not None:
            refuse(name, "it needs --on slurm or --on kubernetes")


def check_cluster(options: argparse.Namespace) -> None:
    """Check that only options are given that go together.

    Raises:
        CoresizeError: an option is for another scheduler, or for this machine.
    """
    if options.retry_oom:
        refuse("retry_oom", "with --on, --again oom runs shards again")
    for name, rows in PARTICULAR.items():
        for option in types(rows):
            if name != options.on and getattr(options, option) is not None:
                refuse(option, f"it is for --on {name}")
    if options.memory is not None and options.profile is not None:
        refuse("profile", "--memory tells the memory of a shard already")


def refuse(name: str, why: str) -> None:
    """Refuse an option.

    Raises:
        CoresizeError: always.
    """
    msg = f"--{name.replace('_', '-')} cannot be used: {why}"
    raise CoresizeError(msg)
