"""How much memory is left now."""

from __future__ import annotations

import logging

from coresize.detection import counters
from coresize.detection.available import memory_limits
from coresize.errors import ConfigError
from coresize.host import Live
from coresize.planning.policy import memory_left


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.model import MemoryLimits

_log = logging.getLogger("coresize")

#: What is kept free, as parts of the limit: below the second the youngest task is
#: ended; so much above it, below the first, none starts. Bytes that a process takes
#: between two looks bound it from below. Where one kill takes the whole container
#: (memory.oom.group; Kubernetes from 1.28) all is wider.
SOFT, HARD, GROUP = 0.02, 0.02, 3.0
FLOOR = 24 * 1024**2


class _Noting(Live):
    """This machine; it takes note of the variables that it told."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        self.told = super().variables(names)
        return self.told


class _Remembering(Live):
    """This machine, with variables as they were at an earlier time."""

    def __init__(self, told: dict[str, str]) -> None:
        self._told = told

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        return {name: self._told[name] for name in names.intersection(self._told)}


class Pressure:
    """The memory of this process's cgroups, asked anew each time."""

    def __init__(self) -> None:
        self._host = _Noting()
        self._complaint = ""
        memory = memory_limits(self._host)
        self._good = self._host.told
        self.limit = memory.limit or memory.total or 0
        self.group = bool(counters.oom_groups(self._host))
        wider = GROUP if self.group else 1.0
        self.hard = int(max(HARD * self.limit, min(FLOOR, 0.08 * self.limit)) * wider)
        self.soft = int(self.hard + SOFT * self.limit * wider)

    def left(self) -> int:
        """Bytes that can be taken before a limit is met, hard or soft."""
        left = memory_left(self._ask())
        return self.limit if left is None else left

    def _ask(self) -> MemoryLimits:
        """The memory now; a variable that became wrong meanwhile is as it was."""
        try:
            found = memory_limits(self._host)
        except ConfigError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.warning("%s; what was set before stays", error)
            return memory_limits(_Remembering(self._good))
        self._good = self._host.told
        return found
