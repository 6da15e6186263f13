"""The sub-command ``diagnose``: why it is slow here."""

from __future__ import annotations

import json

from coresize.cli import streams


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands


def add_diagnose(commands: Commands) -> None:
    """Checks of this machine, or a watch of a program."""
    text = "why it is slow here: checks, with what to do"
    command = commands.add_parser("diagnose", help=text)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument(
        "--quick", action="store_true", help="leave out what takes seconds to measure"
    )
    command.add_argument(
        "--main", metavar="FILE", help="a program, to time what its workers import"
    )
    command.add_argument(
        "--fail-on",
        choices=("error", "warning", "note"),
        help="end with 1 if anything is at least that severe",
    )
    command.add_argument(
        "--watch", type=float, metavar="SECONDS", help="watch a running program instead"
    )
    command.add_argument("--pid", type=int, help="of the program that is watched")
    command.set_defaults(run=_diagnose)


def _diagnose(options: argparse.Namespace) -> tuple[str, int]:
    if options.watch is not None or options.pid is not None:
        return _watch(options), 0
    from coresize.diagnosis.diagnose import diagnose

    found = diagnose(main=options.main, measure=not options.quick)
    failed = options.fail_on is not None and found.has(options.fail_on)
    return found.as_json() if options.json else str(found), int(failed)


def _watch(options: argparse.Namespace) -> str:
    from coresize.diagnosis import watching
    from coresize.errors import ConfigError

    if options.pid is None:
        raise ConfigError("--watch", options.watch, "with --pid, the process to watch")
    tell = None if options.json else lambda sample: streams.write(str(sample))
    seconds = _SECONDS if options.watch is None else options.watch
    samples = watching.watch(options.pid, seconds, tell)
    if options.json:
        rows = [one.as_dict() for one in samples]
        said = watching.conclude(samples)
        return json.dumps({"samples": rows, "conclusion": said}, indent=2)
    return "\n" + watching.conclude(samples)


_SECONDS = 30.0
