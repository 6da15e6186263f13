"""What a process holds of memory: read from /proc, and understood."""

from __future__ import annotations

from coresize import processes
from coresize.processes import memory as procfs


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.processes.memory import Memory


def memory(pid: int | str = "self", *, heir: bool = False) -> Memory | None:
    """The memory of a process; None where the kernel does not tell, or it is gone.

    Args:
        pid: its number, or "self".
        heir: leave out what it shares with the process that it was forked from.
    """
    known = procfs.status(processes.read(pid, "status"))
    if known is None or not heir:
        return known
    own = procfs.unshared(processes.read(pid, "smaps_rollup"))
    return None if own is None else known.without(max(0, known.private - own))


def proportional(pid: int | str = "self") -> int | None:
    """Its part in bytes of what it holds apart from files; None where none is told."""
    return procfs.proportional(processes.read(pid, "smaps_rollup"))
