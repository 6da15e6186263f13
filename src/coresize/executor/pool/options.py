"""What a pool of processes was asked to be, checked once."""

from __future__ import annotations

import contextlib
import multiprocessing
import operator
import os
import sys
import tempfile
import threading

from coresize.arguments import check_callable, check_count, check_seconds
from coresize.errors import ConfigError, CoresizeError
from coresize.model import Value
from coresize.planning import exports
from coresize.processes import main_module
from coresize.processes.transfer import Carried, TransferError


try:
    from multiprocessing import forkserver
except ImportError:  # Windows
    forkserver = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from typing import Any

    from coresize.processes.inheritance import Inheritance


#: Bytes of the path of a socket.
_SOCKET_PATH = 107

#: What bounds the pools that a worker makes itself.
_SHARE = "CORESIZE_MAX_CORES"


def _forget_forkserver() -> None:
    """Let a child that was forked start a forkserver of its own.

    multiprocessing would wait for that of the parent, which is no child of this one.
    """
    server: Any = forkserver._forkserver  # noqa: SLF001
    if server._forkserver_pid is not None:  # noqa: SLF001
        preloaded = server._preload_modules  # noqa: SLF001
        with contextlib.suppress(OSError):
            os.close(server._forkserver_alive_fd)  # noqa: SLF001
        server.__init__()
        server.set_forkserver_preload(preloaded)


if forkserver is not None:
    os.register_at_fork(after_in_child=_forget_forkserver)


class PoolOptions(Value):
    """How workers are made, and what bounds their tasks.

    Attributes:
        context: how processes are started.
        forks: they are forked from this very process.
        initializer: what each worker calls first, or None.
        initargs: its arguments.
        max_tasks: how many tasks a worker ends before it is replaced, or None.
        insists: the variables of the pool replace what the user has set.
        measured: memory is asked for, so each worker tells the peak of each task.
        timeout: seconds that a task may take, or None.
        oom_retries: how often a task that was killed for memory is run again.
    """

    context: BaseContext
    forks: bool
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks: int | None
    insists: bool
    measured: bool
    timeout: float | None
    oom_retries: int

    def initial(self) -> tuple[object, object]:
        """The initializer and its arguments, as a worker can have them.

        A function that has no name in a worker travels by value. So do the arguments
        where a worker imports no main module, but for what travels only while a process
        is started, as a lock does.

        Raises:
            TransferError: the initializer cannot be pickled.
        """
        arguments: object = self.initargs
        if self.initializer is None or self.forks:
            return self.initializer, arguments
        if not main_module.known().is_imported:
            with contextlib.suppress(TransferError):
                arguments = Carried(self.initargs)
        return Carried(self.initializer), arguments

    def advice(self, error: Exception) -> str:
        """What may help where a worker cannot be started; empty for nothing known."""
        if "SemLock" not in str(error):
            return ""
        method = self.context.get_start_method()
        return (
            "; make the locks, queues and values of initargs by the context of the "
            f'pool: multiprocessing.get_context("{method}").Lock()'
        )

    def bequeathed(
        self, inheritance: Inheritance, environment: dict[str, str]
    ) -> Inheritance:
        """What a worker inherits, with variables of its own.

        What the user has set for threads stays, unless the pool was given their number.
        Its share of the cores is a worker's in any case: it bounds the pools that the
        worker makes itself.

        Args:
            inheritance: what it would inherit.
            environment: the variables that it has from its start.
        """
        present = inheritance.environment
        users = {} if self.insists else exports.of_user(present)
        given = {
            name: value
            for name, value in environment.items()
            if name == _SHARE or not users.get(name)
        }
        return inheritance.changed(environment=exports.marked(present, given))


def check(
    initializer: object,
    max_tasks: int | None,
    timeout: float | None,
    oom_retries: int,
    threads: int | None,
) -> None:
    """See that what was asked is possible.

    Raises:
        ConfigError: a number is not valid.
        TypeError: an argument is of another kind.
    """
    if threads is not None:
        check_count("threads", threads, 1)
    check_count("oom_retries", oom_retries, 0)
    check_callable("initializer", initializer)
    if max_tasks is not None:
        whole = operator.index(max_tasks)  # a TypeError says that it is none
        if whole <= 0:
            allowed = "a whole number: max_tasks_per_child must be >= 1"
            raise ConfigError("max_tasks_per_child", max_tasks, allowed)
    if timeout is not None:
        check_seconds("timeout", timeout)


def check_fork() -> None:
    """See that no thread is alive besides this one.

    Raises:
        CoresizeError: there is one, and a fork would take its locks along.
    """
    others = threading.active_count() - 1
    if others:
        msg = (
            f"{others} other threads are alive, and a fork would take their locks "
            "along: use the start method forkserver or spawn"
        )
        raise CoresizeError(msg)


def context(asked: BaseContext | None, max_tasks: int | None) -> BaseContext:
    """How workers are started: as asked, or forkserver where that is; never fork.

    Where workers are replaced it is spawn, as the standard library documents it.

    Raises:
        ConfigError: it is no context of multiprocessing.
    """
    if asked is not None and not hasattr(asked, "get_start_method"):
        allowed = 'multiprocessing.get_context("spawn"), or another, or None'
        raise ConfigError("mp_context", asked, allowed)
    methods = multiprocessing.get_all_start_methods()
    linux = sys.platform == "linux" and "forkserver" in methods and max_tasks is None
    served = linux and _has_room_for_socket()
    chosen = asked or multiprocessing.get_context("forkserver" if served else "spawn")
    if chosen.get_start_method() == "forkserver":
        _preload()
    return chosen


def _has_room_for_socket() -> bool:
    """Whether a forkserver can have its socket among temporary files (unix(7): 107).

    Below a long TMPDIR, as batch systems set it, it cannot.
    """
    longest = "/pymp-12345678/listener-12345678"
    return len(os.fsencode(tempfile.gettempdir() + longest)) <= _SOCKET_PATH


def _preload() -> None:
    """Let the forkserver import what every worker needs, unless the user said what.

    In place of the main module: that must find the environment of its worker.
    """
    if forkserver._forkserver._preload_modules == ["__main__"]:  # type: ignore[attr-defined]  # noqa: SLF001
        forkserver.set_forkserver_preload(["coresize.executor.pool.worker"])


def environment(threads: int, cores: int) -> dict[str, str]:
    """What each worker has from its start.

    Args:
        threads: of BLAS and OpenMP in each.
        cores: the share of each.
    """
    return {**dict.fromkeys(exports.THREADS, str(threads)), _SHARE: str(cores)}
