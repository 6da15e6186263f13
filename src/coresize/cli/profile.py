"""The sub-command ``profile``: what a command needs."""

from __future__ import annotations

import json

from coresize import report
from coresize.cli import programs, streams


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands


def add_profile(commands: Commands) -> None:
    """What a command needs, by running it."""
    text = "run a command and measure it: coresize profile -- python step.py"
    command = commands.add_parser("profile", help=text)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument(
        "--save", metavar="NAME", help="keep it, for workers --profile NAME"
    )
    command.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="how often (default: 1)"
    )
    command.add_argument(
        "--method", metavar="HOW", help="cgroup, proc or psutil (default: the best)"
    )
    programs.add_words(command)
    command.set_defaults(run=_profile)


def _profile(options: argparse.Namespace) -> tuple[str, int]:
    from coresize import measuring, profile_files
    from coresize.measuring.commands import measure_command
    from coresize.measuring.runs import summarize

    words = programs.words_of(options)
    runs = []
    try:
        for _ in range(measuring.times(options.repeat)):
            runs.append(measure_command(words, options.method))
            if runs[-1].exit_code:
                break
    except OSError as error:
        return "", programs.cannot_start(words[0], error)
    except KeyboardInterrupt:
        return "", 130
    code = runs[-1].exit_code
    profile = summarize(runs)
    if options.save and code:
        streams.complain("coresize: warning: the command failed: nothing is saved")
    elif options.save:
        path = profile_files.save_profile(profile, options.save)
        streams.complain(f"coresize: saved to {path}")
    status = code if code >= 0 else 128 - code
    if options.json:
        return json.dumps(report.profile_as_json(profile, code), indent=2), status
    return report.profile_as_text(profile, code), status
