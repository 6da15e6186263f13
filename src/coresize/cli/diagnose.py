"""The sub-command ``diagnose``: why programs are slow here."""

from __future__ import annotations

import json

from coresize import processes
from coresize.cli import streams
from coresize.interrupts import Signals


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands
    from coresize.diagnosis.watch import Sample


def add_diagnose(commands: Commands) -> None:
    """Add the sub-command ``diagnose``."""
    text = "find out why programs are slow here, and what to do"
    command = commands.add_parser("diagnose", help=text)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument(
        "--quick", action="store_true", help="skip the checks that take seconds"
    )
    command.add_argument(
        "--main",
        metavar="FILE",
        help="time the import of this main module (a file or a module name) by workers",
    )
    command.add_argument(
        "--fail-on",
        choices=("error", "warning", "note"),
        help="exit with 1 if a finding is at least this severe",
    )
    command.add_argument(
        "--watch",
        type=float,
        metavar="SECONDS",
        help="watch the process of --pid instead (default: 30)",
    )
    command.add_argument("--pid", type=int, help="the process to watch")
    command.add_argument(
        "words",
        nargs="*",
        metavar="-- ARGUMENTS",
        help="arguments for the program of --main",
    )
    command.set_defaults(run=_diagnose)


def _diagnose(options: argparse.Namespace) -> tuple[str, int]:
    if options.words and options.main is None:
        options.parser.error("ARGUMENTS can be used only with --main")
    if options.watch is not None or options.pid is not None:
        return _watch(options)
    from coresize.diagnosis.diagnose import diagnose

    main = None if options.main is None else [options.main, *options.words]
    signals = Signals()
    try:
        found = diagnose(main=main, measure=not options.quick)
    except KeyboardInterrupt:
        return "", signals.status
    failed = options.fail_on is not None and found.has(options.fail_on)
    return found.as_json() if options.json else str(found), int(failed)


def _watch(options: argparse.Namespace) -> tuple[str, int]:
    """Watch a process until the time is over, the process has ended, or Ctrl-C."""
    from coresize.diagnosis import watch

    _check_watch(options)
    samples: list[Sample] = []

    def tell(sample: Sample) -> None:
        samples.append(sample)
        if not options.json and not streams.write_row(str(sample)):
            signals.stop(streams.NO_READER)

    signals, status = Signals(), 0
    try:
        seconds = _SECONDS if options.watch is None else options.watch
        watch.watch(options.pid, seconds, tell)
    except KeyboardInterrupt:
        status = signals.status
    said = watch.conclude(samples, ended=not processes.is_running(options.pid))
    if not options.json:
        return f"\n{said}", status
    rows = [one.as_dict() for one in samples]
    return json.dumps({"samples": rows, "conclusion": said}, indent=2), status


def _check_watch(options: argparse.Namespace) -> None:
    """Refuse a watch without a process, and options that do not apply to a watch."""
    if options.pid is None:
        options.parser.error("--watch needs --pid PID, the process to watch")
    for name in ("main", "fail_on", "quick"):
        if getattr(options, name):
            named = f"--{name.replace('_', '-')}"
            options.parser.error(f"{named} cannot be used with --watch or --pid")


_SECONDS = 30.0
