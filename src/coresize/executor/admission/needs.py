"""The argument ``memory=`` of an executor: one need, one per task, or a learned one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize import units
from coresize.errors import ConfigError
from coresize.units import to_bytes, to_memory


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from typing_extensions import TypeIs

    from coresize.planning.profiles import TaskProfile

    #: Bytes or a text such as "2GiB", a profile, "auto", or a function that returns the
    #: size of a task for its arguments.
    MemoryNeed: TypeAlias = int | str | TaskProfile | Callable[..., int | str]

AUTO = "auto"
_ALLOWED = (
    f'"auto", a TaskProfile, a callable of the arguments of a task, or {units.SIZES}'
)


class MemorySpec:
    """The memory that tasks need, as far as the caller has declared it.

    Attributes:
        fixed: bytes that every task needs; None if tasks differ or the need is learned.
        learns: whether the need is learned.
    """

    def __init__(self, memory: MemoryNeed) -> None:
        self.learns = memory == AUTO
        self.fixed: int | None = None
        self._of: Callable[..., int | str] | None = None
        if _is_profile(memory):
            self.fixed = memory.peak_memory
            self.learns = self.fixed is None
        elif callable(memory):
            self._of = memory
        elif not self.learns:
            try:
                self.fixed = to_memory("memory", memory)
            except ConfigError:
                allowed = _ALLOWED + units.unit_hint(memory)
                raise ConfigError("memory", memory, allowed) from None

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Bytes that a task is declared to need; None if the need is learned.

        Raises:
            ConfigError: the callable returns no size.
        """
        if self._of is None:
            return self.fixed
        return to_bytes("memory", self._of(*args, **kwargs))


def _is_profile(memory: MemoryNeed) -> TypeIs[TaskProfile]:
    """Whether the argument is a profile."""
    if isinstance(memory, (int, str)):
        return False
    from coresize.planning.profiles import TaskProfile  # brings pydantic

    return isinstance(memory, TaskProfile)
