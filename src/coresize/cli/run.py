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
from pathlib import Path
from random import SystemRandom

from coresize.cli import options as given
from coresize.cli import streams
from coresize.detection import available, topology
from coresize.detection.limits import whole_cores
from coresize.detection.parse import format_cpu_list
from coresize.host import current
from coresize.model import Value
from coresize.planning import exports, overrides, pinning
from coresize.planning.settings import VARIABLES
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coresize.cli.options import Commands
    from coresize.host import Host
    from coresize.model import Limits
    from coresize.planning.settings import Settings
    from coresize.planning.values import WorkerPlan

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
    command.add_argument(
        "--pin",
        action="store_true",
        help="bind the program to as many CPUs as the limit has, for programs that "
        "read no variable",
    )
    command.add_argument(
        "--python",
        action=argparse.BooleanOptionalAction,
        help="--no-python leaves PYTHONPATH alone; Python below 3.13 then does not "
        "obey PYTHON_CPU_COUNT",
    )
    command.add_argument("-q", "--quiet", action="store_true", help="print only errors")
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
    decided = _decide(options, machine)
    for warning in decided.plan.warnings:
        streams.complain(f"coresize: warning: {warning}")
    variables = _variables(options, decided, present)
    if options.json:
        return json.dumps(variables, indent=2)
    if options.dotenv:
        return "\n".join(f"{name}={value}" for name, value in variables.items())
    return "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in variables.items()
    )


def _run(options: argparse.Namespace) -> tuple[str, int]:
    words = words_of(options)
    machine = given.host(options)
    decided = _decide(options, machine)
    say = (lambda _text: None) if options.quiet else streams.complain
    _tell(decided, machine, say)
    # Variables that an outer `coresize run` has set are not the user's.
    present = exports.of_user(os.environ)
    changes = _variables(options, decided, present)
    environment = _reaching_python(changes, on=decided.settings.python)
    if options.pin:
        _pin(decided, say)
    return _become(words, environment)


def _become(words: list[str], environment: dict[str, str]) -> tuple[str, int]:
    """Replace this process with the program."""
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


class _Decided(Value):
    """What is known before the program starts."""

    settings: Settings
    limits: Limits
    plan: WorkerPlan


def _decide(options: argparse.Namespace, machine: Host) -> _Decided:
    settings = given.settings_of(options, machine)
    limits = available.detect(machine)
    plan = given.plan_of(options, limits, settings)
    return _Decided(settings=settings, limits=limits, plan=plan)


def _tell(decided: _Decided, machine: Host, say: Callable[[str], object]) -> None:
    """Log what is overridden: the log of a container may be all that its owner has."""
    present = machine.variables(overrides.NAMES)
    for _, note in overrides.notes(decided.limits, decided.settings, present):
        say(f"coresize: {note}")
    for warning in (*decided.limits.warnings, *decided.plan.warnings):
        say(f"coresize: warning: {warning}")


def _variables(
    options: argparse.Namespace, decided: _Decided, present: Mapping[str, str]
) -> dict[str, str]:
    """The variables to set: all, without those that the user has set."""
    settings = decided.settings
    alone = not given.is_planned(options) and settings.workers is None
    variables = exports.variables(decided.plan, alone=alone)
    wanted = exports.wanted(variables, present, force=options.force)
    if settings.reserve_cores:  # they are subtracted already
        wanted[VARIABLES["reserve_cores"]] = "0"
    return wanted


# -----------------------------------------------------------------------------
# Programs that read no variable.


def _reaching_python(changes: dict[str, str], *, on: bool) -> dict[str, str]:
    """The environment with changes, and a path by which Python below 3.13 obeys them.

    See `coresize.cli.startup.sitecustomize`.
    """
    switch = VARIABLES["python"]
    if not on:  # an outer run may have changed the path
        return exports.marked(os.environ, {**changes, switch: "off"})
    environment = exports.marked(os.environ, changes)
    environment.pop(switch, None)
    if (_STARTUP / "sitecustomize.py").is_file():  # not in a zip archive
        present = environment.get("PYTHONPATH", "")
        path = exports.python_path(present, str(_STARTUP), os.pathsep)
        environment["PYTHONPATH"] = path
    return environment


_STARTUP = Path(__file__).resolve().parent / "startup"

_COST = (
    "it cannot move to an idle CPU, and with a quota it may wait on a busy one; leave "
    "--pin out for a program that reads its variables or the quota"
)


def _pin(decided: _Decided, say: Callable[[str], object]) -> None:
    """Bind this process, which becomes the program, to as many CPUs as it may use."""
    if not hasattr(os, "sched_setaffinity"):
        say("coresize: warning: --pin has no effect: this platform has no affinity")
        return
    settings = decided.settings
    count = whole_cores(
        decided.limits.cpu.limit,
        rounding=settings.rounding,
        reserve=settings.reserve_cores,
    )
    if decided.plan.binding == "parallel":
        count = 1
    allowed = os.sched_getaffinity(0)
    if count >= len(allowed):
        most = format_count(len(allowed), "CPU")
        say(f"coresize: --pin changes nothing: only {most} may be used anyway")
        return
    machine = current()
    chosen = pinning.choose(
        allowed,
        count,
        cores=topology.cores(machine, allowed),
        nodes=topology.nodes(machine),
        random=SystemRandom().random,
    )
    try:
        os.sched_setaffinity(0, chosen)
    except OSError as error:  # forbidden, or the CPUs have just gone
        say(f"coresize: warning: --pin has no effect: {error.strerror}")
        return
    word = "CPU" if count == 1 else "CPUs"
    say(f"coresize: bound to {word} {format_cpu_list(chosen)} (--pin): {_COST}")
