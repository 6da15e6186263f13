"""The process in which one task is measured."""

from __future__ import annotations

import contextlib
import os
import pickle
import time

from coresize import processes, transfer


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from typing import Any


def run(call: bytes, pipe: Connection) -> None:
    """Get ready, wait for the word, run the task, tell how it went, wait again.

    It waits so that the parent can look at it just before and just after the task.
    """
    processes.offer_to_oom_killer()
    try:
        function, args, kwargs = pickle.loads(call)  # noqa: S301 - the parent's own
    except BaseException as error:  # noqa: BLE001 - it is sent on
        pipe.send(("error", *transfer.dump_error(error)))
        return
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        _run(function, args, kwargs, pipe)


def _run(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    pipe: Connection,
) -> None:
    pipe.send(("ready",))
    pipe.recv()
    before, start = os.times(), time.perf_counter()
    try:
        kept = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - it is sent on
        pipe.send(("error", *transfer.dump_error(error)))
    else:
        wall, after = time.perf_counter() - start, os.times()
        # User and system time, of the process and of the children it waited for.
        pipe.send(("done", wall, sum(after[:4]) - sum(before[:4])))
        pipe.recv()
        del kept
