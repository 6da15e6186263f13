"""Try several numbers of workers, and recommend one."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from coresize.arguments import check_seconds, check_sync
from coresize.detection import available
from coresize.errors import ConfigError
from coresize.sweeping.commands import Commands
from coresize.sweeping.functions import Calls
from coresize.sweeping.rounds import Rounds


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from coresize.sweeping.result import SweepResult

AUTO = "auto"
_SERIES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

#: The greatest automatic count, as a multiple of the cores, so that the fall shows.
_BEYOND = 1.5


def sweep(
    fn: Callable[[Any], object],
    sample: Iterable[Any],
    workers: Iterable[int] | str = AUTO,
    executor: str = "process",
    *,
    repeat: int = 3,
    seconds: float = 0.5,
    timeout: float | None = None,
    progress: Callable[[str], object] | None = None,
) -> SweepResult:
    """Find the best number of workers for a function on this machine, by trying.

    First the sample runs serially. Then it runs with each count, in several rounds that
    alternately go up and down, so that a drift of the machine favours no count. The
    start of workers is not timed. Tasks that fail serially as well count as done. If
    more tasks fail with a count, or are killed for memory, the row of that count says
    so. The recommendation is the smallest count within 5 %
    of the best, and never more than fit into memory (it is unmeasured only if no
    measured count fits). With three rounds or more, the reason also names the counts
    that the rounds do not distinguish.

    Args:
        fn: the function to call with each item.
        sample: items like those of the real work; each runs several times.
        workers: the counts to try in order, until throughput has fallen by more than
            5 % twice in a row; the reason names the counts that were left out. "auto"
            goes up to one and a half times the cores, at least four.
        executor: "process" or "thread".
        repeat: the number of rounds.
        seconds: the least time to watch each count in a round; a longer time gives
            better results.
        timeout: seconds that one task may take; only with "process".
        progress: called with a line of text before each trial, such as `print`.

    Raises:
        ConfigError: an argument is not valid.
        TypeError: ``progress`` is not callable.
        CoresizeError: no count completed all tasks, or all pools are serial
            (CORESIZE_PARALLEL=0).
        TransferError: the function cannot be sent to another process.

    If every task fails in the serial run, the first error is raised as well.

    Sources: the fitted law is the Universal Scalability Law (Gunther 2008,
    arXiv:0808.1431), by least squares; rounds distinguish counts by the notches of box
    plots (McGill, Tukey, Larsen 1978).

    >>> import time
    >>> from coresize import sweep
    >>> result = sweep(time.sleep, [0.01], [1, 4], "thread", repeat=1, seconds=0.1)
    >>> list(result.points), result.recommended in result.points
    ([1, 4], True)
    """
    check_sync(fn)
    check_seconds("seconds", seconds)
    if timeout is not None:
        check_seconds("timeout", timeout)
    subject = Calls(fn, sample, executor, seconds, timeout)
    return Rounds(subject, _counts(workers), repeat=repeat, progress=progress).run()


def rounds_of_command(
    words: Sequence[str],
    workers: Iterable[int] | str = AUTO,
    *,
    repeat: int = 3,
    timeout: float | None = None,
    progress: Callable[[str], object] | None = None,
) -> Rounds:
    """A sweep of a command, ready to run.

    Args:
        words: the program and its arguments, with {workers} among them.
        workers: the counts to try, as for `sweep`.
        repeat: the number of rounds.
        timeout: seconds that one run may take.
        progress: called with a line of text before each trial.

    Raises:
        ConfigError: an argument is not valid.
    """
    if timeout is not None:
        check_seconds("timeout", timeout)
    subject = Commands(words, timeout)
    return Rounds(subject, _counts(workers), repeat=repeat, progress=progress)


def _counts(workers: Iterable[int] | str) -> list[int]:
    """Check the counts, and return them in order."""
    if isinstance(workers, str):
        if workers == AUTO:
            most = max(4, int(available.available_cores() * _BEYOND))
            return [count for count in _SERIES if count <= most]
        raise ConfigError("workers", workers, '"auto", or whole numbers above 0')
    try:
        counts = sorted({operator.index(count) for count in workers})
    except TypeError:
        counts = []
    if not counts or counts[0] < 1:
        raise ConfigError("workers", workers, '"auto", or whole numbers above 0')
    return counts
