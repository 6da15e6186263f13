"""Signals that end a program: what they find while something is started."""

from __future__ import annotations

import contextlib
import signal
import threading


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

#: Signals that end a program and that it may catch; Windows lacks the last.
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


def ending() -> list[int]:
    """The numbers of the signals that end a program, as far as this system has them."""
    return [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]


@contextlib.contextmanager
def handled(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], object]
) -> Iterator[None]:
    """Have a function called for signals, and at the end what was called before.

    Raises:
        ValueError: this is not the main thread, which alone has handlers.
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
    """Let signals wait until a process was started: else nobody would know it.

    Python calls its handlers between any two lines, also while the process is there and
    the call that made it has not returned. What came is told at the end, within the
    ``with``'s own ``try``. Only the main thread has handlers to be called.
    """
    came: list[int] = []
    numbers = []
    if threading.current_thread() is threading.main_thread():
        numbers = [one for one in ending() if callable(signal.getsignal(one))]
    try:
        with handled(numbers, lambda number, _: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)
