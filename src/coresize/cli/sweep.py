"""The sub-command ``sweep``: finds the best number of workers here."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path

from coresize.cli import profile, run, streams
from coresize.detection import available
from coresize.errors import ConfigError, CoresizeError
from coresize.interrupts import Signals
from coresize.texts import decode


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands
    from coresize.sweeping.result import SweepResult
    from coresize.sweeping.rounds import Rounds


def add_sweep(commands: Commands) -> None:
    """Add the sub-command ``sweep``."""
    text = "find the best number of workers: coresize sweep -- CMD -j {workers}"
    command = commands.add_parser("sweep", help=text)
    command.add_argument(
        "--workers", metavar="1,2,4", help="numbers of workers to try (default: auto)"
    )
    command.add_argument("--repeat", type=int, metavar="N", help="rounds (default: 3)")
    command.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="time limit of one run"
    )
    command.add_argument(
        "--from",
        dest="points",
        metavar="FILE",
        help='use measured points, as JSON: {"2": 82.98, "5": 153.94}',
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument(
        "--plot", metavar="FILE", help="write a plot: .png, .svg, .pdf"
    )
    command.add_argument(
        "--save", metavar="NAME", help="save the result, for plan_workers(profile=NAME)"
    )
    run.add_words(command)
    command.set_defaults(run=_sweep)


def _sweep(options: argparse.Namespace) -> tuple[str, int]:
    _check(options)
    if options.points is not None:
        return _rendered(_from_file(options.points), options)
    from coresize.sweeping.sweep import rounds_of_command

    words = run.words_of(options)
    rounds = rounds_of_command(
        words,
        "auto" if options.workers is None else _counts(options.workers),
        repeat=3 if options.repeat is None else options.repeat,
        timeout=options.timeout,
        progress=lambda line: streams.complain(f"coresize: {line}"),
    )
    signals = Signals()
    try:
        result = rounds.run()
    except OSError as error:
        return "", run.cannot_start(words[0], error)
    except KeyboardInterrupt:
        return _so_far(rounds, options), signals.status
    return _rendered(result, options)


def _check(options: argparse.Namespace) -> None:
    """Check all options before anything is measured."""
    more = list(takewhile(str.isdigit, options.words))
    if more and options.workers is not None:
        counts = ",".join([options.workers, *more])
        options.parser.error(f"separate the numbers by commas: --workers {counts}")
    if options.points is not None:
        for name in _OF_TRIALS:
            if getattr(options, name) is not None:
                options.parser.error(f"--{name} cannot be used with --from")
        if options.words:
            options.parser.error("--from takes no CMD: its points are already measured")
    if options.plot is not None:
        from coresize.sweeping import plot

        plot.check(options.plot, "--plot")
    if options.save is not None:
        from coresize.planning import profile_files

        profile_files.check_name(options.save, "--save")


#: The options for trials.
_OF_TRIALS = ("workers", "repeat", "timeout")


def _so_far(rounds: Rounds, options: argparse.Namespace) -> str:
    """The result before the interrupt; it is neither saved nor plotted."""
    try:
        return _text(rounds.result(interrupted=True), options)
    except CoresizeError as error:
        streams.complain(f"coresize: interrupted: {error}")
        return ""


def _rendered(result: SweepResult, options: argparse.Namespace) -> tuple[str, int]:
    """The result and the status; the result is printed even if it cannot be saved."""
    status = 0
    if options.plot is not None:
        status = _draw(result, options.plot)
    if options.save is not None:
        status = profile.keep(result.profile, options.save) or status
    return _text(result, options), status


def _draw(result: SweepResult, path: str) -> int:
    from coresize.sweeping.plot import plot

    try:
        # Points from a file may have been measured on another machine.
        here = result.serial is not None
        plot(result, path, cores=available.available_cores() if here else None)
    except CoresizeError as error:
        streams.complain(f"coresize: error: {error}")
        return 2
    streams.complain(f"coresize: plot written to {path}")
    return 0


def _text(result: SweepResult, options: argparse.Namespace) -> str:
    return result.as_json() if options.json else str(result)


def _counts(text: str) -> list[int] | str:
    """The numbers of workers in a text, or "auto"."""
    if text == "auto":
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        allowed = '"auto", or whole numbers above 0, such as 1,2,4'
        raise ConfigError("--workers", text, allowed) from None


def _from_file(path: str) -> SweepResult:
    from coresize.sweeping.result import from_points

    try:
        text = streams.read() if path == "-" else decode(Path(path).read_bytes())
        points = json.loads(text)
    except OSError as error:
        allowed = f"the path of a file ({error.strerror})"
        raise ConfigError("--from", path, allowed) from None
    except UnicodeError as error:
        raise ConfigError("--from", path, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError("--from", path, f"valid JSON ({error})") from None
    if not isinstance(points, dict):
        raise ConfigError("--from", points, 'a mapping such as {"2": 82.98}')
    return from_points(points, "standard input" if path == "-" else path)
