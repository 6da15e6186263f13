"""Finding out whether code runs as a task, not as a program of its own.

Variables such as CORESIZE_SHARD apply to one batch of one program. A task inherits
them, like every process that the program starts, but must not obey them: its own batch
would lose the items of all other shards.
"""

from __future__ import annotations

import os
import sys
import threading

from coresize.host import CLAIMED, RETRY, SHARD, STATUS


class _Here(threading.local):
    depth = 0


_here = _Here()


class task:  # noqa: N801 - used as a function
    """Code in the block runs as a task, in this thread.

    A class instead of a generator: contextlib sets an attribute on a raised error, and
    the error's class may refuse that.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        _here.depth += 1

    def __exit__(self, *_: object) -> None:
        _here.depth -= 1


def is_inside() -> bool:
    """Whether the calling code runs inside a `task` block of coresize."""
    return _here.depth > 0


def is_task() -> bool:
    """Whether the calling code is a task of coresize, or in any executor's worker."""
    return is_inside() or is_worker()


def is_worker() -> bool:
    """Whether the calling code runs in a child of multiprocessing or a pool's thread.

    The processes of loky and joblib count as such children. The threads of
    ``asyncio.to_thread`` are not workers: they run blocking calls of the program
    itself.
    """
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        return True
    thread = threading.current_thread()
    if thread.name.startswith("asyncio_"):
        return False
    target = getattr(thread, "_target", None)  # no public name
    return getattr(target, "__module__", None) in _POOLS


#: The modules whose functions are the targets of pool threads; joblib's threading
#: backend uses the second.
_POOLS = ("concurrent.futures.thread", "multiprocessing.pool")


def forget_program() -> None:
    """Remove the variables of the program's batch from the environment of a worker."""
    for name in (SHARD, STATUS, RETRY, CLAIMED):
        os.environ.pop(name, None)
