"""The sub-commands ``env`` and ``run``: the answer for programs that do not ask."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys

from coresize import available, exports
from coresize.cli import options as given
from coresize.cli import streams
from coresize.host import current
from coresize.policy import memory_budget, whole_cores


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.cli.options import Commands

_FORCE = "replace what is set already, too"


def add_env(commands: Commands, of_plan: argparse.ArgumentParser) -> None:
    """The variables that other programs read."""
    text = 'variables for other programs: eval "$(coresize env)"'
    command = commands.add_parser("env", parents=[of_plan], help=text)
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON, for programs")
    shape.add_argument(
        "--dotenv", action="store_true", help="NAME=value, for docker --env-file"
    )
    command.add_argument("--force", action="store_true", help=_FORCE)
    command.set_defaults(run=_env)


def add_run(commands: Commands, of_plan: argparse.ArgumentParser) -> None:
    """Another program, with these variables."""
    text = "run a program with them: coresize run -- Rscript analyse.R"
    command = commands.add_parser("run", parents=[of_plan], help=text)
    command.add_argument("--force", action="store_true", help=_FORCE)
    add_words(command)
    command.set_defaults(run=_run)


def add_words(command: argparse.ArgumentParser) -> None:
    """The command line of another program, after ``--``."""
    command.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- CMD", help="the program to run"
    )


def words_of(options: argparse.Namespace) -> list[str]:
    """That command line.

    Raises:
        SystemExit: there is none.
    """
    words: list[str] = options.words
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        streams.complain("coresize: error: no program is named: add -- CMD")
        raise SystemExit(2)
    return words


def cannot_start(word: str, error: OSError) -> int:
    """Say that a program cannot be started; returns the shell's exit status for it."""
    streams.complain(f"coresize: error: {word}: {error.strerror}")
    return 127 if isinstance(error, FileNotFoundError) else 126


def _env(options: argparse.Namespace) -> str:
    variables = _variables(options)
    if options.json:
        return json.dumps(variables, indent=2)
    if options.dotenv:
        return "\n".join(f"{name}={value}" for name, value in variables.items())
    return "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in variables.items()
    )


def _run(options: argparse.Namespace) -> tuple[str, int]:
    words = words_of(options)
    environment = {**os.environ, **_variables(options)}
    try:
        if sys.platform == "win32":  # there exec leaves the caller without a result
            done = subprocess.run(words, env=environment, check=False)  # noqa: S603
            return "", done.returncode
        os.execvpe(words[0], words, environment)  # noqa: S606 - as the user asked
    except OSError as error:
        return "", cannot_start(words[0], error)


def _variables(options: argparse.Namespace) -> dict[str, str]:
    """What is to be set: all, less what the user has set."""
    machine = given.host(options)
    settings = given.settings_of(options, machine)
    limits = available.detect(machine)
    cores = whole_cores(
        limits.cpu.limit, rounding=settings.rounding, reserve=settings.reserve_cores
    )
    planned = any(
        getattr(options, name) is not None
        for name in ("memory", "cpus", "gpus", "profile", "kind", "tasks")
    )
    plan = given.plan_of(options, limits, settings)
    for warning in plan.warnings:
        streams.complain(f"coresize: warning: {warning}")
    alone = not planned and plan.binding == "cpu"
    variables = exports.variables(
        workers=plan.workers,
        threads=cores if alone else plan.threads_per_worker,
        memory=memory_budget(limits.memory, settings.memory_fraction)
        if alone
        else plan.memory_per_worker,
    )
    present = dict(os.environ) if machine is current() else {}
    return exports.wanted(variables, present, force=options.force)
