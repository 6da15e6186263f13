"""How a process ended, by what it ended with: minus the signal where one ended it."""

from __future__ import annotations

import signal


#: What SIGKILL ends it with; None on Windows, which has no such signal.
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else None


def was_killed(code: int | None) -> bool:
    """Whether SIGKILL ended it, as the kernel does where memory runs out."""
    return code is not None and code == KILLED


def signal_name(number: int) -> str:
    """What a signal is called: "SIGKILL", or "signal 40" where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:  # of real time
        return f"signal {number}"
