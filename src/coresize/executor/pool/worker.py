"""What runs in a worker's process."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import threading
import time

from coresize import processes
from coresize.executor import protocol
from coresize.processes import inheritance, lines, memory, nesting, transfer
from coresize.processes.memory import read_memory


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any

    Initializer = Callable[..., object]


# -----------------------------------------------------------------------------
# Memory that tasks have freed and the allocator keeps: given back between tasks.
#
# The C library keeps up to 64 MiB and more of what is freed, for the next that asks
# (mallopt(3), M_TRIM_THRESHOLD, whose default grows). Between tasks nobody may ask for
# long: what an idle worker keeps is missing elsewhere, and it would be taken for a part
# of what the next task needs.


#: Bytes above what is in use that are worth a look for what is free.
_MUCH = 8 * 1024**2


class Heap:
    """The memory of this process, from its start on."""

    def __init__(self) -> None:
        self._used = _held()
        self._peak = processes.resident_peak()

    def trim(self) -> None:
        """Give back what is free, where there may be much of it."""
        if processes.resident_peak() <= self._peak + _MUCH:
            return  # it never held much
        held = _held()
        if held > self._used + _MUCH:
            _trimmer()(0)
            self._used = _held()  # what is left is in use
        self._used = min(self._used, held)


def _held() -> int:
    """Bytes apart from files; 0 where the kernel does not tell."""
    memory = read_memory()
    return memory.private if memory else 0


def _trimmer() -> Callable[[int], object]:
    """malloc_trim(3) of the GNU C library; elsewhere nothing."""
    try:
        import ctypes

        found: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, ImportError, OSError, TypeError):  # musl, macOS; Windows
        return int
    return found


#: Bytes that a worker inherits by fork from which on they are told apart: what it only
#: inherited is not counted as its own, and what it copied of that is. The kernel walks
#: its page tables for the answer, which is why others are spared that.
_INHERITANCE = 32 * 1024**2

#: Seconds of a task that is too short to have freed much.
_QUICK = 0.005

#: Seconds within which several Ctrl-C are of the same hand, and count as one.
_MOMENT = 1.0


def work(
    pipe: socket.socket,
    line: socket.socket | None,
    initializer: Initializer | None,
    initargs: tuple[Any, ...],
    *,
    measured: bool,
    environment: Mapping[str, str],
) -> None:
    """Receive calls, make them, send what comes of them; until told to end.

    Args:
        pipe: the socket to the parent.
        line: another, over which nothing is sent, and which ends with the parent; None
            where the name of this process has brought it.
        initializer: what is called first.
        initargs: its arguments.
        measured: tell the peak memory of each task.
        environment: variables of a worker that was forked; another has them already.
    """
    if line is not None:
        lines.die_with_parent(line)
    os.environ.update(environment)
    nesting.forget_program()
    worker = _Worker(pipe, measured=measured)
    worker.guard_answers()
    try:
        if initializer is not None:
            worker.calling = True
            initializer(*initargs)
            worker.calling = False
    except BaseException as error:
        worker.calling = False
        processes.end_if_forked(worker.pid, error)
        log = logging.getLogger("concurrent.futures")  # as the standard library does
        log.critical("Exception in initializer:", exc_info=True)
        worker.send(protocol.BROKEN, pickle.dumps(transfer.dump_error(error)))
        return
    worker.get_ready()
    worker.loop()


class _Worker:
    def __init__(self, pipe: socket.socket, *, measured: bool) -> None:
        self.pipe = pipe
        self.pid = processes.own()
        self.number = 0
        self.measured = measured
        self.inherits_memory = False
        self.inbox = protocol.Inbox()
        #: Where the parent was when it submitted what is to run, and where that has
        #: brought this process. In between it may be where a task has gone.
        self.submitted_in = self.entered = inheritance.folder()
        #: Whether the user's code is running.
        self.calling = False
        self._interrupted = float("-inf")

    def guard_answers(self) -> None:
        """Let Ctrl-C end what a task does, and not how that is told.

        A terminal sends it to the workers as well, and again as long as the key is
        held. The second one would come while the first is pickled.
        """
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_default and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, _number: int, _frame: object) -> None:
        now = time.monotonic()
        if self.calling and now - self._interrupted > _MOMENT:
            self._interrupted = now
            raise KeyboardInterrupt

    def get_ready(self) -> None:
        """Tell what this process holds before its first task."""
        own, alone = self._own(), read_memory("self", inherits=True)
        self.inherits_memory = bool(
            alone and own.private - alone.private > _INHERITANCE
        )
        kind = protocol.INHERITS_MEMORY if self.inherits_memory else b""
        with contextlib.suppress(OSError):  # the parent is gone, as loop() will see
            self.send(protocol.READY, kind, peak=self._own().private)

    def loop(self) -> None:
        """Until told to end, or the parent is gone."""
        heap = Heap()
        try:
            while self._receive():
                for kind, number, _, _, payload in self.inbox.messages():
                    self.number = number
                    start = time.perf_counter()
                    if kind == protocol.STOP:
                        return
                    if kind == protocol.FOLDER:
                        self.submitted_in = os.fsdecode(bytes(payload))
                    elif kind == protocol.CALL:
                        self._call(payload)
                    else:
                        self._calls(payload)
                    payload = b""  # noqa: PLW2901 - not held while waiting
                    if time.perf_counter() - start > _QUICK:
                        heap.trim()
        except (KeyboardInterrupt, OSError, protocol.StreamError):
            return

    def send(
        self,
        kind: int,
        payload: bytes = b"",
        peak: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Send an answer, of the call that is due where it is one."""
        processes.end_if_forked(self.pid)
        parts = protocol.pack(
            kind, payload, number=self.number, peak=peak, seconds=seconds
        )
        for part in parts:
            self._write(part)
        self.number += 1

    def _receive(self) -> bool:
        while True:
            try:
                return self.inbox.receive(self.pipe)
            except BlockingIOError:  # a task has made all descriptors so
                os.set_blocking(self.pipe.fileno(), True)

    def _write(self, part: bytes) -> None:
        written = 0
        while written < len(part):
            try:
                left = memoryview(part)[written:] if written else part
                written += self.pipe.send(left)
            except BlockingIOError:  # as above
                os.set_blocking(self.pipe.fileno(), True)

    def _enter(self) -> None:
        """Be in the folder that the call was submitted in.

        Raises:
            OSError: it is there no more.
        """
        if self.submitted_in is not None and self.submitted_in != self.entered:
            os.chdir(self.submitted_in)
            self.entered = self.submitted_in

    def _call(self, payload: bytes | bytearray) -> None:
        try:
            self.calling = True
            self._enter()
            function, args, kwargs = pickle.loads(payload)  # noqa: S301 - the parent's
        except BaseException as error:  # noqa: BLE001 - it is sent on
            self.calling = False
            processes.end_if_forked(self.pid, error)
            self._fail(error, 0, 0.0)
            return
        self._run(function, args, kwargs)

    def _calls(self, payload: bytes | bytearray) -> None:
        """Several calls of one function, each answered for itself as soon as it ends.

        So that a death takes one of them along and no more.
        """
        try:
            self.calling = True
            self._enter()
            function, every = pickle.loads(payload)  # noqa: S301 - the parent's own
        except BaseException as error:  # noqa: BLE001 - it is sent on
            self.calling = False
            processes.end_if_forked(self.pid, error)
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
            self.calling = True
            value = function(*args, **kwargs)
            seconds = time.perf_counter() - start
            peak = self._own().anonymous_peak if self.measured else 0
            failed = type(value) is transfer.Failure
            payload = transfer.dump_value(value)
            self.calling = False
        except BaseException as error:  # noqa: BLE001 - it is sent on
            self.calling = False
            processes.end_if_forked(self.pid, error)
            peak = self._own().anonymous_peak if self.measured else 0
            self._fail(error, peak, time.perf_counter() - start)
        else:
            del value
            kind = protocol.FAILED if failed else protocol.VALUE
            self.send(kind, payload, peak, seconds)

    def _fail(self, error: BaseException, peak: int, seconds: float) -> None:
        payload = pickle.dumps(transfer.dump_error(error))
        self.send(protocol.ERROR, payload, peak, seconds)

    def _own(self) -> memory.Memory:
        """The memory of this process; nothing where the kernel does not tell."""
        return read_memory("self", inherits=self.inherits_memory) or _NOTHING


_NOTHING = memory.Memory(size=0, high=0, private=0, file=0)
