"""The sub-command ``batch``: runs a function on items, with a settings file."""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal

from coresize.batch.exit_codes import ExitCode
from coresize.batch.options import OPTIONS
from coresize.cli import options, streams
from coresize.errors import CoresizeError
from coresize.interrupts import Signals
from coresize.planning.settings import VARIABLES, load_settings
from coresize.planning.values import DEFAULT
from coresize.texts import one_line
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from coresize.batch.outcomes import Outcome
    from coresize.batch.run import BatchRun
    from coresize.cli.options import Commands

#: The most failures that are named at the end.
_NAMED = 10

#: The errors if neither the command line nor the file has an option.
_NEEDED = {
    "function": "no function is named: give it on the command line, or as `function` "
    "in the file of --config",
    "items": "no items are named: give --items, or `items` in the file of --config",
}


def add_batch(commands: Commands) -> None:
    """Add the sub-command ``batch``."""
    text = "run a function on items: coresize batch tasks:run --items cases.jsonl"
    command = commands.add_parser("batch", help=text)
    command.add_argument("function", nargs="?", help="the function: module:name")
    options.add(command, OPTIONS, strict=False)
    command.add_argument(
        "--workers", type=int, dest="old_workers", help=argparse.SUPPRESS
    )
    command.add_argument(
        "--config", metavar="FILE", help="a settings file, TOML or YAML"
    )
    command.set_defaults(run=_batch, too_large=ExitCode.OUT_OF_MEMORY)


def _batch(words: argparse.Namespace) -> tuple[str, int]:
    from coresize.batch.outcomes import BAD

    given = _merged(words)
    signals = Signals()
    failures: list[Outcome] = []
    try:
        with _begin(given) as run:
            for outcome in run:
                if not outcome.ok and len(failures) < _NAMED:
                    failures.append(outcome)
                if "journal" not in given and not streams.write(_line(outcome)):
                    signals.stop(streams.NO_READER)
    except KeyboardInterrupt:
        streams.complain(f"coresize: stopped{_how_to_go_on(given, signals)}")
        return "", _status_after(given, signals)
    for outcome in failures:
        what = one_line(f"{outcome.key}: {outcome.message}")
        streams.complain(f"{outcome.status}: {what}")
    report = run.report
    if report.failed:
        whole = report.failed if report.total is None else report.total
        of = "" if report.total is None else f"{report.failed} of "
        tasks = f"{of}{format_count(whole, 'task')} {'has' if whole == 1 else 'have'}"
        again = ",".join(name for name in BAD if report.counts.get(name))
        hint = f"; --retry {again} runs them again" if "journal" in given else ""
        streams.complain(f"coresize: {tasks} failed{hint}")
    return "", report.exit_code


def _status_after(given: dict[str, Any], signals: Signals) -> int:
    """The exit status of a batch that was stopped.

    A scheduler sends SIGTERM, and asks by the status what to do; a person presses
    Ctrl-C, and shells end their loops and scripts after 130 alone.
    """
    if signals.number == signal.SIGTERM and "journal" in given:
        return ExitCode.CONTINUE
    return signals.status


def _how_to_go_on(given: dict[str, Any], signals: Signals) -> str:
    if "journal" in given:
        return "; run the same command again to continue"
    if signals.number == streams.NO_READER:
        return ": nobody reads standard output any more; --journal FILE keeps results"
    return ""


def _merged(words: argparse.Namespace) -> dict[str, Any]:
    """The options that are set, by name: the command line overrides the file."""
    from coresize.cli import batch_config

    _read_old_name(words)
    given: dict[str, Any] = {}
    if words.config is not None:
        given, notes = batch_config.load(words.config)
        for note in notes:
            streams.complain(f"coresize: note: {note}")
    given.update(batch_config.check_words(vars(words)))
    if words.parallel is not None:  # it overrides the variable, too
        os.environ[VARIABLES["parallel"]] = str(int(words.parallel))
    for name, text in _NEEDED.items():
        if name not in given:
            raise CoresizeError(text)
    return given


def _read_old_name(words: argparse.Namespace) -> None:
    """Read ``--workers``, the older name, as ``--max-workers``, with a note."""
    if words.old_workers is None:
        return
    if words.max_workers is not None:
        words.parser.error(
            "--workers cannot be used with --max-workers: use the latter"
        )
    words.max_workers = words.old_workers
    streams.complain("coresize: note: --workers is read as --max-workers")


def _begin(given: dict[str, Any]) -> BatchRun[Any]:
    from coresize.batch.run import run_batch
    from coresize.cli import batch_sources

    arguments = dict(given)
    function = batch_sources.load_function(arguments.pop("function"))
    items = batch_sources.read_items(arguments.pop("items"))
    parameters = arguments.pop("parameters", None)
    if parameters:
        function = functools.partial(function, **parameters)
    if not _is_parallel(arguments.pop("parallel", None)):
        arguments["executor"] = "serial"
        for name in ("timeout", "memory"):  # a task in this process cannot be ended
            arguments.pop(name, None)
    return run_batch(function, items, progress=True, **arguments)


def _is_parallel(given: bool | None) -> bool:  # noqa: FBT001 - None is not given
    """Whether tasks run in parallel: the environment overrides the file."""
    settings = load_settings()
    if settings.origins["parallel"] != DEFAULT or given is None:
        return settings.parallel
    return given


def _line(outcome: Outcome) -> str:
    """An outcome as JSON, for programs."""
    content = outcome.as_dict()
    content["error"] = outcome.message or None
    return json.dumps(content, default=repr)
