"""The errors that coresize raises, all children of one."""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


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
        super().__init__(f"{setting}={value!r} is not valid: use {allowed}")
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
        super().__init__(f"host file {path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., HostFileError], tuple[str, str]]:
        return type(self), (self.path, self.reason)
