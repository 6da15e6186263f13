"""The ``coresize`` command: one thin function per sub-command.

Exit status: 0 for success. 1 if ``--strict`` is given and not even one task fits. 2 for
invalid usage, an invalid setting or variable, a file that cannot be used, or output
that cannot be written; the message is on standard error. ``run`` and ``profile`` exit
with the status of their program. ``batch`` and ``shards`` exit with an `ExitCode`, and
``diagnose`` with 1 if a finding is at least as severe as ``--fail-on``. 130 after
Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys

from coresize.batch.exit_codes import ExitCode
from coresize.cli import (
    batch,
    diagnose,
    history,
    machine,
    options,
    profile,
    run,
    shards,
    streams,
    sweep,
    workers,
)
from coresize.errors import CoresizeError, InsufficientMemoryError
from coresize.model import VERSION
from coresize.processes import signals


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TOP_OPTIONS = ("-h", "--help", "--version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in _TOP_OPTIONS):
        words.insert(0, "report")
    given, unknown = _parser().parse_known_args(words)
    if unknown:
        given.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if words[0] != "run":  # whose program inherits what this one has inherited
        signals.keep_exit_statuses()
    try:
        answer = given.run(given)
        text, status = answer if isinstance(answer, tuple) else (answer, 0)
        if text:
            streams.write(text)
    except InsufficientMemoryError as error:
        streams.complain(f"coresize: error: {error}")
        return int(given.too_large)
    except CoresizeError as error:
        streams.complain(f"coresize: error: {error}")
        return ExitCode.USAGE
    except KeyboardInterrupt:
        streams.complain("coresize: interrupted")
        return streams.INTERRUPTED
    return int(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coresize",
        description="Print how many cores and how much memory this process may use, "
        "and plan the number of workers.",
        epilog="Without a command, coresize runs report and accepts the options of "
        "report. For the CORESIZE_... variables, see docs/reference/environment.md.",
    )
    parser.add_argument("--version", action="version", version=f"coresize {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    of_host, of_plan = options.of_host(), options.of_plan()
    for add in (machine.add_report, machine.add_cores, machine.add_memory):
        add(commands, of_host)
    workers.add_workers(commands, of_plan)
    profile.add_profile(commands)
    run.add_env(commands, of_plan)
    run.add_run(commands, of_plan)
    batch.add_batch(commands)
    shards.add_shards(commands)
    shards.add_status(commands)
    shards.add_merge(commands)
    diagnose.add_diagnose(commands)
    sweep.add_sweep(commands)
    history.add_history(commands)
    machine.add_record(commands)
    for command in commands.choices.values():  # errors show the usage of the command
        command.set_defaults(parser=command)
        command.set_defaults(too_large=command.get_default("too_large") or 1)
    return parser
