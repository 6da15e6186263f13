"""The errors that coresize raises, all derived from `CoresizeError`."""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


#: The most characters of a value that a message shows.
_SHOWN = 500


def _one_line(text: object) -> str:
    """Call `coresize.texts.one_line`, loading it only when there is an error."""
    from coresize import texts

    return texts.one_line(text)


class CoresizeError(Exception):
    """Base class of all errors that coresize raises."""


class ConfigError(CoresizeError, ValueError):
    """A setting or an argument is not valid.

    Attributes:
        setting: the variable, setting or argument that holds the value.
        value: the value.
        allowed: a description of the values that are allowed.
    """

    def __init__(self, setting: str, value: object, allowed: str) -> None:
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[: _SHOWN - 3]}..."
        super().__init__(f"{setting}={shown} is not valid: use {allowed}")
        self.setting = setting
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[Callable[..., ConfigError], tuple[object, ...]]:
        return type(self), (self.setting, self.value, self.allowed)


class ParseError(CoresizeError, ValueError):
    """A text does not follow its grammar; the only error that parsers raise.

    Attributes:
        code: the code of the `coresize.model.Gap` that the text leaves.
    """

    code = "malformed"


class HostFileError(CoresizeError, ValueError):
    """A recorded host cannot be read, understood or written.

    Attributes:
        path: the file.
        reason: what is wrong with the file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"host file {_one_line(path)}: {_one_line(reason)}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., HostFileError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class InheritedError(CoresizeError, RuntimeError):
    """An object is used in a fork of the process that it belongs to.

    Attributes:
        what: the object.
        pid: the process that has made it.
    """

    def __init__(self, what: str, pid: int, advice: str = "") -> None:
        super().__init__(
            f"this {what} belongs to process {pid}, of which this process is a fork: "
            f"{advice or f'make another {what} in the child'}"
        )
        self.what = what
        self.pid = pid
        self._advice = advice

    def __reduce__(self) -> tuple[Callable[..., InheritedError], tuple[object, ...]]:
        return type(self), (self.what, self.pid, self._advice)


class JournalError(CoresizeError):
    """A journal cannot be used.

    Attributes:
        path: the file.
        reason: why, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"journal {_one_line(path)}: {_one_line(reason)}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., JournalError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class MergeError(CoresizeError):
    """The journals do not make up one complete run.

    Attributes:
        problems: one sentence per problem.
        partial: whether incompleteness is the only problem; ``allow_partial`` accepts
            that.
    """

    def __init__(self, problems: Sequence[str], partial: bool = False) -> None:  # noqa: FBT001, FBT002 - __reduce__ passes it by position
        lines = tuple(map(_one_line, problems))  # names and keys are foreign texts
        super().__init__("the journals make no whole run: " + "; ".join(lines))
        self.problems = lines
        self.partial = partial

    def __reduce__(self) -> tuple[Callable[..., MergeError], tuple[object, ...]]:
        return type(self), (self.problems, self.partial)


class InsufficientMemoryError(CoresizeError, MemoryError):
    """Not even one worker with one task fits into memory, or data do not.

    Attributes:
        needed: bytes of one worker with one task, plus those that all workers share; or
            bytes of the data that were to be copied.
        budget: bytes that may be used.
        what: what does not fit.
    """

    def __init__(
        self, needed: int, budget: int, what: str = "not even one task fits"
    ) -> None:
        super().__init__(
            f"{what}: it needs {needed / 1024**3:.2f} GiB "
            f"({needed} bytes), and {budget / 1024**3:.2f} GiB ({budget}) may be used"
        )
        self.needed = needed
        self.budget = budget
        self.what = what

    def __reduce__(
        self,
    ) -> tuple[Callable[..., InsufficientMemoryError], tuple[int, int, str]]:
        return type(self), (self.needed, self.budget, self.what)


class TaskKilledError(CoresizeError):
    """The process of a task ended before the task did.

    Attributes:
        exit_code: the exit code of the process; minus the signal number if a signal
            ended it; None if unknown.
        signal: the number of the signal that ended the process, or None.
        peak_memory: the highest memory use seen of the process and its children, in
            bytes.
        attempts: how many times the task was tried.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None,
        peak_memory: int,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal = -exit_code if exit_code is not None and exit_code < 0 else None
        self.peak_memory = peak_memory
        self.attempts = attempts

    def __reduce__(self) -> tuple[Callable[..., TaskKilledError], tuple[object, ...]]:
        state = (str(self), self.exit_code, self.peak_memory, self.attempts)
        return _killed, (type(self), *state)


class TaskOutOfMemoryError(TaskKilledError):
    """The kernel killed the process of a task because memory ran out."""


class TaskCrashedError(TaskKilledError):
    """The process of a task crashed, or called ``os._exit()``."""


class TaskTimeoutError(TaskKilledError, TimeoutError):
    """A task exceeded its time limit, and its process was killed."""


def _killed(
    cls: type[TaskKilledError],
    message: str,
    exit_code: int | None,
    peak_memory: int,
    attempts: int,
) -> TaskKilledError:
    return cls(message, exit_code=exit_code, peak_memory=peak_memory, attempts=attempts)
