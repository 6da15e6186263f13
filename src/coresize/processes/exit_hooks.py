"""Hooks that run at the end of a process, however the process was started.

A child of multiprocessing ends by os._exit() and never calls the hooks of atexit. It
calls the finalizers of multiprocessing.util and then waits for its children; the main
process calls these finalizers from a hook of atexit. So the finalizers run in every
process. They must be registered in the process itself: multiprocessing clears them
after a fork, and again after importing the main module.
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


#: The order of the hooks; the largest number comes first. MAPS starts the remaining
#: calls of maps, HANDING_ON passes tasks on to pools, CALLS makes the calls that run in
#: the caller, POOLS shuts down the pools, WORDS logs what nobody has read.
MAPS, HANDING_ON, CALLS, POOLS, WORDS = 130, 120, 110, 100, 0

_finalizers: dict[Callable[[], None], tuple[int, util.Finalize]] = {}


def register_last(hook: Callable[[], object]) -> None:
    """Register a hook that runs at the end of the program, before all earlier hooks.

    Args:
        hook: a function of a module. It runs once, however often it is registered.
    """
    hooks = getattr(threading, "_threading_atexits", None)  # no public name
    if hooks is not None:
        hooks[:] = [one for one in hooks if one is not _last.get(hook)]
    getattr(threading, "_register_atexit", atexit.register)(hook)
    if hooks:
        _last[hook] = hooks[-1]


#: What threading keeps for each hook that `register_last` has registered.
_last: dict[Callable[[], object], object] = {}


def is_interrupted() -> bool:
    """Whether Ctrl-C has ended this program; then it waits for no running task."""
    return getattr(sys, "last_type", None) is KeyboardInterrupt


def register(function: Callable[[], None], order: int) -> None:
    """Register a function to run once at the end of this process.

    Args:
        function: a function of a module; the reference to it is never dropped.
        order: the place among other functions; the largest comes first.
    """
    pid, finalizer = _finalizers.get(function, (0, None))
    if pid != os.getpid() or finalizer is None or not finalizer.still_active():
        finalizer = util.Finalize(None, function, exitpriority=order)
        _finalizers[function] = (os.getpid(), finalizer)


# -----------------------------------------------------------------------------
# Work that remains for an object after its last reference is gone.
#
# A finalizer runs wherever the garbage collector happens to run: in the dispatcher of a
# pool, in a worker thread, in a thread that holds some lock at that moment. If the
# finalizer waits for something that needs this very thread, the program hangs. So there
# is one rule: **a finalizer never waits.** It does what it can do at once, and passes
# slow work to `later`: waiting for running tasks, reading input, taking locks.
#
# `later` starts a thread with `_thread`, because `threading.Thread.start` takes a lock
# that the interrupted code may hold, and waits until the thread runs. The program does
# not end before that thread does: `wait` runs at the end of the program, before the
# standard library shuts down its thread pools, to which the thread may be submitting.


class Unfinished(Protocol):
    """A map that has not started all of its calls."""

    def finish(self) -> None:
        """Read the rest of the input and start all calls."""

    def cancel(self) -> None:
        """Start no more calls."""

    def start_all(self) -> None:
        """Start a call for each item that has been read."""


class _Work:
    """The work of one thread.

    Attributes:
        over: a lock that is held until the work is done.
        thread: the thread that does the work; 0 before that has begun.
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
    """Do some work soon, in a thread of its own.

    Args:
        work: the function that does the work.
        hurry: a function that is called if Ctrl-C ends the program before the work is
            done; it should make the work end soon.

    Returns:
        False if no thread can be started, as when the interpreter is ending.
    """
    pending = _Work(work, hurry)
    _pending.add(pending)
    try:
        _thread.start_new_thread(pending, ())
    except RuntimeError:
        _pending.discard(pending)
        return False
    return True


def is_collecting() -> bool:
    """Whether this thread is collecting garbage: the code below may hold any lock.

    Otherwise a finalizer runs where the last reference was dropped, like a call.
    """
    return _collector == threading.get_ident()


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    global _collector  # noqa: PLW0603 - there is one collector
    _collector = threading.get_ident() if phase == "start" else 0


_collector = 0
gc.callbacks.append(_note_collection)


def wait() -> bool:
    """Wait until all work passed to `later` is done; returns False if there was none.

    A task must not call this: the work may be waiting for that very task.
    """
    here = threading.get_ident()
    works = [work for work in list(_pending) if work.thread != here]
    for work in works:
        with work.over:
            pass
    return bool(works)


def _finish() -> None:
    """Wait at the end of the program; after Ctrl-C, ask the work to hurry first."""
    if is_interrupted():
        for work in list(_pending):
            with contextlib.suppress(Exception):
                work.hurry()
    wait()


# `threading` calls its hooks last in, first out: this one before those that the
# standard library has registered.
getattr(threading, "_register_atexit", atexit.register)(_finish)

if hasattr(os, "register_at_fork"):  # the threads do not exist in the child
    os.register_at_fork(after_in_child=_pending.clear)
