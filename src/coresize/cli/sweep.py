"""The sub-command ``sweep``: which number of workers is best here."""

from __future__ import annotations

import json

from coresize.cli import programs, streams
from coresize.errors import ConfigError


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from coresize.cli.options import Commands
    from coresize.sweeping.result import SweepResult


def add_sweep(commands: Commands) -> None:
    """The best number of workers, by trying."""
    text = "find the best number of workers: coresize sweep -- CMD -j {workers}"
    command = commands.add_parser("sweep", help=text)
    command.add_argument(
        "--workers", default="auto", metavar="1,2,4", help="the counts (default: auto)"
    )
    command.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="rounds (default: 3)"
    )
    command.add_argument(
        "--from",
        dest="points",
        metavar="FILE",
        help='points measured elsewhere, as JSON: {"2": 82.98, "5": 153.94}',
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument("--plot", metavar="FILE", help="a picture, .png or .svg")
    command.add_argument(
        "--save", metavar="NAME", help="keep it, for plan_workers(profile=NAME)"
    )
    programs.add_words(command)
    command.set_defaults(run=_sweep)


def _sweep(options: argparse.Namespace) -> tuple[str, int]:
    from coresize import available

    if options.points:
        result = _from_file(options.points)
    else:
        from coresize.sweeping.sweep import sweep_command

        words = programs.words_of(options)
        try:
            result = sweep_command(
                words,
                _counts(options.workers),
                repeat=options.repeat,
                progress=lambda line: streams.complain(f"coresize: {line}"),
            )
        except OSError as error:
            return "", programs.cannot_start(words[0], error)
    if options.plot:
        from coresize.sweeping.plot import plot

        plot(result, options.plot, cores=available.available_cores())
    if options.save:
        from coresize.sweeping.saving import save

        streams.complain(f"coresize: saved to {save(result, options.save)}")
    return result.as_json() if options.json else str(result), 0


def _counts(text: str) -> list[int] | str:
    if text == "auto":
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        allowed = '"auto", or whole numbers above 0, such as 1,2,4'
        raise ConfigError("--workers", text, allowed) from None


def _from_file(path: str) -> SweepResult:
    from coresize import storage
    from coresize.sweeping.result import from_points

    try:
        points = json.loads(streams.read() if path == "-" else storage.read(path))
    except OSError as error:
        allowed = f"the path of a file ({error.strerror})"
        raise ConfigError("--from", path, allowed) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError("--from", path, f"valid JSON ({error})") from None
    if not isinstance(points, dict):
        raise ConfigError("--from", points, 'a mapping such as {"2": 82.98}')
    return from_points(points, path)
