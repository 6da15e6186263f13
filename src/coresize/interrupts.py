"""Ctrl-C in the command ``coresize``, at any moment and however often.

Python raises KeyboardInterrupt for each one. The first is caught, and ends what runs;
a second one, while that goes on, would end the ending: it leaves a traceback, and what
was about to be written or killed. So here only the first is raised. Those that follow
within a moment are of the same hand, or of the same key held down, and are passed over.
One that comes later is of somebody who waits for too long: all that was started is
killed, and the program leaves at once. What was reported is in the journal by then.

This imports nothing of coresize, so that it is there before anything else is.
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

#: Seconds until a KeyboardInterrupt that was lost is raised again.
_AGAIN = 0.01


class Interrupts:
    """Lets signals that end a program raise KeyboardInterrupt, once.

    What is ignored, as by nohup, stays so.

    Args:
        names: of the signals.

    Attributes:
        number: the signal that came first; SIGINT where none has come.
    """

    def __init__(self, *names: str) -> None:
        self.number = int(signal.SIGINT)
        self._since: float | None = None
        self._over = False
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._come)

    @property
    def status(self) -> int:
        """The exit status of a program that such a signal ended, as shells have it."""
        return 128 + self.number

    def stop(self, number: int) -> None:
        """Stop as if a signal had come, which is not delivered to this program.

        Raises:
            KeyboardInterrupt: always.
        """
        self.number, self._since = int(number), time.monotonic()
        raise KeyboardInterrupt

    def guard(self) -> None:
        """Keep the program from tracebacks outside of its main function."""
        sys.unraisablehook = self._raise_again
        # This is called last. Python then restores the default, and a signal that comes
        # so late would still end the program by itself, with another status.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)

    def end(self) -> None:
        """The main function has ended: there is nobody to catch anything any more."""
        self._over = True

    def _come(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if self._since is None:
            self.number, self._since = number, now
            if not self._over:
                raise KeyboardInterrupt
        elif now - self._since < _MOMENT:
            return
        leave(self.status)

    def _raise_again(self, lost: sys.UnraisableHookArgs) -> None:
        """Where it was raised in a finalizer, which drops it, raise it elsewhere."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
        elif not self._over and hasattr(signal, "setitimer"):
            self._since, number = None, self.number
            signal.signal(signal.SIGALRM, lambda _, frame: self._come(number, frame))
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def leave(status: int) -> None:
    """End this program at once, with all that it has started."""
    from coresize import processes

    own = processes.own()
    for pid in list(processes.descendants(own))[1:]:
        processes.kill(pid)
    os._exit(status)


# -----------------------------------------------------------------------------
# Signals that end a program, for commands that have something to end first.


class Signals(Interrupts):
    """Let signals that end a program do as Ctrl-C does: KeyboardInterrupt, once.

    SIGCHLD is not ignored: who ignores it is not told how a program ends.
    """

    def __init__(self) -> None:
        super().__init__("SIGINT", "SIGTERM", "SIGHUP")
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
