"""Whether this code is a task: then it is no program of its own.

Variables such as CORESIZE_SHARD speak of one batch of one program. A task inherits
them, as everything does that the program starts, and must not obey them: its own batch
would lose the items of all other shards.
"""

from __future__ import annotations

import os
import sys
import threading

from coresize.host import CLAIMED, SHARD, STATUS


class _Here(threading.local):
    depth = 0


_here = _Here()


class task:  # noqa: N801 - used as a function
    """What is called meanwhile, in this thread, is a task.

    No generator: contextlib sets an attribute of what is raised, which may refuse it.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        _here.depth += 1

    def __exit__(self, *_: object) -> None:
        _here.depth -= 1


def is_inside() -> bool:
    """Whether this is a task of coresize, which calls it as such."""
    return _here.depth > 0


def is_task() -> bool:
    """Whether this is a task of coresize, or runs in a worker of any executor."""
    return is_inside() or is_worker()


def is_worker() -> bool:
    """Whether this runs in a process of multiprocessing, or a thread of a pool.

    loky's and joblib's processes are of the kind as well. ``asyncio.to_thread`` is for
    a call that blocks, of the program itself, so its threads are no workers.
    """
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        return True
    thread = threading.current_thread()
    if thread.name.startswith("asyncio_"):
        return False
    target = getattr(thread, "_target", None)  # no public name; a thread of a pool
    return getattr(target, "__module__", None) in _POOLS  # runs a function of these


#: As of joblib's threading, too.
_POOLS = ("concurrent.futures.thread", "multiprocessing.pool")


def forget_program() -> None:
    """Take from the environment of a worker what speaks of its program's batch."""
    for name in (SHARD, STATUS, CLAIMED):
        os.environ.pop(name, None)
