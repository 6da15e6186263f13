"""The ``coresize`` command: one thin function per sub-command.

Exit status: 0, or 2 for bad usage, a malformed variable of coresize's own, or a host
file that cannot be used; the message is on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from coresize import __version__, available, detection, hostfile, report, testing
from coresize.errors import CoresizeError, HostFileError
from coresize.host import Live
from coresize.policy import ROUNDINGS, whole_cores


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from coresize.host import Host

    _Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in _TOP_OPTIONS):
        words.insert(0, "report")
    options = _parser().parse_args(words)
    for stream in (sys.stdout, sys.stderr):  # paths may hold bytes that are no UTF-8
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        options.run(options)
        sys.stdout.flush()
    except CoresizeError as error:
        print(f"coresize: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough
        sys.stderr.close()
        return 0
    return 0


def _report(options: argparse.Namespace) -> None:
    host = _host(options)
    limits = available.detect(host)
    reserve = detection.reserved_cores(detection.read_variables(host))
    cores = whole_cores(limits.cpu.limit, reserve=reserve)
    if options.json:
        print(
            json.dumps(report.as_json(limits, cores=cores, reserve=reserve), indent=2)
        )
    else:
        print(report.as_text(limits, cores=cores, reserve=reserve))


def _cores(options: argparse.Namespace) -> None:
    with testing.use_host(_host(options)):
        print(
            available.available_cores(
                reserve=options.reserve,
                rounding=options.rounding,
                physical=options.physical,
            )
        )


def _memory(options: argparse.Namespace) -> None:
    with testing.use_host(_host(options)):
        print(available.available_memory())


def _record(options: argparse.Namespace) -> None:
    text = hostfile.dumps(testing.record_host(), note=options.note)
    if options.file == "-":
        print(text, end="")
        return
    path = Path(options.file)
    try:
        if path.is_file() and not _replaceable(path):
            raise HostFileError(
                options.file, "exists and is no host file; name another"
            )
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HostFileError(options.file, str(error.strerror)) from None


def _replaceable(path: Path) -> bool:
    """Whether a file holds nothing of the user's own that writing would lose."""
    start = path.read_bytes()[:10]
    return not start or start.startswith(b"format = ")


def _host(options: argparse.Namespace) -> Host:
    return Live() if options.host is None else testing.load_host(options.host)


_TOP_OPTIONS = ("-h", "--help", "--version")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coresize",
        description="Tell how many cores and how much memory this process may use.",
        epilog="Without a command: report.",
    )
    parser.add_argument(
        "--version", action="version", version=f"coresize {__version__}"
    )
    of_host = argparse.ArgumentParser(add_help=False)
    of_host.add_argument(
        "--host", metavar="FILE", help="explain a recorded machine instead of this one"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_report, _add_cores, _add_memory):
        add(commands, of_host)
    _add_record(commands)
    return parser


def _add_report(commands: _Commands, of_host: argparse.ArgumentParser) -> None:
    text = "the answers, what binds, every fact, gaps and warnings"
    command = commands.add_parser("report", parents=[of_host], help=text)
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=_report)


def _add_cores(commands: _Commands, of_host: argparse.ArgumentParser) -> None:
    text = "the number of cores alone: make -j$(coresize cores)"
    command = commands.add_parser("cores", parents=[of_host], help=text)
    command.add_argument(
        "--reserve", type=int, metavar="N", help="whole cores to keep free"
    )
    command.add_argument(
        "--rounding", choices=ROUNDINGS, default="nearest", help="of a fraction"
    )
    command.add_argument(
        "--physical", action="store_true", help="count physical cores, not threads"
    )
    command.set_defaults(run=_cores)


def _add_memory(commands: _Commands, of_host: argparse.ArgumentParser) -> None:
    text = "the bytes of memory available now"
    command = commands.add_parser("memory", parents=[of_host], help=text)
    command.set_defaults(run=_memory)


def _add_record(commands: _Commands) -> None:
    text = "write this machine to a file, for --host or a bug report"
    command = commands.add_parser("record", help=text)
    command.add_argument("file", metavar="FILE", help="the file to write, or -")
    command.add_argument("--note", default="", help="a sentence about the machine")
    command.set_defaults(run=_record)
