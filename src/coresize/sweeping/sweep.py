"""Try several numbers of workers, and recommend one."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from coresize.arguments import check_seconds
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

#: Beyond the cores it is looked a little, to see the fall.
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
    """Which number of workers is best for a function here, by trying.

    First the sample is run serially. Then each count runs it, several times, in turns
    that go up and down, so that a drift of the machine favours none; workers are
    started before the clock is. A count where some tasks fail, or are killed for
    memory, is a row that says so. The recommendation is the smallest count within 5 %
    of the best, never more than fit into memory (unmeasured only where no count that
    was measured fits); the reason says what three rounds or more do not tell apart.

    Args:
        fn: what is called with each item.
        sample: items like those of the real work; it is run several times.
        workers: the counts, in order until throughput has fallen by more than 5 % for
            two running; the reason names those that were left out. "auto" goes up to
            one and a half times the cores, at least four.
        executor: "process" or "thread".
        repeat: rounds.
        seconds: so long each count is watched in a round, at least; more tell better.
        timeout: seconds that one task may take; only with "process".
        progress: called with a line now and then.

    Raises:
        ConfigError: an argument is not valid.
        CoresizeError: with no count all tasks ended well, or all pools are serial
            (CORESIZE_PARALLEL=0).
        TransferError: the function cannot be sent to another process.

    What the function itself raises when it is run serially is raised.

    Sources: the law that is fitted is the Universal Scalability Law (Gunther 2008,
    arXiv:0808.1431), by least squares; rounds tell counts apart by the notches of box
    plots (McGill, Tukey, Larsen 1978).

    >>> import time
    >>> from coresize import sweep
    >>> result = sweep(time.sleep, [0.01], [1, 4], "thread", repeat=1, seconds=0.1)
    >>> list(result.points), result.recommended in result.points
    ([1, 4], True)
    """
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
    """A sweep of a command, with {workers} in it, yet to be run.

    Args:
        words: the program and its arguments.
        workers: as of `sweep`.
        repeat: rounds.
        timeout: seconds that one run may take.
        progress: called with a line now and then.

    Raises:
        ConfigError: an argument is not valid.
    """
    if timeout is not None:
        check_seconds("timeout", timeout)
    subject = Commands(words, timeout)
    return Rounds(subject, _counts(workers), repeat=repeat, progress=progress)


def _counts(workers: Iterable[int] | str) -> list[int]:
    """The counts in order, checked."""
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
