"""What runs in a worker's process."""

from __future__ import annotations

import contextlib
import importlib
import logging
import operator
import os
import pickle
import sys
import time

from coresize import footprint, processes, procfs, transfer
from coresize.executor import frames
from coresize.executor.heap import Heap
from coresize.processes import lines


#: A worker that was forked from a process which holds so much, in bytes, is an heir:
#: what it only inherited is not counted as its own, and what it copied of that is. The
#: kernel walks its page tables for the answer, which is why others are spared that.
_INHERITANCE = 32 * 1024**2

#: Seconds of a task that is too short to have freed much.
_QUICK = 0.005

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    Initializer = Callable[..., object]


class Name(str):
    """The name of a process, which brings the environment with it, and its line.

    multiprocessing sends the name before anything else, even before the main module is
    imported (get_preparation_data()): so the variables are set before any library that
    reads them at its import, and a process that still imports ends with its parent. The
    module search path comes with the name, so this module may not yet be found there:
    unpickling takes the standard library alone, and sets the path before the rest.

    Attributes:
        environment: variables that are set.
        line: as of `lines.die_with_parent`, or None. It is sent once, as the first of
            two: multiprocessing sends the name again with the process.
    """

    __slots__ = ("environment", "line")
    environment: dict[str, str]
    line: socket.socket | None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        environ = _Made(getattr, _Made(importlib.import_module, "os"), "environ")
        done = [_Made(operator.methodcaller("update", self.environment), environ)]
        line, self.line = self.line, None
        if line is not None:
            system = _Made(importlib.import_module, "sys")
            done.append(_Made(setattr, system, "path", list(sys.path)))
            ours = _Made(importlib.import_module, lines.__name__)
            done.append(_Made(operator.methodcaller("die_with_parent", line), ours))
        return operator.getitem, ((str(self), *done), 0)


class _Made:
    """A call that is made where this is unpickled; what it returns is there instead."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def work(
    pipe: socket.socket,
    line: socket.socket | None,
    initializer: Initializer | None,
    initargs: tuple[Any, ...],
    *,
    measured: bool,
    marks: dict[str, str],
) -> None:
    """Receive calls, make them, send what comes of them; until told to end.

    Args:
        pipe: the socket to the parent.
        line: another, over which nothing is sent, and which ends with the parent; None
            where the name of this process has brought it.
        initializer: what is called first.
        initargs: its arguments.
        measured: tell the peak memory of each task.
        marks: variables that tell what was started here: a fork brings no others.
    """
    if line is not None:
        lines.die_with_parent(line)
    os.environ.update(marks)
    worker = _Worker(pipe, measured=measured)
    try:
        if initializer is not None:
            initializer(*initargs)
    except BaseException as error:
        log = logging.getLogger("concurrent.futures")  # as the standard library does
        log.critical("Exception in initializer:", exc_info=True)
        worker.send(frames.BROKEN, pickle.dumps(transfer.dump_error(error)))
        return
    worker.get_ready()
    worker.loop()


class _Worker:
    def __init__(self, pipe: socket.socket, *, measured: bool) -> None:
        self.pipe = pipe
        self.measured = measured
        self.heir = False
        self.inbox = frames.Inbox()

    def get_ready(self) -> None:
        """Tell what this process holds before its first task."""
        own, alone = self._own(), footprint.memory("self", heir=True)
        self.heir = bool(alone and own.private - alone.private > _INHERITANCE)
        kind = frames.HEIR if self.heir else b""
        with contextlib.suppress(OSError):  # the parent is gone, as loop() will see
            self.send(frames.READY, kind, peak=self._own().private)

    def loop(self) -> None:
        """Until told to end, or the parent is gone, or Ctrl-C while nothing is done."""
        heap = Heap()
        try:
            while self.inbox.receive(self.pipe):
                for kind, _, _, payload in self.inbox.messages():
                    start = time.perf_counter()
                    if kind == frames.STOP:
                        return
                    if kind == frames.CALL:
                        self._call(payload)
                    else:
                        self._calls(payload)
                    payload = b""  # noqa: PLW2901 - not held while waiting
                    if time.perf_counter() - start > _QUICK:
                        heap.trim()
        except (KeyboardInterrupt, OSError):
            return

    def send(
        self,
        kind: int,
        payload: bytes = b"",
        peak: int = 0,
        seconds: float = 0.0,
    ) -> None:
        for part in frames.pack(kind, payload, peak, seconds):
            self.pipe.sendall(part)

    def _call(self, payload: bytes) -> None:
        try:
            function, args, kwargs = pickle.loads(payload)  # noqa: S301 - the parent's
        except BaseException as error:  # noqa: BLE001 - it is sent on
            self._fail(error, 0, 0.0)
            return
        self._run(function, args, kwargs)

    def _calls(self, payload: bytes) -> None:
        """Several calls of one function, each answered for itself as soon as it ends.

        So that a death takes one of them along and no more.
        """
        try:
            function, every = pickle.loads(payload)  # noqa: S301 - the parent's own
        except BaseException as error:  # noqa: BLE001 - it is sent on
            self._fail(error, 0, -1.0)
            return
        for args in every:
            self._run(function, args, {})

    def _run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if self.measured:
            processes.reset_peak("self")
        start = time.perf_counter()
        try:
            value = function(*args, **kwargs)
            seconds = time.perf_counter() - start
            peak = self._own().anonymous_peak if self.measured else 0
            failed = type(value) is transfer.Failure
            payload = transfer.dump_value(value)
        except BaseException as error:  # noqa: BLE001 - it is sent on
            peak = self._own().anonymous_peak if self.measured else 0
            self._fail(error, peak, time.perf_counter() - start)
        else:
            del value
            kind = frames.FAILED if failed else frames.VALUE
            self.send(kind, payload, peak, seconds)

    def _fail(self, error: BaseException, peak: int, seconds: float) -> None:
        payload = pickle.dumps(transfer.dump_error(error))
        self.send(frames.ERROR, payload, peak, seconds)

    def _own(self) -> procfs.Memory:
        """The memory of this process; nothing where the kernel does not tell."""
        return footprint.memory("self", heir=self.heir) or _NOTHING


_NOTHING = procfs.Memory(size=0, high=0, private=0, file=0)
