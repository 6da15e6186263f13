"""Passing inherited process state to a process that is not a direct child.

A forked child has the environment, the working folder, the umask, the CPUs, the
priority, the limits and the signals of its parent at the moment of the fork. But a
process that a forkserver forks has the state in which the *server* was started, at the
first pool of the program; and a process that another thread spawns has that thread's
CPUs, priority and blocked signals. So the state is read where a task is submitted, sent
along, and set in the new process before that imports the main module: libraries read
the environment at their import.

State that cannot be read or set is left as it is: a process without the permission to
raise its priority still works.

The order in the new process is delicate. multiprocessing sends two messages: first the
data to prepare the process (spawn.get_preparation_data), then its function and
arguments. The dispatcher's thread collects the first when it starts the process. By
then, the working folder may have changed since the task was submitted, and
``__main__.__file__`` may be gone (`coresize.processes.main_module`). Changing
``__main__`` or the folder of the *parent* for a moment would affect its other threads.
So the *child* corrects the data: `adopt` runs while the message is unpickled, and
replaces spawn.prepare for the one call that follows.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import operator
import os
import signal
import sys
from multiprocessing import context as contexts
from multiprocessing import process

from coresize import processes
from coresize.model import Value
from coresize.processes import lines, main_module


try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.context import BaseContext
    from typing import Any

    from coresize.processes.main_module import MainModule

#: The resource limits of a process, by their numbers.
_LIMITS = sorted(
    {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
)

#: The signals, without real-time signals, whose handlers can be set; the handler of
#: SIGCHLD belongs to the forkserver.
_SIGNALS = sorted(
    number
    for number in signal.valid_signals()
    if number < 32
    and number
    not in {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP", "SIGCHLD")}
)

#: Python's own default handlers, where they differ from the system's.
_DEFAULTS: dict[int, object] = {signal.SIGINT: signal.default_int_handler}


class Inheritance(Value):
    """The state that a process forked at one moment would inherit; None if unknown.

    Attributes:
        environment: all environment variables.
        folder: the working folder.
        umask: the permissions that new files do not get.
        cpus: the CPUs that the thread may use.
        priority: the nice value of the thread.
        limits: the soft and the hard limit of each resource.
        blocked: the signals that the thread has blocked.
        handlers: for each signal, whether it is ignored or has its default handler;
            None if the program has a handler of its own.
        main: the main module.
    """

    environment: Mapping[str, str]
    folder: str | None
    umask: int | None
    cpus: frozenset[int] | None
    priority: int | None
    limits: Mapping[int, tuple[int, int]]
    blocked: frozenset[int] | None
    handlers: Mapping[int, signal.Handlers | None]
    main: MainModule

    def changed(self, **fields: object) -> Inheritance:
        """A copy with some fields changed."""
        every: dict[str, Any] = {**self.as_dict(), **fields}
        return Inheritance(**every)


class Name(str):
    """The name of a process, which carries the inherited state along.

    multiprocessing sends the name before anything else, even before the main module is
    imported (get_preparation_data()): so the environment is set before any library
    reads it at its import. At that moment the module search path is not yet set, and
    this package may not be found; so unpickling first sets the path, with nothing but
    the standard library, to the value that multiprocessing sets a moment later. And a
    process that is still importing ends with its parent.

    A process is made after its name, and copies the key of the current process. In a
    worker of celery, that is a process of billiard, a copy of multiprocessing, whose
    keys can be sent only to its own processes; so a name replaces such a key by an
    equal one of multiprocessing.

    Attributes:
        inheritance: the state to inherit.
        line: the socket for `lines.die_with_parent`, or None. Only the first pickling
            sends it: multiprocessing sends the name again with the process.
    """

    __slots__ = ("inheritance", "line")
    inheritance: Inheritance
    line: socket.socket | None

    def __init__(self, _: str) -> None:
        config = process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
        config["authkey"] = process.AuthenticationString(config["authkey"])  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        module = _Call(importlib.import_module, "sys")
        set_path = _Call(setattr, module, "path", module_path())
        calls = [set_path, _Call(adopt, self.inheritance)]
        line, self.line = self.line, None
        if line is not None:
            calls.insert(1, _Call(lines.die_with_parent, line))
        return operator.getitem, ((str(self), *calls), 0)


class _Call:
    """A call that unpickling makes; its result takes the place of this object."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def module_path() -> list[str]:
    """The module search path for another process: "" is the folder at the start."""
    original = process.ORIGINAL_DIR or ""  # type: ignore[attr-defined]
    return [folder or original for folder in sys.path]


def own_method(context: BaseContext) -> str | None:
    """The start method of a context, if `children` can start processes by that method.

    None on Windows; for a frozen program, which multiprocessing starts in a way of its
    own; and for a context whose processes are those of another library.
    """
    if sys.platform == "win32" or getattr(sys, "frozen", False):
        return None
    cls = getattr(context, "Process", None)
    return context.get_start_method() if cls in _CLASSES else None


#: The classes of multiprocessing's own processes; the first is that of the module.
_CLASSES = {contexts.Process} | {
    getattr(contexts, name, contexts.Process)
    for name in ("ForkProcess", "ForkServerProcess", "SpawnProcess")
}


def folder() -> str | None:
    """The working folder; None if the folder was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - called for each task
    except OSError:
        return None


#: Bytes for a path (PATH_MAX of Linux); a longer one is read by Python.
_ROOM = 4096


@functools.cache
def folder_reader() -> Callable[[], str | None]:
    """A function that does what `folder` does, and lets no other thread run meanwhile.

    os.getcwd() releases the lock of the interpreter (GIL). A thread that submits many
    calls would lose the lock to the dispatcher's thread at each of them, and to change
    threads takes longer than to submit a call.
    """
    try:
        import ctypes

        read = ctypes.PyDLL(None).getcwd  # which keeps the lock
        buffer = ctypes.create_string_buffer(_ROOM)
    except (AttributeError, ImportError, OSError, TypeError):  # Windows
        return folder
    read.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    read.restype = ctypes.c_char_p
    address = ctypes.addressof(buffer)

    def read_folder(_buffer: object = buffer) -> str | None:
        found: bytes | None = read(address, _ROOM)
        return folder() if found is None else os.fsdecode(found)

    return read_folder


def current() -> Inheritance:
    """The state that a process would inherit if this thread forked it now."""
    return Inheritance(
        environment=dict(os.environ),
        folder=folder(),
        umask=_umask(),
        cpus=_cpus(),
        priority=_priority(),
        limits=_limits(),
        blocked=_blocked(),
        handlers={number: _handler(number) for number in _SIGNALS},
        main=main_module.importable(now=True),
    )


def adopt(inheritance: Inheritance) -> None:
    """Set the inherited state in this process, while the process is starting."""
    main_module.note_parent()
    _set_environment(inheritance.environment)
    _set_limits(inheritance.limits)
    _set_handlers(inheritance.handlers)
    with contextlib.suppress(OSError):
        if inheritance.umask is not None:
            os.umask(inheritance.umask)
    with contextlib.suppress(OSError):
        if inheritance.priority not in (None, _priority()):
            os.setpriority(os.PRIO_PROCESS, 0, inheritance.priority or 0)
    with contextlib.suppress(OSError, ValueError):
        if inheritance.cpus not in (None, _cpus()):
            os.sched_setaffinity(0, inheritance.cpus or ())
    with contextlib.suppress(OSError):
        if inheritance.blocked not in (None, _blocked()):
            signal.pthread_sigmask(signal.SIG_SETMASK, inheritance.blocked or ())
    _put_right(inheritance.main, inheritance.folder)


@contextlib.contextmanager
def startable() -> Iterator[None]:
    """Allow this process to start others inside the block, whatever it is.

    multiprocessing forbids a daemonic process to have children, because it would be
    terminated without a chance to end them. Processes started here end with their
    parent, however the parent ends.
    """
    main_module.complete()
    config = process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    daemonic = config.get("daemon", False)
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = daemonic


def enter(*folders: str | None) -> str | None:
    """Change to the first folder that works, and return it; None if none works."""
    for folder in folders:
        with contextlib.suppress(OSError):
            if folder is not None:
                os.chdir(folder)
                return folder
    return None


# --- Reading ------------------------------------------------------------------------


def _umask() -> int | None:
    """The umask from /proc; umask(2) cannot read without setting (Linux 4.7)."""
    _, label, rest = processes.read("self", "status").partition("\nUmask:")
    return int(rest.split(None, 1)[0], 8) if label else None


def _cpus() -> frozenset[int] | None:
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on macOS and Windows
        return None


def _priority() -> int | None:
    try:
        return os.getpriority(os.PRIO_PROCESS, 0)
    except (AttributeError, OSError):  # not on Windows
        return None


def _limits() -> dict[int, tuple[int, int]]:
    limits = {}
    for kind in _LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limits[kind] = resource.getrlimit(kind)
    return limits


def _blocked() -> frozenset[int] | None:
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    except (AttributeError, OSError):  # not on Windows
        return None
    return frozenset(map(int, mask))


def _handler(number: int) -> signal.Handlers | None:
    handler = signal.getsignal(number)
    return handler if isinstance(handler, signal.Handlers) else None


# --- Setting ------------------------------------------------------------------------


def _set_environment(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _set_limits(limits: Mapping[int, tuple[int, int]]) -> None:
    for kind, pair in limits.items():
        with contextlib.suppress(OSError, ValueError):
            if resource.getrlimit(kind) != pair:
                resource.setrlimit(kind, pair)


def _set_handlers(handlers: Mapping[int, signal.Handlers | None]) -> None:
    """Ignore the signals that the parent ignores, and no others.

    If the parent has a handler of its own, which cannot be sent, the signal keeps its
    default, as in a spawned process.
    """
    for number, wanted in handlers.items():
        present = signal.getsignal(number)
        handler: Any = wanted
        if wanted is None:
            ignored = present == signal.SIG_IGN
            handler = _DEFAULTS.get(number, signal.SIG_DFL) if ignored else present
        if handler != present:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, handler)


def _put_right(main: MainModule, folder: str | None) -> None:
    """Make the following preparation enter this folder and import this module."""
    from multiprocessing import spawn

    prepare = spawn.prepare

    def prepare_corrected(data: Any) -> None:
        spawn.prepare = prepare
        enter(folder, data.pop("dir", None))
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
        data.update(_import_of(main, data.get("orig_dir")))
        if not _is_start_method(data.get("start_method")):  # in loky's workers
            data.pop("start_method", None)
        prepare(data)

    spawn.prepare = prepare_corrected


def _import_of(main: MainModule, folder: str | None) -> dict[str, str]:
    """The data that tells multiprocessing to import a main module."""
    if not main.is_imported:
        return {}
    if main.name is not None:
        return {"init_main_from_name": main.name}
    path = os.path.join(folder or "", main.file or "")  # noqa: PTH118 - a text
    return {"init_main_from_path": os.path.normpath(path)}


def _is_start_method(name: object) -> bool:
    import multiprocessing

    return name in multiprocessing.get_all_start_methods()
