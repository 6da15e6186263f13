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


def describe(code: int | None) -> str:
    """How a process ended, in words.

    >>> describe(3), describe(-15)
    ('ended with exit status 3', 'was ended by SIGTERM')
    """
    if code is None:
        return "ended, and how is not known (SIGCHLD is ignored)"
    if code >= 0:
        return f"ended with exit status {code}"
    return f"was ended by {signal_name(-code)}"
