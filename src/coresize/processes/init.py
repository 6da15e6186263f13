"""Process 1 of a container: the process that adopts orphans has to reap them.

A container has one process that the kernel makes the parent of each process whose own
parent has ended. If that process never waits for them, they stay as zombies, until the
container has no process left (pid_namespaces(7), pids.max). But a program that waits
for *any* child takes the exit status of its own children away from the code that waits
for these. So if the command ``coresize`` is process 1, it goes on in a child, and
process 1 does two things only: it reaps, and it passes signals on. The kernel drops
signals to process 1 that it does not expect; here, they reach a process that they end.
"""

from __future__ import annotations

import contextlib
import os
import signal


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

#: Signals of the process's own faults and of its jobs, which are not passed on.
_KEPT = ("SIGCHLD", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTTIN", "SIGTTOU")


def leave_process_1() -> None:
    """Return in a child of this process, if this is process 1; else return at once."""
    if os.getpid() != 1 or not hasattr(signal, "sigwait"):
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A blocked signal waits until it is taken, even in process 1.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    child = os.fork()
    if child:
        _serve(child)
    os.setpgid(0, 0)  # so that Ctrl-C at a terminal arrives once
    with contextlib.suppress(OSError):  # no terminal
        os.tcsetpgrp(0, os.getpgrp())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(child: int) -> NoReturn:
    """Reap, and pass signals on to a child; end as the child has ended."""
    kept = {getattr(signal, name) for name in _KEPT}
    while True:
        number = signal.sigwait(signal.valid_signals())
        if number not in kept:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(child, number)
        pid, status = 1, 0
        while pid:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
