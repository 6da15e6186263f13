"""Ctrl-C in the command ``coresize``, at any moment and however often.

Python raises KeyboardInterrupt for each Ctrl-C. The program catches the first and shuts
down. A second KeyboardInterrupt during the shutdown would abort it: with a traceback,
unwritten files and processes still running. So only the first Ctrl-C raises. Further
ones within a moment come from the same key press, or from the key held down, and are
ignored. A later one comes from a user who has waited too long: the program kills every
process that it has started, and exits at once. The journal already holds every outcome
that was reported by then.

This module imports nothing of coresize, so that it works before any other import.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time


TYPE_CHECKING = False


#: Seconds within which several signals count as one.
_MOMENT = 1.0

#: Seconds until a lost KeyboardInterrupt is raised again.
_AGAIN = 0.01


class Interrupts:
    """Makes signals that end a program raise KeyboardInterrupt, once.

    A signal that is ignored, as under nohup, stays ignored.

    Args:
        names: the names of the signals.

    Attributes:
        number: the first signal that arrived; SIGINT before any has arrived.
    """

    def __init__(self, *names: str) -> None:
        self.number = int(signal.SIGINT)
        self._since: float | None = None
        self._over = False
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    @property
    def status(self) -> int:
        """The exit status that shells give a program ended by this signal."""
        return 128 + self.number

    def stop(self, number: int) -> None:
        """Stop as if this signal had arrived, where it is not delivered to us.

        Raises:
            KeyboardInterrupt: always.
        """
        self.number, self._since = int(number), time.monotonic()
        raise KeyboardInterrupt

    def guard(self) -> None:
        """Prevent tracebacks outside of the main function."""
        sys.unraisablehook = self._raise_again
        # This exit hook runs last. Afterwards Python restores the default handler, and
        # a signal that late would end the program with another status.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)

    def end(self) -> None:
        """Note that the main function has ended, so nothing catches an exception."""
        self._over = True

    def _on_signal(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if self._since is None:
            self.number, self._since = number, now
            if not self._over:
                raise KeyboardInterrupt
        elif now - self._since < _MOMENT:
            return
        leave(self.status)

    def _raise_again(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise a KeyboardInterrupt again that a finalizer has swallowed."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
        elif not self._over and hasattr(signal, "setitimer"):
            self._since, number = None, self.number
            signal.signal(
                signal.SIGALRM, lambda _, frame: self._on_signal(number, frame)
            )
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def leave(status: int) -> None:
    """End this program at once, with every process that it has started."""
    from coresize import processes

    own = processes.own()
    for pid in list(processes.descendants(own))[1:]:
        processes.kill(pid)
    os._exit(status)


# -----------------------------------------------------------------------------
# Signals that end a program, for commands that have to clean up first.


class Signals(Interrupts):
    """Makes SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, once.

    SIGCHLD gets its default handler back: a process that ignores SIGCHLD cannot learn
    the exit status of its children.
    """

    def __init__(self) -> None:
        super().__init__("SIGINT", "SIGTERM", "SIGHUP")
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
