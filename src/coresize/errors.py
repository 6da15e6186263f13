"""The errors that coresize raises, all children of one."""

from __future__ import annotations

from coresize.texts import one_line


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


#: Characters of a value that a message shows.
_SHOWN = 500


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
        super().__init__(f"host file {one_line(path)}: {one_line(reason)}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., HostFileError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


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


def check_count(name: str, number: object, least: int, more: str = "") -> int:
    """A whole number that a caller gave, of Python or another library.

    Args:
        name: of the argument.
        number: what was given.
        least: what is allowed.
        more: what the message says besides.

    Raises:
        ConfigError: it is none, or less than the least.

    >>> check_count("tasks", 3, 0)
    3
    """
    index = None if isinstance(number, bool) else getattr(number, "__index__", None)
    if index is None or index() < least:
        raise ConfigError(name, number, f"a whole number, {least} or above{more}")
    return int(index())


def check_seconds(name: str, value: object) -> float:
    """A time that a caller gave.

    Raises:
        ConfigError: it is no number above 0.

    >>> check_seconds("timeout", 0.5)
    0.5
    """
    try:
        seconds = 0.0 if isinstance(value, (bool, str)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(name, value, "a number of seconds above 0")
    return seconds
