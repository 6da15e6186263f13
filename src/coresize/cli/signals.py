"""Signals that end a program, for commands that have something to end first."""

from __future__ import annotations

import signal


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Signals:
    """Let signals that end a program do as Ctrl-C does: KeyboardInterrupt.

    What is ignored, as by nohup, stays so; but SIGCHLD is not: who ignores it is not
    told how a program ends.

    Attributes:
        number: the signal that came, or SIGINT.
    """

    def __init__(self) -> None:
        self.number = int(signal.SIGINT)
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._end)
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    @property
    def status(self) -> int:
        """The exit status of a program that such a signal ended, as shells have it."""
        return 128 + self.number

    def _end(self, number: int, _frame: object) -> NoReturn:
        self.number = number
        raise KeyboardInterrupt
