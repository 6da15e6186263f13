"""Handling signals that end a program, in particular while a process is started."""

from __future__ import annotations

import contextlib
import signal
import threading


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

#: Signals that end a program unless it catches them; Windows lacks the last.
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


def ending() -> list[int]:
    """The numbers of the signals that end a program, as far as this system has them."""
    return [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]


def keep_exit_statuses() -> None:
    """Let this program learn how its children end, even if its parent ignores SIGCHLD.

    A program inherits that; then the kernel reaps its children, and their exit statuses
    are lost (wait(2)). Call this at the start of a command, in the main thread.
    """
    if (
        hasattr(signal, "SIGCHLD")
        and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    ):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextlib.contextmanager
def handled(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], object]
) -> Iterator[None]:
    """Set a handler for some signals, and restore the old handlers after the block.

    Raises:
        ValueError: this is not the main thread; only that can set handlers.
    """
    before = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Delay signals while a process is being started, so that its id is not lost.

    Python may call a signal handler at any line, even after the process has started and
    before the call that started it returns. Signals that arrive inside the block are
    raised again at its end, so put the ``with`` inside a ``try``. Only the main thread
    runs handlers; in other threads this does nothing.
    """
    received: list[int] = []
    numbers = []
    if threading.current_thread() is threading.main_thread():
        numbers = [n for n in ending() if callable(signal.getsignal(n))]
    try:
        with handled(numbers, lambda number, _: received.append(number)):
            yield
    finally:
        for number in received:
            signal.raise_signal(number)
