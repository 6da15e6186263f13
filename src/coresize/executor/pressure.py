"""How much memory is left now."""

from __future__ import annotations

from coresize import counters
from coresize.available import memory_limits
from coresize.host import Live
from coresize.policy import memory_left


#: What is kept free, as parts of the limit: below the second the youngest task is
#: ended; so much above it, below the first, none starts. Bytes that a process takes
#: between two looks bound it from below. Where one kill takes the whole container
#: (memory.oom.group; Kubernetes from 1.28) all is wider.
SOFT, HARD, GROUP = 0.02, 0.02, 3.0
FLOOR = 24 * 1024**2


class Pressure:
    """The memory of this process's cgroups, asked anew each time."""

    def __init__(self) -> None:
        self._host = Live()
        memory = memory_limits(self._host)
        self.limit = memory.limit or memory.total or 0
        self.group = bool(counters.oom_groups(self._host))
        wider = GROUP if self.group else 1.0
        self.hard = int(max(HARD * self.limit, min(FLOOR, 0.08 * self.limit)) * wider)
        self.soft = int(self.hard + SOFT * self.limit * wider)

    def left(self) -> int:
        """Bytes that can be taken before a limit is met, hard or soft."""
        left = memory_left(memory_limits(self._host))
        return self.limit if left is None else left
