"""The sub-commands ``env`` and ``run``: variables for programs without coresize."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shlex
import shutil
import signal
import sys

from coresize.cli import options as given
from coresize.cli import streams
from coresize.detection import available
from coresize.host import current
from coresize.planning import exports
from coresize.planning.settings import VARIABLES


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from coresize.cli.options import Commands
    from coresize.host import Host

#: Signals that Python ignores.
_IGNORED = [name for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)]

_FORCE = "replace variables that are already set"


def add_env(commands: Commands, of_plan: argparse.ArgumentParser) -> None:
    """Add the sub-command ``env``."""
    text = 'print variables for other programs: eval "$(coresize env)"'
    command = commands.add_parser("env", parents=[of_plan], help=text)
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON, for programs")
    shape.add_argument(
        "--dotenv",
        action="store_true",
        help="print NAME=value lines, for docker --env-file",
    )
    command.add_argument("--force", action="store_true", help=_FORCE)
    command.set_defaults(run=_env)


def add_run(commands: Commands, of_plan: argparse.ArgumentParser) -> None:
    """Add the sub-command ``run``."""
    text = "run a program with these variables: coresize run -- Rscript analyse.R"
    command = commands.add_parser("run", parents=[of_plan], help=text)
    command.add_argument("--force", action="store_true", help=_FORCE)
    add_words(command)
    command.set_defaults(run=_run)


def add_words(command: argparse.ArgumentParser) -> None:
    """Add the argument for the command line of another program, after ``--``."""
    command.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- CMD", help="the program to run"
    )


def words_of(options: argparse.Namespace) -> list[str]:
    """The command line of the other program.

    Raises:
        SystemExit: no command line was given.
    """
    words: list[str] = options.words
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        streams.complain("coresize: error: no program is named: add -- CMD")
        raise SystemExit(2)
    return words


def cannot_start(word: str, error: OSError) -> int:
    """Report that a program cannot be started; returns the exit status of a shell."""
    streams.complain(f"coresize: error: {word}: {error.strerror}")
    return 127 if isinstance(error, FileNotFoundError) else 126


def look_for(word: str) -> int:
    """Check that a program can be started; returns 0, or as `cannot_start` does."""
    if shutil.which(word):
        return 0
    code = errno.ENOENT
    if os.path.dirname(word) and os.path.exists(word):  # noqa: PTH110, PTH120 - a word
        code = errno.EACCES
    return cannot_start(word, OSError(code, os.strerror(code)))


def _env(options: argparse.Namespace) -> str:
    machine = given.host(options)
    # The variables of a recorded machine's user are not known.
    present = os.environ if machine is current() else {}
    variables = _variables(options, machine, present)
    if options.json:
        return json.dumps(variables, indent=2)
    if options.dotenv:
        return "\n".join(f"{name}={value}" for name, value in variables.items())
    return "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in variables.items()
    )


def _run(options: argparse.Namespace) -> tuple[str, int]:
    words = words_of(options)
    # Variables that an outer `coresize run` has set are not the user's.
    present = exports.of_user(os.environ)
    variables = _variables(options, given.host(options), present)
    environment = exports.marked(os.environ, variables)
    try:
        if sys.platform == "win32":  # there, exec returns no result to the caller
            import subprocess

            done = subprocess.run(words, env=environment, check=False)  # noqa: S603
            return "", done.returncode
        # A program inherits ignored signals; `CMD | head` would not end.
        for name in _IGNORED:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.execvpe(words[0], words, environment)  # noqa: S606 - as the user asked
    except OSError as error:
        for name in _IGNORED:  # the error may have no reader
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        return "", cannot_start(words[0], error)


def _variables(
    options: argparse.Namespace, machine: Host, present: Mapping[str, str]
) -> dict[str, str]:
    """The variables to set: all, without those that the user has set."""
    settings = given.settings_of(options, machine)
    plan = given.plan_of(options, available.detect(machine), settings)
    for warning in plan.warnings:
        streams.complain(f"coresize: warning: {warning}")
    alone = not given.is_planned(options) and settings.workers is None
    variables = exports.variables(plan, alone=alone)
    wanted = exports.wanted(variables, present, force=options.force)
    if settings.reserve_cores:  # they are subtracted already
        wanted[VARIABLES["reserve_cores"]] = "0"
    return wanted
