"""Signals that end a program, for commands that have something to end first."""

from __future__ import annotations

import signal

from coresize.interrupts import Interrupts


class Signals(Interrupts):
    """Let signals that end a program do as Ctrl-C does: KeyboardInterrupt, once.

    SIGCHLD is not ignored: who ignores it is not told how a program ends.
    """

    def __init__(self) -> None:
        super().__init__("SIGINT", "SIGTERM", "SIGHUP")
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
