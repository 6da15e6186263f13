"""The sub-commands for a batch in shards: ``shards``, ``status``, ``merge``."""

from __future__ import annotations

import argparse
import functools
import time

from coresize.batch.exit_codes import ExitCode
from coresize.cli import cluster_options, run, streams
from coresize.errors import CoresizeError
from coresize.interrupts import Signals
from coresize.processes import exits
from coresize.texts import format_left, one_line
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.cli.options import Commands
    from coresize.launch.local import Launcher, ShardProcess

#: Seconds between two tables: at a terminal, and elsewhere while no state changes.
_OFTEN, _SELDOM = 1.0, 60.0


def add_shards(commands: Commands) -> None:
    """Add the sub-command ``shards``."""
    text = "run all shards of a batch, here or on a cluster: coresize shards 4 -- CMD"
    of_parts = _options()
    command = commands.add_parser("shards", parents=[of_parts], help=text)
    command.add_argument(
        "count", type=_number, metavar="N", nargs="?", help="number of shards"
    )
    run.add_words(command)
    command.set_defaults(
        run=functools.partial(_shards, of_parts), too_large=ExitCode.OUT_OF_MEMORY
    )


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        msg = f"{text!r} is no number of shards: N comes before -- CMD"
        raise argparse.ArgumentTypeError(msg) from None


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coresize shards", add_help=False)
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="memory of one shard: run as many shards at a time as fit",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="run at most N shards at a time (default: all)",
    )
    parser.add_argument(
        "--logs",
        metavar="DIR",
        help="folder for the log of each shard (default: shards)",
    )
    parser.add_argument(
        "--retry-oom",
        action="store_true",
        help="run shards that were killed for memory, and tasks in them that were, "
        "again, one shard at a time, at the end",
    )
    cluster_options.add_options(parser)
    return parser


def add_status(commands: Commands) -> None:
    """Add the sub-command ``status``."""
    text = "show the progress of batches: coresize status out-*.sqlite"
    command = commands.add_parser("status", help=text)
    command.add_argument("paths", nargs="+", metavar="PATH", help="journals")
    command.add_argument(
        "--watch", action="store_true", help="repeat until all batches have ended"
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(run=_status)


def add_merge(commands: Commands) -> None:
    """Add the sub-command ``merge``."""
    text = "merge the journals of all shards: coresize merge out-*.sqlite -o all.csv"
    command = commands.add_parser("merge", help=text)
    command.add_argument("paths", nargs="+", metavar="JOURNAL", help="journals")
    command.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the output: a journal, or a .jsonl or .csv file",
    )
    command.add_argument(
        "--allow-partial", action="store_true", help="allow missing shards and tasks"
    )
    command.add_argument(
        "--allow-pickle",
        action="store_true",
        help="unpickle values, which runs code of whoever wrote the journal",
    )
    command.add_argument(
        "--csv-safe",
        action="store_true",
        help="write an apostrophe before strings that look like formulas",
    )
    command.set_defaults(run=_merge)


# --- shards -------------------------------------------------------------------


def _shards(
    of_parts: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[str, int]:
    from coresize.launch.local import Launcher

    if options.words[:1] and options.words[0].startswith("-"):
        # argparse takes all words after N for the command line of the program.
        end = (*options.words, "--").index("--")
        of_parts.parse_args(options.words[:end], options)
        options.words = options.words[end:]
    if options.on:
        from coresize.cli import array_jobs

        return "", array_jobs.launch(options)
    cluster_options.check_local(options)
    if options.count is None:
        options.parser.error("the following arguments are required: N")
    launcher = Launcher(
        options.count,
        run.words_of(options),
        logs=cluster_options.logs_of(options),
        memory=options.memory,
        at_once=options.at_once,
        retry_oom=options.retry_oom,
    )
    missing = run.look_for(launcher.parts[0].words[0])
    if missing:  # every shard would fail
        return "", missing
    view = _View(launcher)
    code = launcher.run(view.show)
    view.show(last=True)
    again = [part for part in launcher.parts if part.state != "done"]
    if again:
        streams.complain("coresize: to resume the shards that have not succeeded:")
        for part in again:
            streams.complain(f"  {part.resume}")
        if any(part.progress().get("failed") for part in again):
            streams.complain(_FAILED)
    return "", code


class _View:
    """The table of the shards; at a terminal, each table overwrites the last one."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._terminal = streams.is_terminal()
        self._states: list[str] = []
        self._next = 0.0
        self._shown = ""
        self._is_blind = False

    def show(self, *, last: bool = False) -> None:
        """Print the table, if that is due or a state has changed."""
        states = [part.state for part in self._launcher.parts]
        due = time.monotonic() >= self._next or (last and self._terminal)
        if not (due or states != self._states):
            return
        self._states = states
        self._next = time.monotonic() + (_OFTEN if self._terminal else _SELDOM)
        text = _table(self._launcher.parts, streams.columns())
        try:
            if self._terminal:
                self._shown = streams.redraw(self._shown, text, whole=last)
            else:
                streams.write(text)
        except CoresizeError as error:  # the shards go on without a reader
            if not self._is_blind:
                streams.complain(f"coresize: warning: {error}")
            self._is_blind = True


_FAILED = (
    "coresize: these commands skip tasks that have failed, unless told to retry them: "
    'run_batch(retry=("failed", ...)), or coresize batch --retry failed'
)

_HEAD = ("SHARD", "STATE", "PID", "DONE", "FAILED", "ETA", "TIME", "PEAK", "LOG")


def _table(parts: list[ShardProcess], most: int | None) -> str:
    from coresize.batch.journal.overview import columns

    return columns([_HEAD, *(_cells(part) for part in parts)], most)


def _cells(part: ShardProcess) -> tuple[str, ...]:
    told = part.progress()
    done, total, eta = (told.get(name) for name in ("done", "total", "eta"))
    state = part.state
    if part.code and state in ("failed", "oom"):
        how = str(part.code)
        if state == "failed" and part.code < 0:
            state, how = "killed", exits.signal_name(-part.code)
        state = f"{state} ({how})"
    running = part.state == "running"
    return (
        part.shard,
        state,
        str(part.pid) if running else "-",
        "-" if done is None else f"{done}" if total is None else f"{done}/{total}",
        str(told.get("failed", "-")),
        format_left(eta) if running and eta is not None else "-",
        format_left(part.seconds),
        format_bytes(part.peak) if part.peak else "-",
        part.log,
    )


# --- status and merge -----------------------------------------------------------


def _status(options: argparse.Namespace) -> str | tuple[str, int]:
    import json

    from coresize.batch.journal import overview

    shown = ""
    while True:
        paths = overview.journals_of(options.paths) or options.paths
        rows = [overview.look(path) for path in paths]
        if options.json:
            text = json.dumps([row.as_dict() for row in rows], indent=2)
        else:
            text = overview.table(rows, streams.columns())
        going = any(row.state in ("running", "starting") for row in rows)
        last = not (options.watch and going)
        if options.watch and streams.is_terminal():
            shown = streams.redraw(shown, text, whole=last)
            text = ""
        if last:
            return text
        if text and not streams.write(text + "\n"):
            return "", 128 + streams.NO_READER
        time.sleep(_OFTEN)


def _merge(options: argparse.Namespace) -> tuple[str, int]:
    from coresize.batch.journal.merge import merge
    from coresize.errors import MergeError

    signals = Signals()  # an interrupt removes a half-written file
    try:
        merged = merge(
            options.paths,
            options.output,
            allow_partial=options.allow_partial,
            allow_pickle=options.allow_pickle,
            csv_safe=options.csv_safe,
        )
    except KeyboardInterrupt:
        streams.complain("coresize: interrupted: nothing is written")
        return "", signals.status
    except MergeError as error:
        for problem in error.problems:
            streams.complain(f"coresize: {problem}")
        more = "; --allow-partial merges what there is" if error.partial else ""
        msg = f"nothing is written{more}"
        raise CoresizeError(msg) from None
    for problem in merged.problems:
        streams.complain(f"coresize: warning: {problem}")
    failed = f", {merged.failed} of them failed" if merged.failed else ""
    where = one_line(merged.path)
    return f"{format_count(merged.tasks, 'task')} in {where}{failed}", 0
