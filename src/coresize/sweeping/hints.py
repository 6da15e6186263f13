"""What a sweep says besides its advice: failures, and one hint what to do. Pure."""

from __future__ import annotations

from coresize.model import Value
from coresize.sweeping.advice import NEAR, apart
from coresize.texts import format_short


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coresize.sweeping.advice import Advice
    from coresize.sweeping.measurements import Row

#: A task shorter than this many seconds is not worth a worker if serial is faster.
_TINY = 0.001

#: A task that keeps a smaller part of a core busy mostly waits.
_WAITS = 0.2

#: The counts to try next, as multiples of the greatest measured count: for tasks that
#: compute, and for tasks that mostly wait.
_FURTHER, _FAR = (1, 2, 4), (1, 4, 16)

#: One core, and the tolerance for "about one core".
_ONE, _ROUGHLY = 1.0, 0.25

#: This many times the rounds would narrow the spread to about half.
_MORE_ROUNDS = 3


class Case(Value):
    """The measurements of a sweep, and its advice.

    Attributes:
        good: the rows of counts without errors.
        failed: the rows of counts with errors.
        serial: the baseline; None if the points were measured elsewhere.
        unit: the unit of throughput: "tasks" of a function, "runs" of a command.
        threads: whether the workers were threads of one process.
        memory_bound: workers that fit into memory; None if unknown.
        untried: the counts that were not tried because throughput fell.
        advice: the advice.
    """

    good: Sequence[Row]
    failed: Sequence[Row]
    serial: Row | None
    unit: str
    threads: bool
    memory_bound: int | None
    untried: Sequence[int]
    advice: Advice

    @property
    def top(self) -> Row:
        """The row of the best count that fits into memory."""
        return next(row for row in self.good if row.workers == self.advice.top)

    @property
    def last(self) -> int:
        """The greatest count without errors."""
        return max(row.workers for row in self.good)


def failures(case: Case) -> str:
    """Sentences about tasks that fail, and counts that failed, with the first error."""
    sentences = []
    if case.serial and case.serial.error:
        sentences.append(f"Serially it failed: {case.serial.error}.")
    failing = max((row.failed for row in case.good), default=0.0)
    if failing:
        sentences.append(
            f"{failing:.0%} of the tasks fail, serially as well; they count as done."
        )
    if case.failed:
        counts = [row.workers for row in case.failed]
        workers = f"{_listed(counts)} {'worker' if counts == [1] else 'workers'}"
        sentences.append(f"With {workers} it failed: {case.failed[0].error}.")
    return " ".join(sentences)


def left_out(case: Case) -> str:
    """A sentence about the counts that were not tried, and how to try them."""
    if not case.untried:
        return ""
    workers = "worker was" if list(case.untried) == [1] else "workers were"
    return (
        f"{_listed(case.untried)} {workers} not tried, since throughput fell for "
        "two counts running: to try them all the same, ask for them alone, "
        f"{_option(case.unit, 'workers', case.untried)}."
    )


def hint(case: Case) -> str:
    """The most important hint what to do; empty if there is none."""
    return next(filter(None, (find(case) for find in _HINTS)), "")


def _unfit(case: Case) -> str:
    """What to try if no measured count fits into memory."""
    bound = case.memory_bound
    if bound is None or bound >= min(row.workers for row in case.good):
        return ""
    if not bound:
        return "Not even one worker fits: give it more memory, or smaller items."
    fit = sorted({1, max(1, bound // 2), bound})
    return f"Try counts that fit: {_option(case.unit, 'workers', fit)}."


def _tiny(case: Case) -> str:
    if case.unit != "tasks" or not _serial_wins(case) or case.serial is None:
        return ""
    seconds = 1 / case.serial.throughput
    if seconds >= _TINY:
        return ""
    return (
        f"Serially it is faster: a task of {format_short(seconds)} is not "
        "worth a worker. Let each task do many, or stay serial."
    )


def _lock(case: Case) -> str:
    """A hint about threads that take turns because of the global interpreter lock."""
    if not case.threads or case.last == 1:
        return ""
    most = max(row.cores for row in case.good)
    gain = case.top.speedup if case.serial else 0.0
    if not _ONE - _ROUGHLY < most < _ONE + _ROUGHLY or gain > _ONE + _ROUGHLY:
        return ""
    return (
        'The threads keep one core busy, in turns (the GIL): use executor="process", '
        "or stay serial."
    )


def _serial(case: Case) -> str:
    if not _serial_wins(case):
        return ""
    fit = case.memory_bound is not None and case.last > case.memory_bound
    which = "that fits" if fit else "tried"
    return (
        f"Serially it is faster than with any number of workers {which}: stay serial."
    )


def _noise(case: Case) -> str:
    """A hint about cheaper counts that the rounds do not distinguish from the best."""
    serial = _good_serial(case)
    names = [str(n) for n in case.advice.alike if n < case.advice.recommended]
    is_serial_alike = serial and not apart(serial.rates, case.top.rates)
    repeat = _option(case.unit, "repeat", [_MORE_ROUNDS * len(case.top.rates)])
    if case.advice.flat:
        serially = " or from serial" if is_serial_alike else ""
        return (
            f"No count differs from another{serially} by more than the spread of the "
            f"rounds: more workers may gain nothing, and {repeat} would tell."
        )
    names = [*(["serial"] if is_serial_alike else []), *names]
    if names:
        return (
            f"The spread of the rounds does not tell {_listed(names)} from that: "
            f"{repeat} would tell more."
        )
    return ""


def _more(case: Case) -> str:
    """A hint to try greater counts, if the greatest one is recommended."""
    peak = case.advice.model.peak if case.advice.model else None
    is_peak = peak is not None and peak <= case.last
    died = any(row.workers > case.last for row in case.failed)
    if case.advice.recommended < case.last or len(case.good) == 1 or is_peak or died:
        return ""
    serial = _good_serial(case)
    waits = serial is not None and serial.cores < _WAITS
    counts = [case.last * times for times in (_FAR if waits else _FURTHER)]
    bound = case.memory_bound
    fit = [count for count in counts if bound is None or count <= bound]
    if len(fit) == 1:
        return ""
    greatest = f"{case.last} is the most that was measured"
    option = _option(case.unit, "workers", fit)
    if not waits:
        return f"{greatest}: more may be better, so try {option}."
    other = case.unit == "tasks" and not case.threads
    threads = ", or threads, which cost less" if other else ""
    return f"{greatest}, and it mostly waits: try many more, {option}{threads}."


_HINTS: tuple[Callable[[Case], str], ...] = (
    _unfit,
    _tiny,
    _lock,
    _serial,
    _noise,
    _more,
)


def _good_serial(case: Case) -> Row | None:
    return case.serial if case.serial and not case.serial.error else None


def _serial_wins(case: Case) -> bool:
    """Whether serial is faster by more than `NEAR` and more than the spread."""
    serial = _good_serial(case)
    return (
        serial is not None
        and serial.throughput * (1 - NEAR) > case.top.throughput
        and apart(serial.rates, case.top.rates)
    )


def _option(unit: str, name: str, numbers: Sequence[int]) -> str:
    """The option of the command, or the argument of the function, in text."""
    if unit == "runs":
        return f"--{name} {','.join(map(str, numbers))}"
    return f"{name}={numbers[0] if name == 'repeat' else list(numbers)}"


def _listed(names: Sequence[object]) -> str:
    """Names as a list within a sentence.

    >>> _listed([4]), _listed([4, 8, 16])
    ('4', '4, 8 and 16')
    """
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last
