"""The sub-commands about the machine: report, cores, memory, record."""

from __future__ import annotations

import json
from pathlib import Path

from coresize import recording, storage
from coresize.cli import options as given
from coresize.cli import report
from coresize.detection import available, sources
from coresize.detection.limits import ROUNDINGS, whole_cores
from coresize.errors import HostFileError
from coresize.model import VERSION
from coresize.planning import settings
from coresize.recording import hostfile


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands
    from coresize.host import Host

_RECORDED_BY = "# Recorded by coresize"


def add_report(commands: Commands, of_host: argparse.ArgumentParser) -> None:
    """Add the sub-command ``report``."""
    text = "print the limits and all facts, gaps and warnings behind them"
    command = commands.add_parser("report", parents=[of_host], help=text)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_report)


def add_cores(commands: Commands, of_host: argparse.ArgumentParser) -> None:
    """Add the sub-command ``cores``."""
    text = "print only the number of cores: make -j$(coresize cores)"
    command = commands.add_parser("cores", parents=[of_host], help=text)
    command.add_argument(
        "--reserve", type=int, metavar="N", help="number of cores to keep free"
    )
    command.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        default="nearest",
        help="how to round a fraction: 1.5 becomes 2, 1 or 2 (default: nearest)",
    )
    command.add_argument(
        "--physical",
        action="store_true",
        help="count physical cores, not hyper-threads",
    )
    command.set_defaults(run=_cores)


def add_memory(commands: Commands, of_host: argparse.ArgumentParser) -> None:
    """Add the sub-command ``memory``."""
    text = "print the memory available now, in bytes"
    command = commands.add_parser("memory", parents=[of_host], help=text)
    command.set_defaults(run=_memory)


def add_record(commands: Commands) -> None:
    """Add the sub-command ``record``."""
    text = "record this machine in a file, for --host or a bug report"
    command = commands.add_parser("record", help=text)
    command.add_argument(
        "file", metavar="FILE", help="the file to write; - is standard output"
    )
    command.add_argument(
        "--note", metavar="TEXT", default="", help="a sentence about the machine"
    )
    command.set_defaults(run=_record)


def _report(options: argparse.Namespace) -> str:
    host = given.host(options)
    limits = available.detect(host)
    reserve = sources.reserved_cores(sources.read_variables(host))
    cores = whole_cores(limits.cpu.limit, reserve=reserve)
    found = settings.load_settings(host=host)
    show = report.as_json if options.json else report.as_text
    answer = show(
        limits,
        cores=cores,
        reserve=reserve,
        settings=found.rows(),
        warnings=found.warnings,
    )
    if isinstance(answer, str):
        return answer
    return json.dumps({"coresize": VERSION, **answer}, indent=2)


def _checked(options: argparse.Namespace) -> Host:
    """The machine, after a check of all its settings, even unused ones."""
    host = given.host(options)
    settings.load_settings(host=host)
    return host


def _cores(options: argparse.Namespace) -> str:
    cores = available.cores_of(
        _checked(options),
        reserve=options.reserve,
        rounding=options.rounding,
        physical=options.physical,
    )
    return str(cores)


def _memory(options: argparse.Namespace) -> str:
    return str(available.memory_of(_checked(options)))


def _record(options: argparse.Namespace) -> str:
    text = hostfile.dumps(recording.record_host(), note=options.note)
    text = f"{_RECORDED_BY} {VERSION}\n{text}"
    if options.file == "-":
        return text.rstrip("\n")
    path = Path(options.file).resolve()  # the target of a link, not the link
    try:
        if path.is_file() and not _replaceable(path):
            reason = "exists and is not a host file; use another name"
            raise HostFileError(options.file, reason)
        storage.replace(str(path), text)
    except OSError as error:
        raise HostFileError(options.file, str(error.strerror)) from None
    return ""


def _replaceable(path: Path) -> bool:
    """Whether a file is a host file or empty, so that replacing it loses nothing."""
    start = path.read_bytes()[:100]
    return not start or start.startswith((_RECORDED_BY.encode(), b"format = "))
