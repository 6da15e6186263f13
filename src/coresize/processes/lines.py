"""How a process learns that its parent has ended: by a line, which the parent holds.

A process that was started for a parent must not outlive it, however the parent ends: by
kill -9, by ``os._exit()``, by a crash. The kernel then closes the parent's files, and a
pipe or socket reports that to the process that holds the other end. This works only
while no other process has the parent's end open, and a fork copies all open files; so a
process that is forked from this one closes its copies at once.

One pipe is enough for all processes that this one starts (`of_process`), and takes two
descriptors, however many they are. The kernel notes per open file description whom it
signals (fcntl(2), F_SETOWN), and processes that inherit a descriptor share the
description. So each process opens the pipe once more, by its name in /proc. Where that
is not possible, a thread waits for the end of the pipe.

PR_SET_PDEATHSIG (prctl(2)) does not help: it reports the end of the forkserver, which
lives as long as its children, or of the one thread that started the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import weakref

from coresize import processes


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: The flag of recvmsg(2) that keeps received descriptors from commands; Linux has it.
CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class End:
    """A descriptor that belongs to this process.

    Args:
        number: the descriptor.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Close the descriptor; its number is -1 from then on."""
        number, self.number = self.number, -1
        if number >= 0:
            with contextlib.suppress(OSError):  # the program has closed all files
                os.close(number)


#: The ends that belong to this process.
_own: weakref.WeakSet[socket.socket | End] = weakref.WeakSet()

#: The line of this process: the end that other processes inherit, and its own end.
_line: tuple[int, End] | None = None

#: Held while changing state that a fork must copy consistently, and during a fork.
lock = threading.RLock()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets: one for this process, one for a process it starts.

    Processes that are forked from this one close the first socket.

    Raises:
        OSError: the sockets cannot be made.
    """
    with lock:
        here, there = processes.socket_pair()
        _own.add(here)
    return here, there


def keep(number: int) -> End:
    """A descriptor that processes that are forked from this one close."""
    end = End(number)
    with lock:
        _own.add(end)
    return end


def of_process() -> int:
    """The end of this process's line that the processes that it starts inherit.

    Raises:
        OSError: the pipe cannot be made.
    """
    global _line  # noqa: PLW0603 - there is one line for this process
    with lock:
        if _line is None:
            there, here = os.pipe()
            _line = there, keep(here)
        return _line[0]


def follow(line: int) -> int:
    """Make this process end when the process ends that a line belongs to.

    Args:
        line: a descriptor from `of_process`, of the parent.

    Returns:
        The descriptor that takes its place, and has to stay open.
    """
    try:
        own = os.open(f"/proc/self/fd/{line}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # no /proc
        threading.Thread(target=_wait, args=(line,), daemon=True).start()
        return line
    os.close(line)
    if not _ask_for_signal(own):
        os.set_blocking(own, True)
        threading.Thread(target=_wait, args=(own,), daemon=True).start()
    elif _has_ended(own):  # before F_SETSIG: the kernel sends no signal
        os.kill(os.getpid(), signal.SIGKILL)
    return own


def die_with_parent(line: socket.socket) -> None:
    """Make this process end when its parent ends, even in the middle of a task.

    If possible, the kernel sends a signal when the other end is closed (fcntl(2),
    F_SETSIG). A thread that watches the socket is the second choice, because a process
    with threads should not fork.

    Args:
        line: a socket whose other end the parent holds; nothing is ever sent over it.
            It stays open.
    """
    line = socket.socket(fileno=line.detach())
    _open_lines.append(line)
    if not _ask_for_signal(line):
        threading.Thread(target=_watch, args=(line,), daemon=True).start()
    elif _is_closed(line):  # closed before F_SETSIG: the kernel sends no signal
        os.kill(os.getpid(), signal.SIGKILL)


#: The lines of this process; the references keep them open.
_open_lines: list[socket.socket] = []


def _ask_for_signal(line: socket.socket | int) -> bool:
    """Ask the kernel to send SIGKILL when the other end is closed; whether it will."""
    if not hasattr(fcntl, "F_SETSIG"):
        return False
    try:
        fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(line, fcntl.F_GETFL)
        fcntl.fcntl(line, fcntl.F_SETFL, flags | os.O_ASYNC)
    except OSError:  # a sandbox does not permit it
        return False
    return True


def _is_closed(line: socket.socket) -> bool:
    try:
        return not line.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:  # reset
        return True


def _has_ended(line: int) -> bool:
    """Whether no process holds the other end of a pipe; nothing is ever written."""
    try:
        return not os.read(line, 1)
    except BlockingIOError:
        return False


def _wait(line: int) -> None:
    """Wait until no process holds the other end of a pipe, and end this process."""
    try:
        os.read(line, 1)
    finally:
        os._exit(1)


def _watch(line: socket.socket) -> None:
    """Wait until the other end of a socket is closed, and end this process."""
    try:
        line.recv(1)
    finally:
        os._exit(1)


def _let_go() -> None:
    """Close the ends that belong to the parent, after a fork."""
    global _line  # noqa: PLW0603 - as above
    lock.release()
    for end in list(_own):
        end.close()
    _own.clear()
    _line = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=_let_go
    )
