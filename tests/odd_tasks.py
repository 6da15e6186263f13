"""Tasks that do to their process, or raise and return, what no task should."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path


#: The item at which a task is odd.
ODD = 5


# --- Those that fork ----------------------------------------------------------


def _wait_for(pid):
    os.waitpid(pid, 0)


def fork_and_fail(number):
    """A failed exec, whose error nobody catches in the child."""
    if number == ODD:
        pid = os.fork()
        if not pid:
            os.execv("/nowhere/program", ["program"])
        _wait_for(pid)
    return 10 * number


def fork_and_return(number):
    """The child comes back with a value of its own."""
    if number == ODD:
        pid = os.fork()
        if not pid:
            return "of the child"
        _wait_for(pid)
    return 10 * number


def fork_and_exit(number):
    if number == ODD:
        pid = os.fork()
        if not pid:
            sys.exit(0)
        _wait_for(pid)
    return 10 * number


def fork_and_interrupt(number):
    if number == ODD:
        pid = os.fork()
        if not pid:
            raise KeyboardInterrupt
        _wait_for(pid)
    return 10 * number


def fork_twice(number):
    if number == ODD:
        pid = os.fork()
        if not pid:
            os.fork()
        else:
            _wait_for(pid)
    return 10 * number


def fork_by_the_c_library(number):
    """Without Python's hooks."""
    if number == ODD:
        pid = ctypes.PyDLL(None).fork()
        if pid:
            _wait_for(pid)
    return 10 * number


def fork_in_a_thread(number):
    if number == ODD:
        thread = threading.Thread(target=_fork_and_leave)
        thread.start()
        thread.join()
    return 10 * number


def _fork_and_leave():
    pid = os.fork()
    if pid:
        _wait_for(pid)


def fork_while_sending(number):
    return Forking(10 * number) if number == ODD else 10 * number


class Forking(int):
    """A value that forks where it is pickled."""

    def __reduce__(self):
        pid = os.fork()
        if pid:
            _wait_for(pid)
        return int, (int(self),)


def fork_by_preexec(number):
    if number == ODD:
        with contextlib.suppress(OSError):
            subprocess.run(["/nowhere/program"], preexec_fn=os.getpid, check=False)
    return 10 * number


class ForkingItem:
    """An item that forks where it is unpickled."""

    def __init__(self, number):
        self.number = number

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.number == ODD:
            pid = os.fork()
            if pid:
                _wait_for(pid)


def number_of(item):
    return 10 * item.number


def fork_at_start():
    """An initializer whose child comes back from it."""
    pid = os.fork()
    if pid:
        _wait_for(pid)


def daemonize(number):
    """The usual recipe: the caller ends, and its grandchild goes on."""
    if number == ODD:
        if os.fork():
            sys.exit(0)
        os.setsid()
        if os.fork():
            os._exit(0)
    return 10 * number


# --- Those that write where they should not -------------------------------------


def _sockets():
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(path.readlink()).startswith("socket:"):
                yield int(path.name)


def write_to_sockets(number, content):
    if number == ODD:
        for descriptor in list(_sockets()):
            with contextlib.suppress(OSError):
                os.write(descriptor, content)
    return 10 * number


def repeat_an_answer(number):
    """Send an answer of an earlier call once more, by the pool's own means."""
    if number == ODD:
        from coresize.executor import protocol

        payload = b"\x80\x04K\x07."  # 7, pickled
        for number_of_call in range(4):
            message = protocol.pack(protocol.VALUE, payload, number=number_of_call)
            for descriptor in list(_sockets()):
                with contextlib.suppress(OSError):
                    os.write(descriptor, b"".join(message))
    return 10 * number


def close_sockets(number):
    if number == ODD:
        for descriptor in list(_sockets()):
            os.close(descriptor)
    return 10 * number


# --- Those that raise or return what is odd -------------------------------------


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """It refuses attributes."""


class RefusingError(Exception):
    """It refuses attributes, and has arguments."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


class SilentError(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise SystemExit(3)


class EndingError(Exception):
    """It ends the program where it is pickled."""

    def __reduce__(self):
        raise SystemExit(3)


def raise_odd(name):
    error = ERRORS[name]()
    raise error


ERRORS = {
    "frozen": FrozenError,
    "refusing": partial(RefusingError, "the text"),
    "silent": SilentError,
    "ending": partial(EndingError, "the text"),
    "exit": partial(SystemExit, "the text"),
    "generator": partial(GeneratorExit, "the text"),
}


class Ending:
    """A value that ends the program where it is unpickled."""

    def __reduce__(self):
        return _end, (os.getpid(),)


def _end(pid):
    if os.getpid() != pid:
        raise SystemExit(3)
    return Ending()


def ending_value():
    return Ending()


class EndingArgument:
    """An argument that ends the program where it is pickled."""

    def __reduce__(self):
        raise SystemExit(3)


# --- Those that take or give much -----------------------------------------------


def give(size, _item):
    """As many bytes, each of them there."""
    return b"x" * size


def length(content, *_):
    return len(content)


def _too_deep(error):
    msg = f"no depth left to pickle the causes of {error}"
    raise RecursionError(msg)


def fail_too_deep_to_pickle():
    """As where tblib lets pickle go through all causes of an error."""
    import copyreg

    copyreg.pickle(RecursionError, _too_deep)
    raise RecursionError("deep")
