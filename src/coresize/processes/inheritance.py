"""What a process inherits, carried to one that is not a child of the process at hand.

A child that is forked has the environment, the working folder, the umask, the CPUs, the
priority, the limits and the signals of its parent at that moment. One that a forkserver
forks has those that the *server* was started with, at the first pool of the program;
and one that another thread spawns has that thread's CPUs, priority and blocked signals.
So all of it is read where a task is submitted, sent along, and set in the new process
before that imports the main module: libraries read the environment at their import.

What cannot be read or set is left as it is: a process that may not raise its priority
is a process all the same.

The order in the new process is delicate. multiprocessing sends two messages: what the
process needs to prepare itself (spawn.get_preparation_data), and then its function and
arguments. The first is read by the dispatcher's thread when it starts the process: its
folder may have changed since the task was submitted, and the file of the main module
may be forgotten (`coresize.processes.main_module`). To change ``__main__`` or the
folder of the *parent* for a moment would be seen by its other threads. So the *child*
puts the message right: `adopt` runs while that is unpickled, and takes the place of
spawn.prepare for the one call that follows.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import signal
import sys
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
    from typing import Any

    from coresize.processes.main_module import MainModule

#: The limits of a process, by their numbers.
_LIMITS = sorted(
    {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
)

#: The signals below those of real time whose handlers can be set; that of SIGCHLD
#: belongs to the forkserver.
_SIGNALS = sorted(
    number
    for number in signal.valid_signals()
    if number < 32
    and number
    not in {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP", "SIGCHLD")}
)

#: What Python itself does about a signal, where that is not the system's default.
_DEFAULTS: dict[int, object] = {signal.SIGINT: signal.default_int_handler}


class Inheritance(Value):
    """What a process that was forked at one moment would have; None is not known.

    Attributes:
        environment: all variables.
        folder: the working folder.
        umask: the permissions that new files do not get.
        cpus: the CPUs that the thread may use.
        priority: the nice value of the thread.
        limits: the soft and the hard limit of each resource.
        blocked: the signals that the thread has blocked.
        handlers: of each signal whether it is ignored or has its default; None where
            the program handles it.
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
        """The same with other fields."""
        every: dict[str, Any] = {**self.as_dict(), **fields}
        return Inheritance(**every)


class Name(str):
    """The name of a process, which brings what it inherits with it.

    multiprocessing sends the name before anything else, even before the main module is
    imported (get_preparation_data()): so the variables are set before any library that
    reads them at its import. The module search path comes with the name, so this
    package may not yet be found there: first the path is set by the standard library
    alone, to what multiprocessing sets it to a moment later. And a process that still
    imports ends with its parent.

    Attributes:
        inheritance: what the process has.
        line: as of `lines.die_with_parent`, or None. It is sent once, as the first of
            two: multiprocessing sends the name again with the process.
    """

    __slots__ = ("inheritance", "line")
    inheritance: Inheritance
    line: socket.socket | None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        path = [one or process.ORIGINAL_DIR for one in sys.path]  # type: ignore[attr-defined]
        find = _Made(setattr, _Made(importlib.import_module, "sys"), "path", path)
        done = [find, _Made(adopt, self.inheritance)]
        line, self.line = self.line, None
        if line is not None:
            done.insert(1, _Made(lines.die_with_parent, line))
        return operator.getitem, ((str(self), *done), 0)


class _Made:
    """A call that is made where this is unpickled; what it returns is there instead."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def folder() -> str | None:
    """The working folder; None where it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - called for each task
    except OSError:
        return None


def current() -> Inheritance:
    """What a process would inherit that this thread forked now."""
    return Inheritance(
        environment=dict(os.environ),
        folder=folder(),
        umask=_umask(),
        cpus=_cpus(),
        priority=_priority(),
        limits=_limits(),
        blocked=_blocked(),
        handlers={number: _handler(number) for number in _SIGNALS},
        main=main_module.known(),
    )


def adopt(inheritance: Inheritance) -> None:
    """Let this process, which is being started, have it."""
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
    """Let this process start others, even if it is daemonic.

    A daemonic process may have no children, since it is terminated without a chance to
    end them. What is started here ends with its parent, however that ends.
    """
    config = process.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001
    daemonic = config.get("daemon", False)
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = daemonic


def enter(*folders: str | None) -> str | None:
    """Enter the first of some folders that can be entered; which, None for none."""
    for one in folders:
        with contextlib.suppress(OSError):
            if one is not None:
                os.chdir(one)
                return one
    return None


# --- Reading ------------------------------------------------------------------------


def _umask() -> int | None:
    """The umask, which no call can read without changing it (proc(5), Linux 4.7)."""
    _, found, rest = processes.read("self", "status").partition("\nUmask:")
    return int(rest.split(None, 1)[0], 8) if found else None


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
    found = {}
    for kind in _LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found[kind] = resource.getrlimit(kind)
    return found


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
    """Ignore what the parent ignores, and nothing else.

    What the parent handles by a function of its own, which cannot be sent, keeps its
    default, as in a process that was spawned.
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
    """Let the preparation that follows enter this folder and import this module."""
    from multiprocessing import spawn

    prepare = spawn.prepare

    def prepare_as_told(data: Any) -> None:
        spawn.prepare = prepare
        enter(folder, data.pop("dir", None))
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
        data.update(_import_of(main, data.get("orig_dir")))
        if not _is_start_method(data.get("start_method")):  # that of loky's workers
            data.pop("start_method", None)
        prepare(data)

    spawn.prepare = prepare_as_told


def _import_of(main: MainModule, folder: str | None) -> dict[str, str]:
    """What tells multiprocessing to import a main module."""
    if not main.is_imported:
        return {}
    if main.name is not None:
        return {"init_main_from_name": main.name}
    path = os.path.join(folder or "", main.file or "")  # noqa: PTH118 - a text
    return {"init_main_from_path": os.path.normpath(path)}


def _is_start_method(name: object) -> bool:
    import multiprocessing

    return name in multiprocessing.get_all_start_methods()
