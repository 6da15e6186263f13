"""The code that runs in a worker's process: receive calls, make them, answer."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import select
import signal
import sys
import threading
import time
from pickle import HIGHEST_PROTOCOL, dumps

from coresize import processes
from coresize.executor import protocol
from coresize.processes import (
    buffers,
    inheritance,
    lines,
    memory,
    nesting,
    segments,
    task_limits,
    transfer,
)
from coresize.processes.buffers import Apart, Packed
from coresize.processes.memory import read_memory


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Initializer = Callable[..., object]


# -----------------------------------------------------------------------------
# Returning freed memory to the kernel between tasks.
#
# The C library keeps 64 MiB and more of freed memory for the next allocation
# (mallopt(3), M_TRIM_THRESHOLD, whose default grows). Between tasks, there may be no
# allocation for long. Memory that an idle worker keeps is missing elsewhere, and would
# count as memory of the next task.


#: A worker looks for free memory if its memory has grown by more than these bytes.
_MUCH = 8 * 1024**2


class Heap:
    """The allocated memory of this process, observed from the start of the worker."""

    def __init__(self) -> None:
        self._used = _held()
        self._peak = processes.resident_peak()

    def trim(self) -> None:
        """Return free memory to the kernel, if there may be much of it."""
        if processes.resident_peak() <= self._peak + _MUCH:
            return  # the process never held much
        held = _held()
        if held > self._used + _MUCH:
            _trimmer()(0)
            self._used = _held()  # the rest is in use
        self._used = min(self._used, held)


def _held() -> int:
    """Resident bytes apart from files and segments; 0 if the kernel does not tell."""
    own = memory.read_own()
    return own.private if own else 0


def _trimmer() -> Callable[[int], object]:
    """malloc_trim(3) of the GNU C library; elsewhere a function without effect."""
    try:
        import ctypes

        found: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, ImportError, OSError, TypeError):  # musl, macOS; Windows
        return int
    return found


#: A forked worker that inherits more than these bytes does not count them as its own,
#: until it writes to them. To tell them apart, the kernel walks the page tables of the
#: process, so other workers are spared this.
_INHERITANCE = 32 * 1024**2

#: A task of at most these seconds is too short to have freed much memory.
_QUICK = 0.005

#: Buffers of a value with fewer bytes are sent with the value.
_LEAST = 1024**2

#: The messages that are calls.
_CALLS = frozenset({protocol.CALL, protocol.CALLS})

#: Seconds within which several Ctrl-C count as one.
_MOMENT = 1.0


def work_beside(
    pipe: socket.socket,
    line: socket.socket | None,
    initializer: Initializer | None,
    initargs: tuple[Any, ...],
    **options: Any,
) -> None:
    """Work as `work` does, in a process that multiprocessing has started.

    Args:
        pipe: the socket to the parent.
        line: another socket, over which nothing is sent; when the parent ends, so does
            this process. None if the name of this process has brought the socket.
        initializer: see `work`.
        initargs: see `work`.
        options: see `work`.
    """
    if line is not None:
        lines.die_with_parent(line)
    work(pipe, initializer, initargs, **options)


def work(
    pipe: socket.socket,
    initializer: Initializer | None,
    initargs: tuple[Any, ...],
    *,
    measured: bool,
    least: int | None,
    environment: Mapping[str, str],
) -> None:
    """Receive calls, make them and send the answers, until told to end.

    Args:
        pipe: the socket to the parent.
        initializer: a function that is called first, or None.
        initargs: the arguments of the initializer.
        measured: report the peak memory of each task.
        least: the bytes from which on a buffer of a value travels in shared memory;
            None if no buffer does.
        environment: variables of a forked worker; other workers have them already.
    """
    os.environ.update(environment)
    nesting.forget_program()
    worker = _Worker(pipe, measured=measured, least=least)
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
    def __init__(
        self, pipe: socket.socket, *, measured: bool, least: int | None
    ) -> None:
        self.pipe = pipe
        self.pid = processes.own()
        self.number = 0
        self.measured = measured
        # A segment takes a mapping of the parent, which has 65530 (vm.max_map_count).
        self._least = None if least is None else max(least, _LEAST)
        self.inherits_memory = False
        self.inbox = protocol.Inbox()
        #: The parent's folder when it submitted the next call, and the folder that this
        #: process has last entered for a call; a task may have left it since.
        self.submitted_in = self.entered = inheritance.folder()
        #: Whether the user's code is running.
        self.calling = False
        self._begin = task_limits.setter()
        #: The number of the last call that may begin; None if none was recalled.
        self._last: int | None = None
        self._interrupted = float("-inf")
        #: The segments that are mapped, and the large buffers of the next call; or the
        #: error for which they are not mapped.
        self._attached = buffers.Attached(resident=measured)
        self._rows: list[buffers.Row] = []
        self._unmapped: OSError | None = None

    def guard_answers(self) -> None:
        """Let Ctrl-C interrupt the user's code, but not the sending of an answer.

        A terminal sends SIGINT to the workers as well, and repeats it while the key is
        held. The second one would arrive while the error of the first is pickled.

        Where an error cannot be raised, as in a callback of an import, Python prints it
        instead. A Ctrl-C is not worth that: the parent ends the workers.
        """
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_default and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._interrupt)
            sys.unraisablehook = _without_interrupts(sys.unraisablehook)

    def _interrupt(self, _number: int, _frame: object) -> None:
        now = time.monotonic()
        if self.calling and now - self._interrupted > _MOMENT:
            self._interrupted = now
            raise KeyboardInterrupt

    def get_ready(self) -> None:
        """Report that this process is ready, and the bytes that it holds now."""
        self._begin = task_limits.setter()  # the initializer may have set the limit
        own, alone = self._own(), read_memory("self", inherits=True)
        self.inherits_memory = bool(
            alone and own.private - alone.private > _INHERITANCE
        )
        kind = protocol.INHERITS_MEMORY if self.inherits_memory else b""
        with contextlib.suppress(OSError):  # the parent is gone: loop() ends
            self.send(protocol.READY, kind, peak=self._own().private)

    def loop(self) -> None:
        """Make calls until this worker is told to end, or the parent is gone."""
        heap = Heap()
        try:
            while self._receive():
                for kind, number, _, _, payload in self.inbox.messages():
                    self.number = number
                    start = time.perf_counter()
                    if kind == protocol.STOP:
                        return
                    if kind not in _CALLS:
                        self._note(kind, number, payload)
                    elif not self._may_begin(number):
                        self._rows, self._unmapped = [], None
                    else:
                        call = self._call if kind == protocol.CALL else self._calls
                        call(payload)
                    payload = b""  # noqa: PLW2901 - not held while waiting
                    if time.perf_counter() - start > _QUICK:
                        heap.trim()
                if self._attached and not _is_readable(self.pipe):
                    self._attached.drop()  # not held while waiting, either
        except (KeyboardInterrupt, OSError, protocol.StreamError):
            return

    def _may_begin(self, number: int) -> bool:
        """Note that a call begins; False if the parent gives it to another worker."""
        last = self._begin(number)
        if last is not None:
            self._last = last
        return self._last is None or task_limits.is_since(self._last, number)

    def _note(self, kind: int, number: int, payload: bytes | bytearray) -> None:
        """Note what a message says of the calls that follow."""
        if kind == protocol.FOLDER:
            self.submitted_in = os.fsdecode(bytes(payload))
        elif kind == protocol.RESUME:
            self._begin(number)  # in the place of the parent's number
            self._last = None
        else:
            self._take_buffers(kind, payload)

    def _take_buffers(self, kind: int, table: bytes | bytearray) -> None:
        """Map the large buffers of the next call; an error is that of the call."""
        try:
            if kind == protocol.CONTENTS:
                self._rows = buffers.read(table)
            else:
                count = buffers.descriptors_of(table)
                descriptors = self.inbox.take_descriptors(count)
                self._rows = self._attached.attach(table, descriptors)
        except OSError as error:
            self._unmapped = error

    def _load(self, payload: bytes | bytearray) -> Any:
        """Unpickle the next call or calls.

        Raises:
            MemoryError: there is no address space for the large buffers.
            TransferError: the large buffers could not be received.
            Exception: of the user's code, which pickle calls.
        """
        (rows, self._rows), (error, self._unmapped) = (
            (self._rows, []),
            (self._unmapped, None),
        )
        if error is not None and error.errno == errno.ENOMEM:
            msg = f"the large arguments cannot be mapped: {error}"
            raise MemoryError(msg)
        if error is not None:
            msg = f"the large arguments cannot be received: {error}"
            raise transfer.TransferError(msg) from error
        if not rows and self._attached:
            self._attached.drop()
        return buffers.load(payload, rows)

    def send(
        self,
        kind: int,
        payload: bytes | Packed = b"",
        peak: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Send a message to the parent, with the number of the call that is due."""
        processes.end_if_forked(self.pid)
        if isinstance(payload, Packed):
            self._send_buffers(payload)
            payload = payload.content
        for part in protocol.pack(kind, payload, self.number, peak, seconds):
            self._write(part)
        self.number += 1

    def _send_buffers(self, packed: Packed) -> None:
        try:
            self._write(protocol.pack_buffers(packed), packed.descriptors)
        except OSError as error:
            if not protocol.is_refused(error):
                raise
            for part in protocol.pack_contents(packed):
                self._write(part)

    def _receive(self) -> bool:
        while True:
            try:
                return self.inbox.receive(self.pipe)
            except BlockingIOError:  # a task has made all descriptors non-blocking
                os.set_blocking(self.pipe.fileno(), True)

    def _write(self, part: bytes, attached: Sequence[int] = ()) -> None:
        left: bytes | memoryview = part
        while left:
            try:
                written = protocol.send(self.pipe, left, attached)
            except BlockingIOError:  # as above
                os.set_blocking(self.pipe.fileno(), True)
                continue
            if written == len(left):
                return
            left, attached = memoryview(left)[written:], ()

    def _enter(self) -> None:
        """Change to the folder in which the call was submitted.

        Raises:
            OSError: the folder no longer exists.
        """
        if self.submitted_in is not None and self.submitted_in != self.entered:
            os.chdir(self.submitted_in)
            self.entered = self.submitted_in

    def _call(self, payload: bytes | bytearray) -> None:
        try:
            self.calling = True
            self._enter()
            function, args, kwargs = self._load(payload)
        except BaseException as error:  # noqa: BLE001 - the error is sent on
            self.calling = False
            processes.end_if_forked(self.pid, error)
            self._fail(error, 0, 0.0)
            return
        self._run(function, args, kwargs)

    def _calls(self, payload: bytes | bytearray) -> None:
        """Make several calls of one function, and answer each as soon as it ends.

        So if the worker dies, only one of the calls is lost.
        """
        try:
            self.calling = True
            self._enter()
            function, every = self._load(payload)
        except BaseException as error:  # noqa: BLE001 - the error is sent on
            self.calling = False
            processes.end_if_forked(self.pid, error)
            self._fail(error, 0, -1.0)
            return
        for args in every:
            if not self._may_begin(self.number):
                return
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
            failed = type(value) is transfer.Failure
            payload = self._packed(value, failed=failed)
            peak = self._peak(payload) if self.measured else 0
            self.calling = False
        except BaseException as error:  # noqa: BLE001 - the error is sent on
            self.calling = False
            processes.end_if_forked(self.pid, error)
            peak = self._peak() if self.measured else 0
            self._fail(error, peak, time.perf_counter() - start)
        else:
            del value, function, args, kwargs
            kind = protocol.FAILED if failed else protocol.VALUE
            self.send(kind, payload, peak, seconds)

    def _fail(self, error: BaseException, peak: int, seconds: float) -> None:
        with contextlib.suppress(Exception):  # str() calls the user's code
            if segments.mapped() and _READ_ONLY in str(error):
                transfer.add_note(error, _ADVICE)
        payload = pickle.dumps(transfer.dump_error(error))
        self.send(protocol.ERROR, payload, peak, seconds)

    def _packed(self, value: object, *, failed: bool) -> bytes | Packed:
        """The pickled value of a call; large buffers lie in a segment of their own.

        Raises:
            TransferError: the value cannot be pickled.
        """
        if transfer.is_small(value):
            return dumps(value, HIGHEST_PROTOCOL)  # in a third of the time
        if failed or self._least is None:
            return transfer.dump_value(value)
        apart = Apart(self._least)
        content = transfer.dump_value(value, apart)
        try:
            return apart.packed(content, writable=True)
        except OSError:  # no descriptor is free
            return transfer.dump_value(value)

    def _peak(self, payload: bytes | Packed = b"") -> int:
        """The peak memory of the call that has ended, with the copy of its value.

        The copy lies in a segment that this process has not mapped, beside the value.
        """
        own = self._own()
        copied = payload.fresh if isinstance(payload, Packed) else 0
        return max(own.anonymous_peak, own.private + copied)

    def _own(self) -> memory.Memory:
        """The memory of this process, without that of the pool's segments.

        All is zero if the kernel does not tell.
        """
        return memory.read_own(inherits=self.inherits_memory) or _NOTHING


def _without_interrupts(
    hook: Callable[[sys.UnraisableHookArgs], object],
) -> Callable[[sys.UnraisableHookArgs], object]:
    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            hook(unraisable)

    return tell


def _is_readable(pipe: socket.socket) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


#: A part of the errors of numpy, pandas, pyarrow and memoryview for a write to what is
#: read only, and the advice for it.
_READ_ONLY = "read-only"
_ADVICE = (
    "large arguments are shared by all workers, and read only: change a copy of the "
    'array (array.copy()), or make the pool with writable="copy"'
)

_NOTHING = memory.Memory(size=0, high=0, private=0, file=0, shared=0)
