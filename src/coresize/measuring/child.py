"""The process in which one task is measured."""

from __future__ import annotations

import contextlib
import pickle
import time
from multiprocessing.connection import Connection

from coresize import processes
from coresize.processes import schedstat, transfer


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any


def run_with(own: socket.socket, alone: bytes) -> None:
    """Do what `run` does, with a socket as the pipe."""
    run(alone, Connection(own.detach()))


def run(alone: bytes, pipe: Connection) -> None:
    """Get ready, receive the call, run it, report the result, and wait for the end.

    The function comes first, without its arguments: the imports of the function belong
    to the idle worker, the arguments to the task. The process waits before and after
    the call, so that the parent can measure it.
    """
    processes.offer_to_oom_killer()
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        try:
            pickle.loads(alone)  # noqa: S301 - the parent's own
        except BaseException as error:  # noqa: BLE001 - sent to the parent
            pipe.send(("unknown", transfer.dump_error(error)[1]))
            return
        pipe.send(("ready",))
        _answer(pipe)


def _answer(pipe: Connection) -> None:
    try:
        task, args, kwargs = pickle.loads(pipe.recv_bytes())  # noqa: S301 - as above
        result, wall, cpu = _timed(task, args, kwargs)
    except EOFError:
        return
    except BaseException as error:  # noqa: BLE001 - sent to the parent
        pipe.send(("error", *transfer.dump_error(error)))
    else:
        pipe.send(("done", wall, cpu))
        pipe.recv()
        del result  # only now, after the last sample of the memory


def _timed(
    task: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, float, float]:
    before, start = processes.cpu_seconds(), time.perf_counter()
    mark = schedstat.Mark()
    result = task(*args, **kwargs)
    wall = time.perf_counter() - start
    wall -= mark.waited(wall)
    return result, wall, processes.cpu_seconds() - before
