"""Workers that are there before the clock starts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from coresize import processes


if TYPE_CHECKING:
    from concurrent.futures import Executor

#: Seconds that a worker is kept busy, so that another has to be started, and how often.
_NAP, _ROUNDS = 0.05, 20


def warm(pool: Executor, workers: int, function: object = None) -> None:
    """Have all workers of a pool started, as far as that can be told.

    What the pool raises where a worker cannot be started is raised.

    Raises:
        RuntimeError: the pool goes on with fewer, as some cannot be started.

    Args:
        pool: has room for so many.
        workers: how many.
        function: is sent along, so that they import what it needs.
    """
    for _ in range(_ROUNDS):
        naps = [pool.submit(_nap, function, _NAP) for _ in range(workers)]
        if len({nap.result() for nap in naps}) == workers:
            return
        if refused := getattr(pool, "_refused", ""):
            raise RuntimeError(refused)


def _nap(_function: object, seconds: float) -> tuple[int, int]:
    """Keep this worker busy; returns its process and thread."""
    time.sleep(seconds)
    return processes.own(), threading.get_ident()
