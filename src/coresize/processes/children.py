"""Child processes that need no descriptors of multiprocessing, and no folder.

multiprocessing keeps up to three pipes for each process: one for the data with which
the process starts, one whose end tells of the end of the process, and one whose end
tells the process of the end of its parent. Here, a process has one socket, which it
inherits. Over that come the data first, then the messages of those who have started it.
The end of the process is reported by the forkserver, or by the kernel (pidfd_open(2));
the end of the parent by a pipe that all processes share (`coresize.processes.lines`).

The objects are those of multiprocessing in all other respects: they have its methods,
`multiprocessing.active_children` lists them, and locks and queues can be passed.
"""

from __future__ import annotations

import atexit
import os
import socket
import struct
import sys
import time
from multiprocessing import context, popen_fork, process, reduction, spawn, util
from typing import TYPE_CHECKING

from coresize.processes import inheritance, lines


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, Protocol

    from coresize.processes.inheritance import Name

    class Server(Protocol):
        """What forks processes for a program (`coresize.processes.forkserver`)."""

        def fork(self, here: socket.socket, there: socket.socket, /) -> int:
            """Fork a process with a socket, and return its id."""

        def code(self, pid: int, /) -> int | None:
            """The exit code of a process; None if it has not ended."""


#: The lengths of both parts of the data with which a process starts.
_LENGTHS = struct.Struct("QQ")

#: The most descriptors in one message (unix(7), SCM_MAX_FD).
_MOST = 253

#: Seconds between two looks at a process whose end no descriptor tells.
_LOOK = 0.002

#: The program of a spawned process. It sets the module search path first.
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from coresize.processes import children; "
    "sys.exit(children.run({pipe}, {line}, {tracker}))"
)


class Process(process.BaseProcess):
    """A process that calls its target with a socket, and then with the arguments.

    Args:
        method: "fork", "forkserver" or "spawn".
        target: the function that the process calls.
        name: the name of the process, with the state that the process inherits.
        args: the arguments after the socket.
        kwargs: the keyword arguments.

    Attributes:
        here: the parent's end of the socket, which blocks until the process has
            started; in the child None.
        pipe: the child's end of the socket; in the parent closed.
        channel: the channel of the forkserver, to be set for "forkserver".
    """

    def __init__(
        self,
        method: str,
        target: Callable[..., object],
        name: Name,
        *,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> None:
        super().__init__(
            target=target, name=name, args=args, kwargs=kwargs or {}, daemon=False
        )
        name.line = None
        self._start_method = method  # also that of the processes that the child starts
        self.channel: Server | None = None
        self.here: socket.socket | None
        self.here, self.pipe = lines.pair()

    def start(self) -> None:
        """Start the process; if that fails, both ends of the socket are closed.

        Raises:
            OSError: the process cannot be started.
            Exception: the arguments cannot be pickled.
        """
        try:
            with inheritance.startable():
                super().start()
        except BaseException:
            if self.here is not None:
                self.here.close()
            raise
        finally:
            self.pipe.close()

    def run(self) -> None:
        """Call the target; this runs in the child."""
        self._target(self.pipe, *self._args, **self._kwargs)  # type: ignore[attr-defined]

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process ends, opened when asked.

        Raises:
            OSError: the kernel does not have such descriptors, or no more of them.
        """
        popen: _Popen = self._popen  # type: ignore[attr-defined]
        return popen.open_sentinel()

    def __getstate__(self) -> dict[str, object]:
        """What is sent to the child: all but the ends of the socket and the channel."""
        sent = {"here": None, "pipe": None, "channel": None, "_name": str(self.name)}
        return {**self.__dict__, **sent}

    @staticmethod
    def _Popen(process_obj: Process) -> _Popen:  # noqa: N802 - a method of the base
        return _POPENS[process_obj._start_method](process_obj)


class _Received:
    """A descriptor of the parent, as it is pickled for the child."""

    def __init__(self, place: int) -> None:
        self._place = place

    def detach(self) -> int:
        """The descriptor in the child."""
        return _received[self._place]


#: The descriptors that this process has received with its data.
_received: list[int] = []


class _Popen(popen_fork.Popen):
    """A process that was started here."""

    DupFd = _Received
    sentinel: int | None = None  # type: ignore[assignment] # opened when asked for

    def __init__(self, process: Process) -> None:
        self._fds: list[int] = []
        super().__init__(process)

    def duplicate_for_child(self, fd: int) -> int:
        """Send a descriptor to the child, while its data is pickled."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def open_sentinel(self) -> int:
        """See `Process.sentinel`."""
        if self.sentinel is None:
            self.sentinel = os.pidfd_open(self.pid)
            close = util.close_fds  # type: ignore[attr-defined]
            self.finalizer = util.Finalize(self, close, (self.sentinel,))
        return self.sentinel

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the process has ended; returns its exit code, or None."""
        if timeout is None:
            return self.poll(0)
        end = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < end:
            time.sleep(_LOOK)
        return self.returncode

    def _pickle(self, process: Process) -> list[memoryview]:
        """Pickle the data of a process: first what prepares it, then its object."""
        prepares = _preparation(process.name)
        context.set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            dumps = reduction.ForkingPickler.dumps
            return [dumps(prepares), dumps(process)]
        finally:
            context.set_spawning_popen(None)

    def _send(self, here: socket.socket, data: list[memoryview]) -> None:
        head = _LENGTHS.pack(*map(len, data))
        socket.send_fds(here, [head], self._fds) if self._fds else here.sendall(head)
        for part in data:
            here.sendall(part)


class _Forked(_Popen):
    """A copy of this process."""

    method = "fork"

    def duplicate_for_child(self, fd: int) -> int:
        """The descriptor is the same."""
        return fd

    def _launch(self, process: Process) -> None:
        line = lines.of_process()
        self.pid = os.fork()
        if self.pid == 0:
            leave(lambda: process._bootstrap(lines.follow(line)))  # type: ignore[attr-defined]  # noqa: SLF001


class _Spawned(_Popen):
    """A new interpreter."""

    method = "spawn"

    def _launch(self, process: Process) -> None:
        assert process.here is not None
        data = self._pickle(process)
        kept = [process.pipe.fileno(), lines.of_process(), open_tracker()]
        pipe, line, tracker = kept
        path = inheritance.module_path()
        program = _PROGRAM.format(path=path, pipe=pipe, line=line, tracker=tracker)
        self.pid = start_python(program, kept)
        process.pipe.close()
        try:
            self._send(process.here, data)
        except OSError:  # the process has ended, or ends when it reads no more
            process.here.close()
            self.poll(0)
            raise


class _Served(_Popen):
    """A process that the forkserver forks."""

    method = "forkserver"

    def _launch(self, process: Process) -> None:
        assert process.here is not None
        assert process.channel is not None
        self._channel = process.channel
        data = self._pickle(process)
        self.pid = self._channel.fork(process.here, process.pipe)
        self._send(process.here, data)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code of the process; None if the server has not reported it."""
        while self.returncode is None:
            code = self._channel.code(self.pid)
            self.returncode = code
            if flag == os.WNOHANG:
                break
            time.sleep(_LOOK)
        return self.returncode


_POPENS = {cls.method: cls for cls in (_Forked, _Served, _Spawned)}


def open_tracker() -> int:
    """The pipe of multiprocessing's resource tracker, which is started if it must be.

    Raises:
        OSError: the tracker cannot be started.

    A shared memory that a task makes must be known to the tracker of the program.
    """
    from multiprocessing import resource_tracker

    fd = resource_tracker.getfd()
    assert fd is not None
    return fd


def _preparation(name: str) -> dict[str, object]:
    """The data for `multiprocessing.spawn.prepare`.

    multiprocessing's own function for this raises an error where the working folder is
    gone. The folder and the main module are not among the data, since the name brings
    them (`inheritance.Name`).
    """
    spawn._check_not_importing_main()  # type: ignore[attr-defined]  # noqa: SLF001
    data: dict[str, object] = {
        "name": name,
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]  # noqa: SLF001
        "authkey": process.current_process().authkey,
        "sys_path": inheritance.module_path(),
        "sys_argv": sys.argv,
        "orig_dir": process.ORIGINAL_DIR,  # type: ignore[attr-defined]
        "start_method": context._default_context.get_start_method(),  # noqa: SLF001
    }
    logger = util._logger  # type: ignore[attr-defined]  # noqa: SLF001
    if logger is not None:
        data["log_level"] = logger.getEffectiveLevel()
    return data


def start_python(program: str, fds: Sequence[int]) -> int:
    """Start an interpreter with a program and some descriptors; returns its id.

    Raises:
        OSError: the interpreter cannot be started.
    """
    executable: Any = spawn.get_executable()
    flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    command = [executable, *flags, "-c", program]
    pid: int = util.spawnv_passfds(executable, command, fds)
    return pid


# -----------------------------------------------------------------------------
# The child's side.


def run(pipe: int, line: int, tracker: int) -> int:
    """Receive the data of this process, and call its target; returns the exit code.

    Args:
        pipe: the descriptor of the child's end of the socket.
        line: the descriptor of the parent's line.
        tracker: the descriptor of the pipe of the resource tracker.
    """
    from multiprocessing import resource_tracker

    for fd in (pipe, line, tracker):
        os.set_inheritable(fd, False)  # noqa: FBT003 - positional only
    resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]  # noqa: SLF001
    line = lines.follow(line)
    own = socket.socket(fileno=pipe)
    current = process.current_process()
    current._inheriting = True  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        prepares, described = _receive(own)
        data = reduction.pickle.loads(prepares)  # type: ignore[attr-defined]
        spawn.prepare(data)  # only now: the name among the data replaces the function
        made: Process = reduction.pickle.loads(described)  # type: ignore[attr-defined]
    except EOFError:  # the parent has ended, or has given the start up
        return 1
    finally:
        del current._inheriting  # type: ignore[attr-defined]  # noqa: SLF001
    made.pipe = own
    code: int = made._bootstrap(line)  # type: ignore[attr-defined]  # noqa: SLF001
    return code


def _receive(pipe: socket.socket) -> list[bytearray]:
    """Receive both parts of the data with which this process starts.

    Raises:
        EOFError: the parent has ended.
    """
    flags = socket.MSG_WAITALL | lines.CLOEXEC
    head, fds, _, _ = socket.recv_fds(pipe, _LENGTHS.size, _MOST, flags)
    _received[:] = fds
    if len(head) < _LENGTHS.size:
        raise EOFError
    parts = [bytearray(size) for size in _LENGTHS.unpack(head)]
    for part in parts:
        rest = memoryview(part)
        while rest:
            count = pipe.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
    return parts


def leave(main: Callable[[], int]) -> NoReturn:
    """End this process, which was just forked, with the exit code of a function.

    From Python 3.13 on, a process of multiprocessing calls hooks of atexit, which are
    its own ones; before, it calls none.
    """
    code = 1
    calls_hooks = sys.version_info >= (3, 13)
    try:
        if calls_hooks:
            atexit._clear()  # noqa: SLF001
            atexit.register(util._exit_function)  # type: ignore[attr-defined]  # noqa: SLF001
        code = main()
    except Exception:  # noqa: BLE001 - as multiprocessing does
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        if calls_hooks:
            atexit._run_exitfuncs()  # noqa: SLF001
        os._exit(code)
