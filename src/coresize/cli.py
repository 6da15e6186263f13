"""The ``coresize`` command: one thin function per sub-command.

Exit status: 0, or 2 for bad usage, a malformed variable of coresize's own, a host file
that cannot be used or output that cannot be written; the message is on standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from coresize import __version__, available, detection, hostfile, recording, report
from coresize.errors import CoresizeError, HostFileError
from coresize.host import current
from coresize.policy import ROUNDINGS, whole_cores


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO, TypeAlias

    from coresize.host import Host

    _Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in _TOP_OPTIONS):
        words.insert(0, "report")
    options = _parser().parse_args(words)
    try:
        text = options.run(options)
        if text:
            _write(text)
    except CoresizeError as error:
        _complain(f"coresize: error: {error}")
        return 2
    return 0


def _report(options: argparse.Namespace) -> str:
    host = _host(options)
    limits = available.detect(host)
    reserve = detection.reserved_cores(detection.read_variables(host))
    cores = whole_cores(limits.cpu.limit, reserve=reserve)
    if not options.json:
        return report.as_text(limits, cores=cores, reserve=reserve)
    answer = report.as_json(limits, cores=cores, reserve=reserve)
    return json.dumps({"coresize": __version__, **answer}, indent=2)


def _cores(options: argparse.Namespace) -> str:
    cores = available.cores_of(
        _host(options),
        reserve=options.reserve,
        rounding=options.rounding,
        physical=options.physical,
    )
    return str(cores)


def _memory(options: argparse.Namespace) -> str:
    return str(available.memory_of(_host(options)))


def _record(options: argparse.Namespace) -> str:
    text = hostfile.dumps(recording.record_host(), note=options.note)
    text = f"{_RECORDED_BY} {__version__}\n{text}"
    if options.file == "-":
        return text.rstrip("\n")
    path = Path(options.file).resolve()  # the target of a link, not the link
    try:
        if path.is_file() and not _replaceable(path):
            reason = "exists and is no host file; name another"
            raise HostFileError(options.file, reason)
        _replace(path, text)
    except OSError as error:
        raise HostFileError(options.file, str(error.strerror)) from None
    return ""


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; what is no plain file is written as it is."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _replaceable(path: Path) -> bool:
    """Whether a file is a host file, or empty: nothing of the user's is lost."""
    start = path.read_bytes()[:100]
    return not start or start.startswith((_RECORDED_BY.encode(), b"format = "))


def _host(options: argparse.Namespace) -> Host:
    """The machine that is asked about."""
    if options.host is None:
        return current()
    if options.host == "-":
        file = hostfile.loads(_standard_input(), "on standard input")
    else:
        file = recording.read_host_file(options.host)
    for name in file.unknown:
        where = f"host file {options.host}"
        _complain(f"coresize: warning: {where}: {name} is not known and ignored")
    return file.host


def _standard_input() -> str:
    if sys.stdin is None:
        msg = "standard input is closed"
        raise CoresizeError(msg)
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def _complain(text: str) -> None:
    """To standard error, if there is one: never to standard output."""
    if sys.stderr is not None:
        print(_printable(text, sys.stderr), file=sys.stderr)


def _write(text: str) -> None:
    """To standard output. A reader that leaves early has seen enough."""
    if sys.stdout is None:
        msg = "standard output is closed"
        raise CoresizeError(msg)
    try:
        print(_printable(text, sys.stdout), flush=True)
    except OSError as error:
        # What is left in the buffer must not be tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            msg = f"standard output cannot be written: {error.strerror}"
            raise CoresizeError(msg) from None


def _printable(text: str, stream: TextIO) -> str:
    """With escapes for what would steer a terminal or cannot be encoded."""
    shown = "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
    encoding = stream.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


_RECORDED_BY = "# Recorded by coresize"
_TOP_OPTIONS = ("-h", "--help", "--version")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coresize",
        description="Tell how many cores and how much memory this process may use.",
        epilog="Without a command: report, with its options. "
        "The variables CORESIZE_OVERRIDE_CORES, CORESIZE_MAX_CORES, "
        "CORESIZE_RESERVE_CORES, CORESIZE_OVERRIDE_MEMORY and CORESIZE_MAX_MEMORY "
        "change the answers.",
    )
    parser.add_argument(
        "--version", action="version", version=f"coresize {__version__}"
    )
    of_host = argparse.ArgumentParser(add_help=False)
    of_host.add_argument(
        "--host",
        metavar="FILE",
        help="a recorded machine instead of this one; - is standard input",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_report, _add_cores, _add_memory):
        add(commands, of_host)
    _add_record(commands)
    return parser


def _add_report(commands: _Commands, of_host: argparse.ArgumentParser) -> None:
    text = "the answers, what binds, every fact, gaps and warnings"
    command = commands.add_parser("report", parents=[of_host], help=text)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_report)


def _add_cores(commands: _Commands, of_host: argparse.ArgumentParser) -> None:
    text = "the number of cores alone: make -j$(coresize cores)"
    command = commands.add_parser("cores", parents=[of_host], help=text)
    command.add_argument(
        "--reserve", type=int, metavar="N", help="whole cores to keep free"
    )
    command.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        default="nearest",
        help="what becomes of a fraction: 1.5 is 2, 1 or 2 (default: nearest)",
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
    command.add_argument(
        "--note", metavar="TEXT", default="", help="a sentence about the machine"
    )
    command.set_defaults(run=_record)
