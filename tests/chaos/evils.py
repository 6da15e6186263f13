"""Tasks that do what no task should, and what each may cost: itself, never another.

A `Way` is called with some of the items of a pool and a batch; the other items are
ordinary. `ENDS` of the way are the statuses that its own items may end with. Whatever
it does, all ordinary items end "ok" and every value belongs to its item.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import multiprocessing
import os
import pty
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path


OK = frozenset({"ok"})
FAILED = frozenset({"failed"})
CRASHED = frozenset({"crashed"})
KILLED = frozenset({"killed"})
ANY = OK | FAILED | CRASHED | KILLED
OK_OR_CRASHED = OK | CRASHED


def value_of(number):
    """The value that belongs to an item, and to no other."""
    return f"value of {int(number)}: {int(number) ** 2}"


@dataclasses.dataclass(frozen=True)
class Way:
    """One thing that a task, a value or an argument does.

    Attributes:
        act: called with the number of an item in the worker; what it returns is the
            value.
        ends: the statuses that the item may end with.
        error: the name of the error that is to be seen, or a part of its text.
        item: makes the item of a number, where it is the argument that is evil.
        same: takes the value, and returns what is to be `value_of` the item.
        others: the statuses that other items may end with, where what the task does
            leaves it open which of them have begun in its worker.
    """

    act: object
    ends: frozenset = OK
    error: str = ""
    item: object = int
    same: object = str
    others: frozenset = OK


WAYS: dict[str, Way] = {}

#: The names of ways that have to do with each other.
FAMILIES: dict[str, list[str]] = {}


def _family(name):
    """All ways that are not yet in a family."""
    known = {way for ways in FAMILIES.values() for way in ways}
    FAMILIES[name] = [way for way in WAYS if way not in known]


def way(ends=OK, error="", same=str, others=OK):
    """Put a task into the table."""

    def take(act):
        WAYS[act.__name__] = Way(act, ends, error, same=same, others=others)
        return act

    return take


def act(name, item):
    """The task of all items: every item is ordinary, but some are attacked."""
    number = int(item)
    return WAYS[name].act(number) if is_evil(number) else value_of(number)


def is_evil(number):
    return number % 8 == 3


# --- Forks ----------------------------------------------------------------------


@way()
def forks_and_returns_in_both(number):
    os.fork()
    return value_of(number)


@way()
def forks_and_returns_late_in_the_child(number):
    if not os.fork():
        time.sleep(0.3)
    return value_of(number)


@way()
def forks_and_returns_another_value_in_the_child(number):
    return value_of(number) if os.fork() else "the value of a child"


@way()
def forks_and_raises_in_the_child(number):
    if not os.fork():
        raise ValueError("of a child")
    return value_of(number)


@way()
def forks_and_leaves_the_child_by_sys_exit(number):
    if not os.fork():
        sys.exit(0)
    return value_of(number)


@way()
def forks_and_fails_to_exec(number):
    if not os.fork():
        os.execv("/nonexistent/program", ["program"])
    return value_of(number)


@way()
def forks_many(number):
    for _ in range(4):
        os.fork()  # sixteen processes
    return value_of(number)


@way()
def becomes_a_daemon_by_two_forks(number):
    """The recipe of every textbook, called from the task."""
    if not os.fork():
        os.setsid()
        if os.fork():
            sys.exit(0)
        os.chdir("/")
        time.sleep(0.3)  # the daemon, which ends by itself
    return value_of(number)


@way()
def leaves_a_daemon_and_returns_in_the_first_child(number):
    child = os.fork()
    if not child and not os.fork():
        os.setsid()
        time.sleep(0.3)
        os._exit(0)
    return value_of(number)


@way()
def forks_by_a_thread(number):
    thread = threading.Thread(target=os.fork)
    thread.start()
    thread.join()
    return value_of(number)


@way()
def forks_a_terminal(number):
    _, descriptor = pty.fork()
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return value_of(number)


@way()
def forks_while_threads_run(number):
    go = threading.Event()
    for _ in range(3):
        threading.Thread(target=go.wait).start()
    os.fork()
    go.set()
    return value_of(number)


class ForksWhenPickled:
    """The child comes into being after the task, while its value is pickled."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        os.fork()
        return value_of, (self.number,)


WAYS["forks_while_its_value_is_pickled"] = Way(ForksWhenPickled)


class RaisesAndForks(Exception):  # noqa: N818 - it does both
    def __reduce__(self):
        os.fork()
        return ValueError, ("forked",)


@way(FAILED, "forked|cannot be sent")
def forks_while_its_error_is_pickled(number):
    raise RaisesAndForks(number)


@way()
def runs_processes_of_multiprocessing(number):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=queue.put, args=(value_of(number),))
    child.start()
    found = queue.get()
    child.join()
    return found


@way()
def leaves_a_process_of_multiprocessing(number):
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.3,)).start()
    return value_of(number)


@way()
def runs_a_pool_of_the_standard_library(number):
    context = multiprocessing.get_context("fork")
    with futures.ProcessPoolExecutor(2, context) as pool:
        return next(pool.map(value_of, [number, number + 1]))


@way()
def runs_a_pool_of_ours(number):
    from coresize import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        return next(pool.map(value_of, [number, number + 1]))


@way()
def maps_in_parallel_by_ours(number):
    from coresize import parallel_map

    return parallel_map(value_of, [number, number + 1], executor="process")[0]


@way()
def leaves_a_command(number):
    subprocess.Popen(["sleep", "0.3"])
    return value_of(number)


@way(FAILED, "FileNotFoundError")
def runs_a_command_that_is_not_there(number):
    subprocess.run(["/nonexistent/program"], check=True)
    return value_of(number)


@way(FAILED, "SubprocessError")
def runs_a_command_prepared_badly(number):
    subprocess.run(["true"], check=True, preexec_fn=lambda: 1 / 0)
    return value_of(number)


_family("forks")


# --- Descriptors ----------------------------------------------------------------


def _sockets():
    for descriptor in range(3, 256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                yield descriptor


def _scribble(noise):
    for descriptor in _sockets():
        with contextlib.suppress(OSError):
            os.write(descriptor, noise)


@way(CRASHED)
def closes_all_descriptors(number):
    os.closerange(3, 256)
    return value_of(number)


@way()
def closes_the_standard_streams(number):
    os.closerange(0, 3)
    return value_of(number)


@way()
def closes_the_standard_files(number):
    sys.stdin = sys.stdout = sys.stderr = None
    return value_of(number)


@way(ANY, others=OK_OR_CRASHED)
def writes_zeros_to_its_sockets(number):
    _scribble(bytes(64))
    return value_of(number)


@way(ANY, others=OK_OR_CRASHED)
def writes_ones_to_its_sockets(number):
    _scribble(b"\xff" * 64)
    return value_of(number)


@way(ANY, others=OK_OR_CRASHED)
def writes_a_little_to_its_sockets(number):
    _scribble(b"\n")
    return value_of(number)


@way(ANY, others=OK_OR_CRASHED)
def writes_text_to_its_sockets(number):
    _scribble(b"All work and no play makes Jack a dull boy.\n" * 9)
    return value_of(number)


@way(ANY, others=OK_OR_CRASHED)
def shuts_its_sockets_down(number):
    for descriptor in _sockets():
        copy = socket.socket(fileno=os.dup(descriptor))
        with contextlib.suppress(OSError):
            copy.shutdown(socket.SHUT_RDWR)
        copy.close()
    return value_of(number)


@way(ANY)
def makes_its_sockets_not_blocking(number):
    for descriptor in _sockets():
        os.set_blocking(descriptor, False)
    return value_of(number)


@way()
def leaves_descriptors_open(number):
    for _ in range(50):
        os.dup(0)
    return value_of(number)


@way()
def may_open_no_descriptor(number):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    return value_of(number)


_family("descriptors")


# --- The state of the process -----------------------------------------------------


@way()
def works_in_a_folder_that_is_gone(number):
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    shutil.rmtree(folder)
    return value_of(number)


@way()
def may_write_no_files(number):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.umask(0o777)
    return value_of(number)


@way()
def blocks_all_signals(number):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return value_of(number)


@way()
def ignores_all_signals(number):
    for one in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(one, signal.SIG_IGN)
    return value_of(number)


@way()
def has_no_environment(number):
    os.environ.clear()
    return value_of(number)


@way()
def has_no_path_of_modules(number):
    sys.path.clear()
    return value_of(number)


@way()
def leads_a_session(number):
    with contextlib.suppress(OSError):  # it does already
        os.setsid()
    return value_of(number)


@way()
def is_nice(number):
    os.nice(5)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return value_of(number)


@way()
def leaves_threads(number):
    for daemon in (False, True):
        threading.Thread(target=time.sleep, args=(0.5,), daemon=daemon).start()
    return value_of(number)


@way()
def is_stopped_for_a_while(number):
    own = os.getpid()
    if not os.fork():
        for _ in range(400):
            with contextlib.suppress(OSError):
                if " T " in Path(f"/proc/{own}/stat").read_text():
                    break
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(own, signal.SIGCONT)
        os._exit(0)
    signal.raise_signal(signal.SIGSTOP)
    return value_of(number)


_family("state")


# --- How a process ends -----------------------------------------------------------


@way(CRASHED, "exit status 0")
def exits_with_0(number):
    os._exit(0)


@way(CRASHED, "exit status 7")
def exits_with_7(number):
    os._exit(7)


@way(KILLED, "SIGKILL")
def kills_itself(number):
    os.kill(os.getpid(), signal.SIGKILL)


@way(KILLED, "SIGTERM")
def terminates_itself(number):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


@way(CRASHED, "SIGSEGV")
def reads_where_nothing_is(number):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


@way(CRASHED, "SIGABRT")
def aborts(number):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


@way(CRASHED, "exit status 3")
def exits_in_a_thread_of_c(number):
    """The C library's exit(), which runs what was registered for it."""
    ctypes.CDLL(None).exit(3)


_family("ends")


# --- Errors -------------------------------------------------------------------------


def raising(name, make, error, ends=FAILED):
    """Put an error into the table."""

    def act(number):
        raise make(number)

    WAYS[f"raises_{name}"] = Way(act, ends, error)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818 - as users write them
    number: int


class Slotted(Exception):  # noqa: N818
    """Its attributes cannot be set, by anybody."""

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is not for you")


class Unnotable(Exception):  # noqa: N818
    def add_note(self, note):
        raise RuntimeError(note)


class Unspoken(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Leaving(Exception):  # noqa: N818
    """Whoever asks for its text is to leave."""

    def __str__(self):  # noqa: PLE0307 - it never returns
        sys.exit("its text")

    __repr__ = __str__


class TwoArguments(Exception):  # noqa: N818
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


class Unpickled(Exception):  # noqa: N818
    """It does something else where it is unpickled."""

    def __init__(self, call, *arguments):
        super().__init__("it can be made once")
        self.call = call, arguments

    def __reduce__(self):
        return self.call


class UnpickledInTheParent(Exception):  # noqa: N818
    """It can be unpickled where it was raised, and nowhere else."""

    def __init__(self, pid):
        super().__init__(pid)
        if pid != os.getpid():
            raise RuntimeError("not here")


class ExitsInTheParent(Exception):  # noqa: N818
    def __init__(self, pid):
        super().__init__(pid)
        if pid != os.getpid():
            sys.exit("of an error")


class Base(BaseException):
    """No Exception."""


class Incomparable(Exception):  # noqa: N818
    def __eq__(self, other):
        raise RuntimeError("compare nothing")

    __hash__ = None

    def __bool__(self):
        raise RuntimeError("neither true nor false")


class Pretending(Exception):  # noqa: N818
    """Its class is another on the outside."""

    __class__ = property(lambda _: sys.exit("of a class"))


def _with_cause(number):
    error = ValueError(number)
    error.__cause__ = error.__context__ = error
    return error


def _with_lock(number):
    error = ValueError(number)
    error.lock = threading.Lock()
    return error


def _with_notes(number):
    error = ValueError(number)
    error.__notes__ = 7
    return error


def _too_deep(number):
    return _too_deep(number + 1)


def _of_asyncio():
    import asyncio

    return asyncio.CancelledError()


def _local(number):
    class Local(Exception):  # noqa: N818
        pass

    return Local(number)


for _name, _make, _error in [
    ("a_frozen_dataclass", Frozen, "Frozen"),
    ("what_refuses_attributes", Slotted, "Slotted"),
    ("what_refuses_notes", Unnotable, "Unnotable"),
    ("what_has_no_text", Unspoken, "Unspoken"),
    ("what_exits_for_its_text", Leaving, "Leaving"),
    ("what_takes_two_arguments", lambda n: TwoArguments(n, n), "TwoArguments"),
    ("what_is_unpickled_as_a_text", lambda _: Unpickled(str, "a text"), "Unpickled"),
    ("what_is_unpickled_by_an_error", lambda _: Unpickled(int, "x"), "Unpickled"),
    ("what_is_unpickled_by_an_exit", lambda _: Unpickled(sys.exit, 4), "Unpickled"),
    ("what_is_unpickled_slowly", lambda _: Unpickled(time.sleep, 0.1), "Unpickled"),
    ("what_is_pickled_badly", lambda _: Unpickled(7), "Unpickled"),
    ("what_fails_in_the_parent", lambda _: UnpickledInTheParent(os.getpid()),
     "UnpickledInTheParent"),
    ("what_exits_in_the_parent", lambda _: ExitsInTheParent(os.getpid()),
     "ExitsInTheParent"),
    ("what_is_no_exception", Base, "Base"),
    ("what_cannot_be_compared", Incomparable, "Incomparable"),
    ("what_pretends_another_class", Pretending, "Pretending"),
    ("what_is_its_own_cause", _with_cause, "ValueError"),
    ("what_holds_a_lock", _with_lock, "ValueError"),
    ("what_has_wrong_notes", _with_notes, "ValueError"),
    ("what_is_local", _local, "Local"),
    ("a_deep_recursion", _too_deep, "RecursionError"),
    ("a_system_exit", SystemExit, "SystemExit"),
    ("a_system_exit_of_an_object", lambda _: SystemExit(object()), "SystemExit"),
    ("a_generator_exit", GeneratorExit, "GeneratorExit"),
    ("a_stop_iteration", StopIteration, "StopIteration"),
    ("a_memory_error", MemoryError, "MemoryError"),
    ("a_timeout", TimeoutError, "TimeoutError"),
    ("an_error_of_the_operating_system", lambda n: OSError(n, "x", b"\xff"), "Error"),
    ("a_broken_pool", lambda _: futures.BrokenExecutor("of a task"), "BrokenExecutor"),
    ("a_group", lambda n: ExceptionGroup("of many", [ValueError(n), Frozen(n)]), ""),
    ("a_group_that_cannot_be_pickled",
     lambda n: ExceptionGroup("of many", [_with_lock(n), _local(n)]), "Group"),
    ("a_group_of_base_errors",
     lambda n: BaseExceptionGroup("of all", [Base(n), KeyboardInterrupt()]), "Group"),
    ("a_surrogate", lambda _: ValueError("\udcff of a name of a file"), "ValueError"),
    ("a_nul", lambda _: ValueError("a\0b\nc\x1b[2J"), "ValueError"),
    ("a_long_text", lambda n: ValueError(value_of(n) * 200_000), "ValueError"),
]:  # fmt: skip
    raising(_name, _make, _error)

# Whether these are errors of the task or its cancellation may be told either way.
_CANCELLED = FAILED | {"cancelled"}
raising("a_cancellation", lambda _: futures.CancelledError(), "Cancelled", _CANCELLED)
raising("one_of_asyncio", lambda _: _of_asyncio(), "Cancelled", _CANCELLED)
raising("an_interrupt", lambda _: KeyboardInterrupt(), "Keyboard", _CANCELLED)


_family("errors")


# --- Values ---------------------------------------------------------------------------


class Unpickles:
    """A value that makes a call where it is unpickled."""

    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


class Hostile:
    """A value that answers no question."""

    def __init__(self, number):
        self.number = number

    def _refuse(self, *_):
        raise RuntimeError("ask nothing")

    __eq__ = __bool__ = __len__ = __repr__ = __str__ = __iter__ = __hash__ = _refuse


class Obliging:
    """A value that has every attribute."""

    def __init__(self, number):
        self.number = number

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class Dying:
    """A value whose end is an error, in the worker and in the parent."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        sys.exit("of a value")


def slow_value_of(number):
    time.sleep(0.1)
    return value_of(number)


def raise_(error):
    raise error


def _deep(number):
    value = []
    for _ in range(100_000):
        value = [value]
    return value


def _ring(number):
    ring = [value_of(number)]
    ring.append(ring)
    return ring


def _numbered(value):
    return value_of(value.number)


for _name, _act, _ends, _error, _same in [
    ("exits_when_unpickled", lambda _: Unpickles(sys.exit, 5), FAILED, "", str),
    ("fails_when_unpickled", lambda _: Unpickles(int, "x"), FAILED, "unpickled|read",
     str),
    ("is_left_when_unpickled",
     lambda _: Unpickles(raise_, GeneratorExit()), FAILED, "", str),
    ("is_unpickled_slowly", lambda n: Unpickles(slow_value_of, n), OK, "", str),
    ("is_pickled_badly", lambda _: Unpickles(7), FAILED, "Pickling|Transfer", str),
    ("is_large", lambda n: value_of(n) * 2**20, OK, "",
     lambda value: value[: len(value) >> 20]),
    ("contains_itself", _ring, OK, "", lambda value: value[1][1][0]),
    ("is_too_deep", _deep, FAILED, "", str),
    ("is_a_function_without_a_name", lambda _: lambda: 1, FAILED, "pickle|local", str),
    ("is_a_generator", lambda _: iter(lambda: 1, 2), FAILED, "pickle|local", str),
    ("is_a_lock", lambda _: threading.Lock(), FAILED, "pickle", str),
    ("is_a_file", lambda _: sys.stderr, FAILED, "pickle", str),
    ("is_an_error", lambda n: ValueError(value_of(n)), OK, "", str),
    ("is_a_base_error", lambda n: SystemExit(value_of(n)), OK, "", str),
    ("answers_nothing", Hostile, OK, "", _numbered),
    ("has_every_attribute", Obliging, OK, "", _numbered),
    ("dies_with_an_error", Dying, OK, "", _numbered),
]:  # fmt: skip
    WAYS[f"value_{_name}"] = Way(_act, _ends, _error, same=_same)


_family("values")


# --- Arguments ------------------------------------------------------------------------


class Item:
    """An argument that makes a call where it is unpickled, or where it is pickled."""

    def __init__(self, number, call=None, *arguments, reduced=None):
        self.number = number
        self.call = call, arguments
        self.reduced = reduced

    def __int__(self):
        return self.number

    __index__ = __int__

    def __reduce__(self):
        return self.reduced() if self.reduced else self.call


for _name, _call, _ends, _error in [
    ("fails_when_unpickled", (int, "x"), FAILED, "ValueError"),
    ("exits_when_unpickled", (sys.exit, 6), FAILED, "SystemExit"),
    ("interrupts_when_unpickled", (raise_, KeyboardInterrupt()), _CANCELLED, "Keyb"),
    ("leaves_when_unpickled", (os._exit, 9), CRASHED, "exit status 9"),
    ("kills_when_unpickled", (signal.raise_signal, 9), KILLED, "SIGKILL"),
    ("is_pickled_badly", (7,), FAILED, "cannot be sent"),
    ("is_unpickled_slowly", (slow_value_of, 1), FAILED, "invalid literal"),
]:
    WAYS[f"argument_{_name}"] = Way(
        value_of, _ends, _error, item=lambda n, call=_call: Item(n, *call)
    )

WAYS["argument_exits_when_pickled"] = Way(
    value_of, FAILED, "", item=lambda n: Item(n, reduced=sys.exit)
)

_family("arguments")
