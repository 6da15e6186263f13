"""The options of a pool of processes, and their checks."""

from __future__ import annotations

import contextlib
import multiprocessing
import operator
import sys
import threading

from coresize.arguments import check_callable, check_count, check_seconds
from coresize.errors import ConfigError, CoresizeError
from coresize.model import Value
from coresize.planning import exports
from coresize.processes import main_module
from coresize.processes.inheritance import own_method
from coresize.processes.transfer import Carried, TransferError
from coresize.units import format_count


try:
    from multiprocessing import forkserver
except ImportError:  # Windows
    forkserver = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from typing import Any

    from coresize.executor.sharing import Sharing
    from coresize.processes.forkserver import Channel
    from coresize.processes.inheritance import Inheritance


#: The variable that bounds the pools that a worker makes itself.
_SHARE = "CORESIZE_MAX_CORES"


class PoolOptions(Value):
    """How workers are made, and what bounds their tasks.

    Attributes:
        context: how processes are started.
        forks: workers are forked from this process itself.
        initializer: a function that each worker calls first, or None.
        initargs: the arguments of the initializer.
        max_tasks: the tasks after which a worker is replaced, or None.
        insists: the variables of the pool replace those that the user has set.
        measured: ``memory=`` is given, so workers report the peak of each task.
        timeout: seconds that a task may take, or None.
        oom_retries: how often a task is run again after a kill for memory.
        imports_main: workers import the main module; otherwise its objects reach them
            by value.
        idle: seconds after which an idle worker ends, or None.
        sharing: how large buffers travel.
        gives_ahead: a worker that runs a short job is given more of them. No other
            worker can take these any more if the job turns out to be long.
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
    imports_main: bool
    idle: float | None
    sharing: Sharing
    gives_ahead: bool

    def initial(self) -> tuple[object, object]:
        """The initializer and its arguments, in the form that is sent to a worker.

        A function that has no name in a worker is sent by value. So are the arguments
        if workers import no main module; except for arguments that can be sent only
        while a process is started, such as a lock.

        Raises:
            TransferError: the initializer cannot be pickled.
        """
        arguments: object = self.initargs
        if self.initializer is None or self.forks:
            return self.initializer, arguments
        by_value = not self.imports_main
        if by_value or not main_module.importable().is_imported:
            with contextlib.suppress(TransferError):
                arguments = Carried(self.initargs, by_value=by_value)
        return Carried(self.initializer, by_value=by_value), arguments

    @property
    def method(self) -> str | None:
        """The start method, if coresize itself starts processes by that method."""
        return own_method(self.context)

    def open_channel(self) -> Channel:
        """A channel to the forkserver, which imports what workers need.

        Raises:
            OSError: the server cannot be started.
        """
        from coresize.processes.forkserver import Channel

        modules = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]  # noqa: SLF001
        return Channel([name for name in modules if name != "__main__"])

    def advice(self, error: Exception) -> str:
        """Advice for a worker that cannot be started; empty if there is none."""
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
        """The state that a worker inherits, with the variables of the pool added.

        Variables for threads that the user has set stay, unless the pool was given
        ``threads=``. The worker's share of the cores is set in any case: it bounds the
        pools that the worker makes itself.

        Args:
            inheritance: the state without these variables.
            environment: the variables of the pool.
        """
        present = inheritance.environment
        users = {} if self.insists else exports.of_user(present)
        given = {
            name: value
            for name, value in environment.items()
            if name == _SHARE or not users.get(name)
        }
        main = inheritance.main if self.imports_main else main_module.NONE
        return inheritance.changed(
            environment=exports.marked(present, given), main=main
        )


def check(
    initializer: object,
    max_tasks: int | None,
    timeout: float | None,
    oom_retries: int,
    threads: int | None,
) -> None:
    """Check the arguments of a pool.

    Raises:
        ConfigError: a number is not valid.
        TypeError: an argument has the wrong type.
    """
    if threads is not None:
        check_count("threads", threads, 1)
    check_count("oom_retries", oom_retries, 0)
    check_callable("initializer", initializer)
    if max_tasks is not None:
        whole = operator.index(max_tasks)  # raises TypeError if it is no whole number
        if whole <= 0:
            allowed = "a whole number: max_tasks_per_child must be >= 1"
            raise ConfigError("max_tasks_per_child", max_tasks, allowed)
    if timeout is not None:
        check_seconds("timeout", timeout)


#: What ends threads that nobody needs.
_before_fork: list[Callable[[], None]] = []


def before_fork(function: Callable[[], None]) -> None:
    """Let a function end threads that nobody needs, before workers are forked."""
    _before_fork.append(function)


def check_fork() -> None:
    """Check that no other thread is alive, after those that nobody needs have ended.

    Raises:
        CoresizeError: another thread is alive, and a fork would copy its locks.
    """
    for end in _before_fork if threading.active_count() > 1 else ():
        end()
    others = threading.active_count() - 1
    if others:
        alive = format_count(others, "other thread is", "other threads are")
        msg = (
            f"{alive} alive, and a fork would copy the locks that they hold: use the "
            "start method forkserver or spawn"
        )
        raise CoresizeError(msg)


def context(asked: BaseContext | None, max_tasks: int | None) -> BaseContext:
    """The context that starts workers: the given one, else forkserver or spawn.

    By default it is forkserver on Linux, and spawn elsewhere or if workers are replaced
    after some tasks, as the standard library documents it. It is never fork.

    Raises:
        ConfigError: ``asked`` is no context of multiprocessing.
    """
    if asked is not None and not hasattr(asked, "get_start_method"):
        allowed = 'multiprocessing.get_context("spawn"), or another, or None'
        raise ConfigError("mp_context", asked, allowed)
    methods = multiprocessing.get_all_start_methods()
    linux = sys.platform == "linux" and "forkserver" in methods and max_tasks is None
    chosen = asked or multiprocessing.get_context("forkserver" if linux else "spawn")
    if chosen.get_start_method() == "forkserver":
        _preload()
    return chosen


def _preload() -> None:
    """Let forkservers import the module of workers, unless the user chose modules.

    By default, the forkserver would import the main module; but this must be imported
    in the environment of its worker.
    """
    if forkserver._forkserver._preload_modules == ["__main__"]:  # type: ignore[attr-defined]  # noqa: SLF001
        forkserver.set_forkserver_preload(["coresize.executor.pool.worker"])


def environment(threads: int, cores: int) -> dict[str, str]:
    """The environment variables that each worker has from its start.

    Args:
        threads: threads of BLAS and OpenMP in each worker.
        cores: cores of each worker.
    """
    return {**dict.fromkeys(exports.THREADS, str(threads)), _SHARE: str(cores)}
