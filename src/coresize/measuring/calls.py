"""One call in a fresh process, measured."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import socket
import sys
import time
from multiprocessing import connection, reduction
from typing import TYPE_CHECKING

from coresize import processes
from coresize.detection import available
from coresize.detection.limits import memory_limit
from coresize.errors import CoresizeError, TaskKilledError, TaskOutOfMemoryError
from coresize.host import LiveFor
from coresize.measuring import child
from coresize.measuring.runs import (
    TOO_SHORT,
    Pause,
    Run,
    join_cgroup,
    limit_threads,
    meter_of,
)
from coresize.processes import (
    exits,
    inheritance,
    lines,
    orphans,
    segments,
    transfer,
)
from coresize.processes.buffers import Apart, Packed
from coresize.processes.main_module import explain_exit, refuse_while_importing
from coresize.processes.oom import OomCounter
from coresize.processes.transfer import TransferError
from coresize.units import format_bytes


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnContext
    from multiprocessing.process import BaseProcess
    from typing import Any, NoReturn

    from coresize.measuring.meters import Meter

_HINT = (
    "define the function at the top level of a module, start it below "
    "`if __name__ == '__main__':` in a script that is a file, or install the extra "
    "coresize[cloudpickle] for a notebook or a prompt"
)

#: Seconds that a process has to clean up and end by itself.
_PATIENCE = 5.0


def packed(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bytes | Packed:
    """A call, pickled; its large buffers lie in shared memory, where there is such.

    Raises:
        TransferError: the call cannot be pickled.
    """
    if not segments.is_available():
        return transfer.dump_call(function, args, kwargs)
    apart = Apart()
    content = transfer.dump_call(function, args, kwargs, apart=apart)
    try:
        return apart.packed(content)
    except OSError:  # no descriptor is free
        return transfer.dump_call(function, args, kwargs)


def measure_call(function: bytes, call: bytes | Packed, method: str | None) -> Run:
    """Run a call in a fresh process and measure it.

    Args:
        function: the function, pickled.
        call: the call, as of `packed`.
        method: the method, as for `coresize.profile_task`.

    Raises:
        ConfigError: the method does not work here.
        TaskKilledError: the process ended before the task did; TaskOutOfMemoryError if
            the kernel killed it because memory ran out.
        BaseException: any error that the task raises.
    """
    refuse_while_importing("measure no task")
    start_meter = meter_of(method)
    with _child(function) as (process, here):
        return _Watch(process, here).run(call, start_meter, method)


@contextlib.contextmanager
def _child(function: bytes) -> Iterator[tuple[BaseProcess, Connection]]:
    """A fresh process that waits for a call, and ends with this one at the latest.

    After success, the process has some time to end by itself; after an error, it is
    killed at once, with every process that it has started.
    """
    mark, name = orphans.new(), inheritance.Name("coresize")
    present = inheritance.current()
    variables = {**limit_threads(present.environment), **orphans.variables(mark)}
    name.inheritance = present.changed(environment=variables)
    with contextlib.ExitStack() as opened:
        process, here, sockets = _start(function, name)
        opened.enter_context(here)
        for end in sockets:
            opened.enter_context(end)
        done = False
        try:
            yield process, here
            done = True
        finally:
            here.close()
            if done:
                process.join(_PATIENCE)
            if process.exitcode is None:  # otherwise its id may belong to another
                processes.kill_tree(process.pid or 0)
            process.join()
            if not done:
                orphans.end(mark)


def _start(
    function: bytes, name: inheritance.Name
) -> tuple[BaseProcess, Connection, list[socket.socket]]:
    """Start the process.

    Returns:
        The process, this end of its pipe, and sockets that end it when they are closed.
    """
    spawn = multiprocessing.get_context("spawn")
    if inheritance.own_method(spawn) is None:
        return _start_foreign(spawn, function, name)
    from coresize.processes import children

    own = children.Process("spawn", child.run_with, name, args=(function,))
    own.start()
    assert own.here is not None
    return own, connection.Connection(own.here.detach()), []


def _start_foreign(
    spawn: SpawnContext, function: bytes, name: inheritance.Name
) -> tuple[BaseProcess, Connection, list[socket.socket]]:
    """Start the process in the way of multiprocessing, which needs a working folder."""
    with contextlib.ExitStack() as opened:
        here, there = _pipe()
        line, its_line = lines.pair()
        for end in (here, line):
            opened.enter_context(end)
        name.line = its_line if sys.platform != "win32" else None
        with its_line, there, inheritance.startable():
            process = spawn.Process(target=child.run, args=(function, there), name=name)
            process.daemon = False
            process.start()
        opened.pop_all()
        return process, here, [line]


def _pipe() -> tuple[Connection, Connection]:
    """A pipe as from multiprocessing.Pipe(), even if a sandbox refuses socketpair()."""
    try:
        return multiprocessing.Pipe()
    except OSError:
        here, there = processes.socket_pair()
        return connection.Connection(here.detach()), connection.Connection(
            there.detach()
        )


def _passes_descriptors(pipe: Connection) -> bool:
    """Whether a pipe is a Unix socket; a sandbox may refuse these."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as end:
        return end.family == socket.AF_UNIX


class _Watch:
    """The measurement of one task in its process, from ready to done."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe
        self.meter: Meter | None = None
        self.kills: OomCounter | None = None

    def run(
        self,
        call: bytes | Packed,
        start_meter: Callable[[int], Meter],
        method: str | None,
    ) -> Run:
        self._receive()  # "ready"
        pid = self.process.pid or 0
        # The memory used while getting ready belongs neither to task nor idle worker.
        processes.reset_peak(pid)
        own = start_meter(pid)
        own.sample()
        idle = own.peak
        cgroup = join_cgroup(pid, method)
        self.meter = cgroup or own
        self.kills = OomCounter(pid)
        try:
            shared = self._send(call)
            calls, *seconds = self._receive()
            self.meter.sample()
            # A cgroup is not charged for what another process has written.
            peak = cgroup.peak if cgroup else max(0, own.peak - idle - shared)
            if seconds[0] < TOO_SHORT:
                calls, *seconds = self._repeat() or (calls, *seconds)
            with contextlib.suppress(OSError):  # a repeated call has ended it
                self.pipe.send("bye")
        finally:
            self.meter.close()
        wall, delay, cpu = seconds
        return Run(
            peak=peak,
            shared=shared,
            idle=idle,
            calls=calls,
            wall=wall,
            delay=delay,
            cpu=cpu,
            exit_code=0,
            method=self.meter.method,
        )

    def _send(self, call: bytes | Packed) -> int:
        """Send the call; returns the bytes of shared memory that it uses."""
        shared, table, descriptors = 0, b"", []
        content = call.content if isinstance(call, Packed) else call
        if isinstance(call, Packed) and _passes_descriptors(self.pipe):
            shared, table, descriptors = call.mapped, call.table(), call.descriptors
        elif isinstance(call, Packed):
            table = call.contents()
        self.pipe.send((len(descriptors), table))
        for descriptor in descriptors:
            reduction.send_handle(self.pipe, descriptor, self.process.pid)
        self.pipe.send_bytes(content)
        return shared

    def _repeat(self) -> list[Any] | None:
        """The seconds of more calls; None if the task cannot be called again."""
        self.pipe.send(child.AGAIN)
        with contextlib.suppress(CoresizeError):  # the process ended in these calls
            message = self._receive(_PATIENCE)
            return message if message[0] else None
        return None

    def _receive(self, within: float = math.inf) -> list[Any]:
        """The next message of the process; measures the memory while waiting.

        Raises:
            TaskKilledError: the process has ended, or no message came within that time.
        """
        pause = Pause()
        # A forked child may hold the ends of pipe and sentinel open, and the task may
        # have closed them: so the loop also checks the state of the process.
        waited: list[Any] = [self.pipe]
        with contextlib.suppress(AttributeError, OSError):  # there are no pidfds
            waited.append(self.process.sentinel)
        message: list[Any] | None = None
        end = time.monotonic() + within
        while message is None:
            if time.monotonic() > end:
                self.process.kill()
            over = self.process.exitcode is not None
            ready = connection.wait(waited, 0 if over else pause.seconds)
            if self.pipe in ready:
                try:
                    message = self.pipe.recv()
                except (EOFError, OSError):
                    waited.remove(self.pipe)
            elif over or ready:
                self._fail()
            else:
                with pause:
                    if self.meter:
                        self.meter.sample()
        return _understood(message)

    def _fail(self) -> NoReturn:
        self.process.join()
        peak = self.meter.peak if self.meter else 0
        code = self.process.exitcode
        msg = f"the process of the task {exits.describe(code)}"
        if self.meter is None:
            why = explain_exit(code)
            msg = f"{msg} before the task began{f', {why}' if why else f': {_HINT}'}"
        else:
            msg = f"{msg}, after {format_bytes(peak)} of memory were seen"
        cls = TaskKilledError
        if exits.may_be_killed(code):
            limits = available.detect(LiveFor(processes.own()))
            msg = f"{msg}; {memory_limit(limits)}"
            if self.kills and self.kills.explains(code):
                cls = TaskOutOfMemoryError
        raise cls(msg, exit_code=code, peak_memory=peak)


def _understood(message: list[Any]) -> list[Any]:
    """The content of a message; raises the error if the message reports one."""
    kind, *rest = message
    if kind == "error":
        raise transfer.load_error(*rest)
    if kind == "unknown":
        msg = f"the other process has no such function: {_HINT}\n{rest[0]}"
        raise TransferError(msg)
    return rest
