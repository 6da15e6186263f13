"""A forkserver that is reached without a named socket or a temporary folder.

The forkserver of multiprocessing listens at a socket in a temporary folder. Where no
folder can be written, or the path of the folder is too long for a socket, it cannot be
started; and when a cleaner of temporary files removes the socket of a running program,
no further worker can be started. It also keeps descriptors open for each process, two
in the parent and one in the server, and ends if it is refused a fork for a moment.

This forkserver inherits one end of a pair of sockets instead. Three kinds of bytes
cross such pairs, always together with descriptors (unix(7), SCM_RIGHTS):

1. Over the *control* socket, the program sends the other end of a new *channel*: each
   pool has one, so that each dispatcher waits for its own processes only.
2. Over a channel, a pool sends the *pipe* of a process that is to be forked, together
   with the pipe of multiprocessing's resource tracker. The server writes the id of
   the process into the pipe or, if the fork is refused, minus the error number.
3. Over the channel comes back the id of each process that has ended, with the exit
   code. So to learn of the end of a process takes no descriptor.

A server ends when its control socket is closed, which the kernel does when the program
ends. If the server is killed, its processes go on; the channel is closed, and the pool
watches the processes itself. The next channel is that of a new server.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
import time
from multiprocessing import connection, util

from coresize import processes
from coresize.processes import children, inheritance, lines


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

#: A number, and the id of a process with its exit code.
_NUMBER, _END = struct.Struct("q"), struct.Struct("qq")

#: The exit code of a process that has ended after its server, as in multiprocessing.
_UNKNOWN = 255

#: The exit priority after all exit functions of multiprocessing, and of pools.
_LAST = -900

#: Seconds to wait for a fork before the server is looked at.
_PATIENCE = 1.0

#: Seconds between two looks at a process whose server has ended.
_LOOK = 0.005

#: The program of the server. It sets the module search path first, and only then finds
#: this package.
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from coresize.processes import forkserver; "
    "forkserver.serve({control}, {line}, {modules!r})"
)


# -----------------------------------------------------------------------------
# The program's side.


class Channel:
    """The way to start processes, and to learn of their ends, for one pool.

    All methods but `code` are called by one thread, which waits for `socket`.

    Args:
        modules: the modules that a new server imports before it forks.

    Raises:
        OSError: no server can be started.

    Attributes:
        socket: the channel; readable when processes have ended, or the server has.
        is_closed: the server has ended.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._codes: dict[int, int] = {}
        self._bytes = b""
        self.is_closed = False
        self.socket, there = lines.pair()
        try:
            with there:
                _admit(there, modules)
        except BaseException:
            self.socket.close()
            raise

    def fork(self, here: socket.socket, there: socket.socket) -> int:
        """Fork a process, and return its id.

        Args:
            here: a socket that blocks.
            there: the connected socket, which becomes that of the process, and is
                closed here.

        Raises:
            OSError: the fork was refused, or the server has ended.
        """
        with there:
            pair = [there.fileno(), children.open_tracker()]
            socket.send_fds(self.socket, [b"f"], pair)
        while not connection.wait([here], _PATIENCE):
            self.receive()
            if self.is_closed:  # while the process waits for its data
                raise _reset()
        answer = here.recv(_NUMBER.size, socket.MSG_WAITALL)
        if len(answer) < _NUMBER.size:
            raise _reset()
        pid: int = _NUMBER.unpack(answer)[0]
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def is_open(self) -> bool:
        """Whether the server runs, as far as this can be known without an event."""
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
        try:
            return not self.is_closed and bool(self.socket.recv(1, flags))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def receive(self) -> None:
        """Note the processes that have ended, without waiting."""
        try:
            while more := self.socket.recv(4096, socket.MSG_DONTWAIT):
                self._bytes += more
            self.is_closed = True
        except BlockingIOError:
            pass
        except OSError:  # the server was killed
            self.is_closed = True
        whole = len(self._bytes) - len(self._bytes) % _END.size
        self._codes.update(_END.iter_unpack(self._bytes[:whole]))
        self._bytes = self._bytes[whole:]

    def code(self, pid: int) -> int | None:
        """The exit code of a process; None while it runs, as far as this is known.

        Any thread may call this.
        """
        code = self._codes.get(pid)
        if code is None and self.is_closed and not processes.is_running(pid):
            return _UNKNOWN
        return code

    def wait(self, pid: int, timeout: float | None) -> None:
        """Wait until a process has ended."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.code(pid) is None:
            left = _LOOK if end is None else end - time.monotonic()
            if left <= 0:
                return
            if self.is_closed:
                time.sleep(min(left, _LOOK))
            else:
                connection.wait([self.socket], None if end is None else left)
                self.receive()

    def forget(self, pid: int) -> None:
        """Drop the exit code of a process: the id may be given to another process."""
        self._codes.pop(pid, None)

    def close(self) -> None:
        """Close the channel; the processes go on."""
        self.is_closed = True
        self.socket.close()


def _reset() -> OSError:
    """The error for a server that was killed."""
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


class _Server:
    """A running server, seen from the program."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.forks = processes.forks
        self.control, there = lines.pair()
        try:
            with there:
                self.pid = _start(there.fileno(), modules)
        except BaseException:
            self.control.close()
            raise
        util.Finalize(None, self.control.close, exitpriority=_LAST)

    def drop(self) -> None:
        """Forget a server that has ended, or is the parent's."""
        self.control.close()
        if self.forks == processes.forks:
            with contextlib.suppress(OSError):  # SIGCHLD is ignored
                os.waitpid(self.pid, 0)


_server: _Server | None = None


def pid() -> int | None:
    """The id of the server of this process; None if it has not started one."""
    if _server is None or _server.forks != processes.forks:
        return None
    return _server.pid


def _admit(channel: socket.socket, modules: Sequence[str]) -> None:
    """Give a channel to the server, which is started if none runs.

    Raises:
        OSError: the server cannot be started, or has ended at once.
    """
    global _server  # noqa: PLW0603 - there is one server for a process
    with lines.lock:
        if _server is not None:
            if _server.forks == processes.forks:
                with contextlib.suppress(OSError):  # the server has ended
                    socket.send_fds(_server.control, [b"c"], [channel.fileno()])
                    return
            _server.drop()
            _server = None
        _server = _Server(modules)
        socket.send_fds(_server.control, [b"c"], [channel.fileno()])


def _start(control: int, modules: Sequence[str]) -> int:
    line = lines.of_process()
    program = _PROGRAM.format(
        path=inheritance.module_path(),
        control=control,
        line=line,
        modules=list(modules),
    )
    return children.start_python(program, [control, line])


# -----------------------------------------------------------------------------
# The server's side.


def serve(control: int, line: int, modules: Sequence[str]) -> None:
    """Fork processes until the program ends.

    Args:
        control: the descriptor of the control socket.
        line: the program's line, which each process inherits.
        modules: the modules to import first.
    """
    del sys.argv[1:]
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    util._close_stdin()  # type: ignore[attr-defined]  # noqa: SLF001
    util._flush_std_streams()  # type: ignore[attr-defined]  # noqa: SLF001
    with socket.socket(fileno=control) as listener:
        _Serving(listener, line).run()


class _Serving:
    def __init__(self, control: socket.socket, line: int) -> None:
        self._line = line
        self._children: dict[int, socket.socket] = {}
        self._pipes = os.pipe()
        for end in self._pipes:
            os.set_blocking(end, False)
        self._handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, _do_nothing),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        }
        signal.set_wakeup_fd(self._pipes[1])
        # The thread that has started this process may have blocked it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._admit)
        self._selector.register(self._pipes[0], selectors.EVENT_READ, self._reap)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _admit(self, control: socket.socket) -> None:
        data, fds, _, _ = socket.recv_fds(control, 1, 1, lines.CLOEXEC)
        if not data:  # the program has ended
            raise SystemExit
        for fd in fds:  # none if no descriptor is free: the program sees the end
            channel = socket.socket(fileno=fd)
            self._selector.register(channel, selectors.EVENT_READ, self._fork)

    def _reap(self, wakeup: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wakeup, 65536)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                channel = self._children.pop(pid, None)
                if channel is not None:
                    code = os.waitstatus_to_exitcode(status)
                    with contextlib.suppress(OSError):  # the pool has ended
                        channel.sendall(_END.pack(pid, code))

    def _fork(self, channel: socket.socket) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(channel, 1, 2, lines.CLOEXEC)
        except OSError:  # the program was killed
            data, fds = b"", []
        if not data:  # the pool has ended
            self._selector.unregister(channel)
            channel.close()
        elif len(fds) == 2:
            self._fork_with(channel, *fds)
        else:
            _answer(fds, -errno.EMFILE)
        for fd in fds:
            os.close(fd)

    def _fork_with(self, channel: socket.socket, pipe: int, tracker: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            _answer([pipe], -(error.errno or errno.EAGAIN))
            return
        if pid:
            self._children[pid] = channel
            _answer([pipe], pid)
        else:
            children.leave(lambda: self._become(pipe, tracker))

    def _become(self, pipe: int, tracker: int) -> int:
        """Turn this process, which was just forked, into that of a pool."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        for end in self._pipes:
            os.close(end)
        return children.run(pipe, self._line, tracker)


def _answer(pipes: list[int], number: int) -> None:
    for pipe in pipes[:1]:
        with contextlib.suppress(OSError):
            os.write(pipe, _NUMBER.pack(number))


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle SIGCHLD, so that the wakeup descriptor is written to."""
