"""The process in which one task is measured."""

from __future__ import annotations

import contextlib
import pickle
import time
from functools import partial
from multiprocessing import reduction

from coresize import processes
from coresize.processes import buffers, schedstat, transfer


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from typing import Any


#: The answer of the parent that asks for more calls of a short task.
AGAIN = "again"

#: Seconds of calls that are enough to distinguish computing from waiting.
_ENOUGH = 0.1


def run_with(own: socket.socket, alone: bytes) -> None:
    """Do what `run` does, with a socket as the pipe."""
    from multiprocessing.connection import Connection  # loads much for one class

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
        rows = _receive_buffers(pipe)
        # The buffers stay resident, even if the call has copied them all.
        task, args, kwargs = buffers.load(pipe.recv_bytes(), rows)
        call = partial(task, *args, **kwargs)
        result, *seconds = _timed(call)
    except EOFError:
        return
    except BaseException as error:  # noqa: BLE001 - sent to the parent
        pipe.send(("error", *transfer.dump_error(error)))
    else:
        pipe.send(("done", 1, *seconds))
        again = pipe.recv()
        del result  # only now, after the last sample of the memory
        if again == AGAIN:
            pipe.send(("done", *_repeated(call)))
            pipe.recv()


def _receive_buffers(pipe: Connection) -> list[buffers.Row]:
    """The large buffers of the call, all of whose pages are resident from now on."""
    count, table = pipe.recv()
    if not count:
        return buffers.read(table) if table else []
    descriptors = [reduction.recv_handle(pipe) for _ in range(count)]
    return buffers.Attached(resident=True).attach(table, descriptors)


def _timed(call: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """The result of a call, its seconds, those without a CPU, and those on a CPU."""
    before, start = processes.cpu_seconds(), time.perf_counter()
    mark = schedstat.Mark()
    result = call()
    wall = time.perf_counter() - start
    return result, wall, mark.waited(wall), processes.cpu_seconds() - before


def _repeated(call: Callable[[], Any]) -> tuple[int, float, float, float]:
    """The number of calls in `_ENOUGH` seconds, and their seconds as of `_timed`.

    No call at all is counted where one fails: a task may work only once.
    """
    calls = 0

    def many() -> None:
        nonlocal calls
        end = time.perf_counter() + _ENOUGH
        while calls == 0 or time.perf_counter() < end:
            call()
            calls += 1

    try:
        _, *seconds = _timed(many)
    except BaseException:  # noqa: BLE001 - the first call has succeeded
        return 0, 0.0, 0.0, 0.0
    wall, delay, cpu = seconds
    return calls, wall, delay, cpu
