"""The process in which one task is measured."""

from __future__ import annotations

import contextlib
import pickle
import time

from coresize import processes
from coresize.processes import schedstat, transfer


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from typing import Any


def run(alone: bytes, pipe: Connection) -> None:
    """Get ready, receive the call, run it, tell how it went, and stay until told.

    The call comes first without arguments, for what the function imports belongs to
    the idle worker; the arguments belong to the task. The process stays so that the
    parent can look at it before and after.
    """
    processes.offer_to_oom_killer()
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        try:
            pickle.loads(alone)  # noqa: S301 - the parent's own
        except BaseException as error:  # noqa: BLE001 - it is sent on
            pipe.send(("unknown", transfer.dump_error(error)[1]))
            return
        pipe.send(("ready",))
        _answer(pipe)


def _answer(pipe: Connection) -> None:
    try:
        task, args, kwargs = pickle.loads(pipe.recv_bytes())  # noqa: S301 - as above
        kept, wall, cpu = _timed(task, args, kwargs)
    except EOFError:
        return
    except BaseException as error:  # noqa: BLE001 - it is sent on
        pipe.send(("error", *transfer.dump_error(error)))
    else:
        pipe.send(("done", wall, cpu))
        pipe.recv()
        del kept


def _timed(
    task: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, float, float]:
    before, start = processes.cpu_seconds(), time.perf_counter()
    mark = schedstat.Mark()
    kept = task(*args, **kwargs)
    wall = time.perf_counter() - start
    wall -= mark.waited(wall)
    return kept, wall, processes.cpu_seconds() - before
