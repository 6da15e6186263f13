"""What a pool is like at one moment."""

from __future__ import annotations

from coresize.model import Value


class PoolState(Value):
    """What a pool is like at one moment.

    Attributes:
        workers: processes that it has.
        kills: how often the kernel killed one for memory, where ``memory=`` is given.
        evictions: how often a task was ended before the kernel would have killed.
        need: bytes that a task may take, as learned; None where it is not.
    """

    workers: int
    kills: int
    evictions: int
    need: int | None
