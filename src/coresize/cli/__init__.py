"""The ``coresize`` command: one thin function per sub-command.

Exit status: 0; 1 where not even one task fits and ``--strict`` is given; 2 for bad
usage, a setting or variable that is not valid, a file that cannot be used or output
that cannot be written, with the message on standard error. ``run`` and ``profile`` end
as their program does; ``batch`` with 1 where a task has failed, ``shards`` where a part
has, and ``diagnose`` where something is as severe as ``--fail-on`` says. 130 after
Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys

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
    try:
        answer = given.run(given)
        text, status = answer if isinstance(answer, tuple) else (answer, 0)
        if text:
            streams.write(text)
    except InsufficientMemoryError as error:
        streams.complain(f"coresize: error: {error}")
        return 1
    except CoresizeError as error:
        streams.complain(f"coresize: error: {error}")
        return 2
    except KeyboardInterrupt:
        streams.complain("coresize: interrupted")
        return streams.INTERRUPTED
    return int(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coresize",
        description="Tell how many cores and how much memory this process may use, "
        "and how many workers that makes.",
        epilog="Without a command: report, with its options. "
        "Variables named CORESIZE_... change the answers: docs/reference/environment.",
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
    for command in commands.choices.values():  # whose usage is shown
        command.set_defaults(parser=command)
    return parser
