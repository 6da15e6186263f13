"""The sub-command ``profile``: measures what a command needs."""

from __future__ import annotations

import json
import os

from coresize.arguments import check_count
from coresize.cli import report, run, streams
from coresize.detection import available, limits
from coresize.errors import CoresizeError
from coresize.host import Live
from coresize.interrupts import Signals
from coresize.processes import exits


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands
    from coresize.planning.profiles import TaskProfile


def add_profile(commands: Commands) -> None:
    """Add the sub-command ``profile``."""
    text = "run a command and measure it: coresize profile -- python step.py"
    command = commands.add_parser("profile", help=text)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument(
        "--save", metavar="NAME", help="save the profile, for workers --profile NAME"
    )
    command.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="number of runs (default: 1)"
    )
    command.add_argument(
        "--method",
        metavar="HOW",
        help="cgroup, proc or psutil (default: the best available)",
    )
    run.add_words(command)
    command.set_defaults(run=_profile)


def _profile(options: argparse.Namespace) -> tuple[str, int]:
    from coresize.measuring.commands import measure_command
    from coresize.measuring.runs import limit_threads, summarize
    from coresize.planning import profile_files

    words = run.words_of(options)
    if options.save is not None:
        profile_files.check_name(options.save, "--save")
    signals = Signals()
    runs = []
    try:
        for _ in range(check_count("repeat", options.repeat, 1)):
            measured = measure_command(
                words, options.method, variables=limit_threads(os.environ)
            )
            runs.append(measured)
            if runs[-1].exit_code != 0:
                break
    except OSError as error:
        return "", run.cannot_start(words[0], error)
    except KeyboardInterrupt:
        return "", signals.status
    code, profile = runs[-1].exit_code, summarize(runs)
    if options.json:
        text = json.dumps(report.profile_as_json(profile, code), indent=2)
    else:
        text = report.profile_as_text(
            profile,
            max(run.delay for run in runs),
            exits.describe(code),
            _failure(code),
        )
    status = 0 if code is None else code if code >= 0 else 128 - code
    if options.save is not None:
        status = _save(profile, options.save, status)
    return text, status


def _failure(code: int | None) -> str | None:
    """Why a profile is not reliable; None if the command has succeeded."""
    if not code:
        return None
    text = "The command failed, so this does not show what it needs"
    if exits.was_killed(code):
        limit = limits.memory_limit(available.detect(Live()))
        text = f"The command was killed, so it may need more; {limit}"
    return f"{text}."


def _save(profile: TaskProfile, name: str, status: int) -> int:
    """Save a profile, unless the command failed; returns the exit status."""
    if status:
        streams.complain("coresize: warning: the command failed: nothing is saved")
        return status
    return keep(profile, name)


def keep(profile: TaskProfile, name: str) -> int:
    """Save a profile, and print its path or the error; returns the exit status."""
    from coresize.planning import profile_files

    try:
        path = profile_files.save_profile(profile, name)
    except CoresizeError as error:
        streams.complain(f"coresize: error: {error}")
        return 2
    streams.complain(f"coresize: saved to {path}")
    return 0
