"""Sockets by which a process learns that its parent has ended.

A process that was started for a parent must not outlive it, however the parent ends: by
kill -9, by ``os._exit()``, by a crash. The kernel then closes the parent's files, and a
socket reports that to the process that holds the other end. This works only while no
other process has the parent's end open, and a fork copies all open files; so a process
that is forked from this one closes its copies at once.

PR_SET_PDEATHSIG (prctl(2)) does not help: it reports the end of the forkserver, which
lives as long as its children, or of the one thread that started the process.
"""

from __future__ import annotations

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

#: The ends that belong to this process.
_own: weakref.WeakSet[socket.socket] = weakref.WeakSet()

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


def _ask_for_signal(line: socket.socket) -> bool:
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


def _watch(line: socket.socket) -> None:
    """Wait until the other end of a socket is closed, and end this process."""
    try:
        line.recv(1)
    finally:
        os._exit(1)


def _let_go() -> None:
    """Close the sockets that belong to the parent, after a fork."""
    lock.release()
    for end in list(_own):
        end.close()
    _own.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=_let_go
    )
