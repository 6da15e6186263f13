"""What is done at the end of a process, however that was started.

A process of multiprocessing ends by os._exit() and never calls the hooks of atexit. It
calls the finalizers of multiprocessing.util, and then waits for its children; the main
process calls them by a hook of atexit. So they are what ends in every process. They
have to be registered in the process itself: multiprocessing forgets them at a fork, and
once more when it has imported the main module.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import util


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: The order of what is done at the end: the largest comes first. What starts the calls
#: of maps, what hands tasks on to pools, what makes the calls of the caller, the pools.
MAPS, HANDING_ON, CALLS, POOLS = 130, 120, 110, 100

_finalizers: dict[Callable[[], None], tuple[int, util.Finalize]] = {}


def is_interrupted() -> bool:
    """Whether Ctrl-C ends this program: then nothing that runs is waited for."""
    return getattr(sys, "last_type", None) is KeyboardInterrupt


def register(function: Callable[[], None], order: int) -> None:
    """Call a function at the end of this process; once, however often this is called.

    Args:
        function: of a module, as it is never forgotten.
        order: its place among others; the largest comes first.
    """
    pid, finalizer = _finalizers.get(function, (0, None))
    if pid != os.getpid() or finalizer is None or not finalizer.still_active():
        made = util.Finalize(None, function, exitpriority=order)
        _finalizers[function] = (os.getpid(), made)
