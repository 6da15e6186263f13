"""The errors that coresize raises, all children of one."""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


#: Characters of a value that a message shows.
_SHOWN = 500


def _one_line(text: object) -> str:
    """See `coresize.texts.one_line`, which is loaded when there is an error to tell."""
    from coresize import texts

    return texts.one_line(text)


class CoresizeError(Exception):
    """Base of every error raised by coresize."""


class ConfigError(CoresizeError, ValueError):
    """A setting of the user's own is wrong.

    Attributes:
        setting: the variable or argument that holds the value.
        value: what it holds.
        allowed: what it may hold.
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
    """A text does not follow its grammar; the only error a parser raises."""


class HostFileError(CoresizeError, ValueError):
    """A recorded host cannot be read, understood or written.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"host file {_one_line(path)}: {_one_line(reason)}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., HostFileError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


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
    """Journals do not make one whole run.

    Attributes:
        problems: what is wrong, a sentence each.
        partial: nothing is, but that it is not whole: ``allow_partial`` takes that.
    """

    def __init__(self, problems: Sequence[str], partial: bool = False) -> None:  # noqa: FBT001, FBT002 - as __reduce__ gives it
        lines = tuple(map(_one_line, problems))  # names and keys are of others
        super().__init__("the journals make no whole run: " + "; ".join(lines))
        self.problems = lines
        self.partial = partial

    def __reduce__(self) -> tuple[Callable[..., MergeError], tuple[object, ...]]:
        return type(self), (self.problems, self.partial)


class InsufficientMemoryError(CoresizeError, MemoryError):
    """Not even one worker with one task fits into the memory.

    Attributes:
        needed: bytes of one worker with one task, and of what all workers share.
        budget: bytes that workers may use.
    """

    def __init__(self, needed: int, budget: int) -> None:
        super().__init__(
            f"not even one task fits: it needs {needed / 1024**3:.2f} GiB "
            f"({needed} bytes), and {budget / 1024**3:.2f} GiB ({budget}) may be used"
        )
        self.needed = needed
        self.budget = budget

    def __reduce__(
        self,
    ) -> tuple[Callable[..., InsufficientMemoryError], tuple[int, int]]:
        return type(self), (self.needed, self.budget)


class TaskKilledError(CoresizeError):
    """The process of a task ended before the task did.

    Attributes:
        exit_code: what the process ended with; minus the signal where one ended it;
            None where nobody can tell.
        signal: the number of that signal, or None.
        peak_memory: bytes, the most that was seen of the process and its children.
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
    """The process of a task ended by a fault of its own, or by ``os._exit()``."""


class TaskTimeoutError(TaskKilledError, TimeoutError):
    """A task took longer than it may, and its process was ended."""


def _killed(
    cls: type[TaskKilledError],
    message: str,
    exit_code: int | None,
    peak_memory: int,
    attempts: int,
) -> TaskKilledError:
    return cls(message, exit_code=exit_code, peak_memory=peak_memory, attempts=attempts)
