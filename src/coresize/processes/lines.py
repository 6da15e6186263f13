"""Sockets by which a process learns that its parent has ended.

A process that was started for a parent must not outlive it, however the parent ends: by
kill -9, by ``os._exit()``, by a crash. The kernel closes what a process had open, so a
socket tells the end to whoever has the other one. That holds only while nobody else has
the parent's end open, too, and a fork copies all that is open; so what this process
forks closes its copies at once.

PR_SET_PDEATHSIG (prctl(2)) would be the signal of the end of a forkserver, which lives
as long as its children, or of the one thread that started the process.
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

#: The ends that are this process's own.
_own: weakref.WeakSet[socket.socket] = weakref.WeakSet()

#: Held by whoever changes what a fork is to find whole, and by who forks.
lock = threading.RLock()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one socket: the first for this process alone, the other to be given.

    Processes that are forked from this one, by whomever, do not keep the first.

    Raises:
        OSError: there can be none.
    """
    with lock:
        here, there = processes.socket_pair()
        _own.add(here)
    return here, there


def die_with_parent(line: socket.socket) -> None:
    """Let this process end when its parent does, in the middle of a task, too.

    Without a thread where the kernel sends the signal itself when the other end is
    closed (fcntl(2), F_SETSIG), since who has threads should not fork.

    Args:
        line: a socket over which nothing is ever sent, whose other end the parent has.
            It is not closed again.
    """
    line = socket.socket(fileno=line.detach())
    _kept.append(line)
    if not _ask_for_signal(line):
        threading.Thread(target=_watch, args=(line,), daemon=True).start()
    elif _is_closed(line):  # before the kernel was asked: it sends no signal any more
        os.kill(os.getpid(), signal.SIGKILL)


#: Lines of this process, which stay open.
_kept: list[socket.socket] = []


def _ask_for_signal(line: socket.socket) -> bool:
    """Whether the kernel will send SIGKILL when the other end is closed."""
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
    """End this process when the other end of a socket is closed."""
    try:
        line.recv(1)
    finally:
        os._exit(1)


def _let_go() -> None:
    """Close what belongs to the process that this one was forked from."""
    lock.release()
    for end in list(_own):
        end.close()
    _own.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=_let_go
    )
