"""How a process ended, by its exit code: minus the signal number if a signal did it."""

from __future__ import annotations

import signal


#: The exit code of a process that SIGKILL ended; None on Windows, which has no SIGKILL.
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else None


def was_killed(code: int | None) -> bool:
    """Whether SIGKILL ended the process; the kernel sends it when memory runs out."""
    return code is not None and code == KILLED


def signal_name(number: int) -> str:
    """The name of a signal: "SIGKILL", or "signal 40" for a signal without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
