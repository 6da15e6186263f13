"""Memory that tasks have freed and the allocator keeps: given back between tasks.

The C library keeps up to 64 MiB and more of what is freed, for the next that asks
(mallopt(3), M_TRIM_THRESHOLD, whose default grows). Between tasks nobody may ask for
long: what an idle worker keeps is missing elsewhere, and it would be taken for a part
of what the next task needs.
"""

from __future__ import annotations

from coresize import footprint, processes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes above what is in use that are worth a look for what is free.
_MUCH = 8 * 1024**2


class Heap:
    """The memory of this process, from its start on."""

    def __init__(self) -> None:
        self._used = _held()
        self._peak = processes.resident_peak()

    def trim(self) -> None:
        """Give back what is free, where there may be much of it."""
        if processes.resident_peak() <= self._peak + _MUCH:
            return  # it never held much
        held = _held()
        if held > self._used + _MUCH:
            _trimmer()(0)
            self._used = _held()  # what is left is in use
        self._used = min(self._used, held)


def _held() -> int:
    """Bytes apart from files; 0 where the kernel does not tell."""
    memory = footprint.memory()
    return memory.private if memory else 0


def _trimmer() -> Callable[[int], object]:
    """malloc_trim(3) of the GNU C library; elsewhere nothing."""
    try:
        import ctypes

        found: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, ImportError, OSError, TypeError):  # musl, macOS; Windows
        return int
    return found
