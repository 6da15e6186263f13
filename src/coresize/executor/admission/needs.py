"""What ``memory=`` of an executor says: one need, one for each task, or to learn it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize import units
from coresize.errors import ConfigError
from coresize.units import to_bytes


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from typing_extensions import TypeIs

    from coresize.planning.profiles import TaskProfile

    #: Bytes or a text such as "2GiB", a profile, "auto", or what gives the size of a
    #: task from its arguments.
    Memory: TypeAlias = int | str | TaskProfile | Callable[..., int | str]

AUTO = "auto"
_ALLOWED = (
    f'"auto", a TaskProfile, a callable of the arguments of a task, or {units.SIZES}'
)


class MemorySpec:
    """The needs of tasks, as far as they are declared.

    Attributes:
        fixed: bytes of every task; None where they differ or are learned.
        learns: they are learned.
    """

    def __init__(self, memory: Memory) -> None:
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
                self.fixed = to_bytes("memory", memory)
            except ConfigError:
                raise ConfigError("memory", memory, _ALLOWED) from None

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Bytes that a task was declared to need; None where that is learned.

        Raises:
            ConfigError: the callable gives no size.
        """
        if self._of is None:
            return self.fixed
        return to_bytes("memory", self._of(*args, **kwargs))


def _is_profile(memory: Memory) -> TypeIs[TaskProfile]:
    """Whether it is a profile that is given."""
    if isinstance(memory, (int, str)):
        return False
    from coresize.planning.profiles import TaskProfile  # brings pydantic

    return isinstance(memory, TaskProfile)
