"""How a process ended, by its exit code: minus the signal number if a signal did it."""

from __future__ import annotations

import signal


#: The exit code of a process that SIGKILL ended; None on Windows, which has no SIGKILL.
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else None


def was_killed(code: int | None) -> bool:
    """Whether SIGKILL ended the process; the kernel sends it when memory runs out."""
    return code is not None and code == KILLED


def may_be_killed(code: int | None) -> bool:
    """Whether SIGKILL may have ended the process: it has, or nobody knows."""
    return code is None or was_killed(code)


def signal_name(number: int) -> str:
    """The name of a signal: "SIGKILL", or "signal 40" for a signal without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def describe(code: int | None) -> str:
    """How a process ended, in words.

    >>> describe(3), describe(-15)
    ('ended with exit status 3', 'was ended by SIGTERM')
    """
    if code is None:
        return (
            "ended, and how is not known: this program ignores SIGCHLD, or waits for "
            "every child"
        )
    if code >= 0:
        return f"ended with exit status {code}"
    return f"was ended by {signal_name(-code)}"
