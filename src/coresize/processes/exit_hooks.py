"""What is done at the end of a process, however that was started.

A process of multiprocessing ends by os._exit() and never calls the hooks of atexit. It
calls the finalizers of multiprocessing.util, and then waits for its children; the main
process calls them by a hook of atexit. So they are what ends in every process. They
have to be registered in the process itself: multiprocessing forgets them at a fork, and
once more when it has imported the main module.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import os
import sys
import threading
from multiprocessing import util
from typing import Protocol


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


#: The order of what is done at the end: the largest comes first. What starts the calls
#: of maps, what hands tasks on to pools, what makes the calls of the caller, the pools.
MAPS, HANDING_ON, CALLS, POOLS = 130, 120, 110, 100

_finalizers: dict[Callable[[], None], tuple[int, util.Finalize]] = {}


def register_last(hook: Callable[[], object]) -> None:
    """Have something called at the end of the program, before all that is registered.

    Args:
        hook: a function of a module. However often it is registered, it is called once.
    """
    hooks = getattr(threading, "_threading_atexits", None)  # no public name
    if hooks is not None:
        hooks[:] = [one for one in hooks if getattr(one, "func", one) is not hook]
    getattr(threading, "_register_atexit", atexit.register)(hook)


def is_interrupted() -> bool:
    """Whether Ctrl-C ends this program: then nothing that runs is waited for."""
    return getattr(sys, "last_type", None) is KeyboardInterrupt


def register(function: Callable[[], None], order: int) -> None:
    """Call a function at the end of this process; once, however often this is called.

    Args:
        function: of a module, as it is never forgotten.
        order: its place among others; the largest comes first.
    """
    pid, finalizer = _finalizers.get(function, (0, None))
    if pid != os.getpid() or finalizer is None or not finalizer.still_active():
        made = util.Finalize(None, function, exitpriority=order)
        _finalizers[function] = (os.getpid(), made)


# -----------------------------------------------------------------------------
# What is left to be done for an object that nobody holds any more.
#
# A finalizer runs wherever the garbage collector happens to run: in the dispatcher of a
# pool, in a worker thread, in a thread that holds some lock at that moment. What it
# waits for may need that very thread, and then the program hangs. So there is one rule:
# **a finalizer never waits.** It does what can be done at once, and hands over to
# `later` what takes time: tasks that are still running, an input that is not taken yet,
# locks.
#
# `later` starts a thread with `_thread`, since `threading.Thread.start` takes a lock
# that the interrupted code may hold, and waits until the thread runs. The program does
# not end before that thread has: `wait` is called at its end, before the standard
# library ends its thread pools, to which such a thread may be submitting.


class Unfinished(Protocol):
    """A map of which calls are still to be started."""

    def finish(self) -> None:
        """Take all of its input and start all calls."""

    def cancel(self) -> None:
        """Start no more calls."""

    def start_all(self) -> None:
        """Start what was taken."""


class _Work:
    """What one thread does.

    Attributes:
        over: a lock that is held until it is done.
        thread: the thread that does it; 0 before that has begun.
    """

    __slots__ = ("_hurry", "_work", "over", "thread")

    def __init__(
        self, work: Callable[[], object], hurry: Callable[[], object] | None
    ) -> None:
        self.over = _thread.allocate_lock()
        self.over.acquire()
        self.thread = 0
        self._work = work
        self._hurry = hurry

    def __call__(self) -> None:
        self.thread = threading.get_ident()
        try:
            self._work()
        finally:
            _pending.discard(self)
            self.over.release()

    def hurry(self) -> None:
        if self._hurry is not None:
            self._hurry()


_pending: set[_Work] = set()


def later(
    work: Callable[[], object], *, hurry: Callable[[], object] | None = None
) -> bool:
    """Have something done soon, in a thread of its own.

    Args:
        work: what is done.
        hurry: called when the program ends by Ctrl-C and waits for it.

    Returns:
        False where no thread can be started, as when the interpreter ends.
    """
    one = _Work(work, hurry)
    _pending.add(one)
    try:
        _thread.start_new_thread(one, ())
    except RuntimeError:
        _pending.discard(one)
        return False
    return True


def is_collecting() -> bool:
    """Whether this thread collects garbage: then what it interrupts may hold any lock.

    Else a finalizer runs where the last reference was dropped, as a call would.
    """
    return _collector == threading.get_ident()


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    global _collector  # noqa: PLW0603 - there is one collector
    _collector = threading.get_ident() if phase == "start" else 0


_collector = 0
gc.callbacks.append(_note_collection)


def wait() -> bool:
    """Wait until all that was handed over is done; False where nothing was.

    Must not be called by a task, which is perhaps what is waited for.
    """
    here = threading.get_ident()
    found = [one for one in list(_pending) if one.thread != here]
    for one in found:
        with one.over:
            pass
    return bool(found)


def _finish() -> None:
    """At the end of the program; after Ctrl-C no task is waited for."""
    if is_interrupted():
        for one in list(_pending):
            with contextlib.suppress(Exception):
                one.hurry()
    wait()


# As `threading` calls them before the standard library's own: last in, first out.
getattr(threading, "_register_atexit", atexit.register)(_finish)

if hasattr(os, "register_at_fork"):  # there the threads do not exist
    os.register_at_fork(after_in_child=_pending.clear)
