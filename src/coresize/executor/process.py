"""The public pool of processes."""

from __future__ import annotations

import weakref
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from coresize.arguments import check_sync
from coresize.errors import ConfigError
from coresize.executor import sizing
from coresize.executor.mapping import MapExecutor
from coresize.executor.pool import options
from coresize.executor.pool.runner import Processes, specify
from coresize.executor.serial import Caller
from coresize.executor.sharing import SHARE_FROM, sharing


if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from concurrent.futures import Future
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import TracebackType
    from typing import Any, ParamSpec, TypeVar

    from coresize.executor.admission.needs import MemoryNeed
    from coresize.executor.mapping import Source
    from coresize.executor.pool.dispatcher import Dispatcher
    from coresize.executor.pool.handle import WorkerHandle
    from coresize.executor.sharing import Size, Writable
    from coresize.executor.traits import PoolState, Traits
    from coresize.processes.exit_hooks import Unfinished

    P = ParamSpec("P")
    T = TypeVar("T")


class ProcessPoolExecutor(MapExecutor):
    """A pool of processes that is sized to fit, and loses one task if a worker dies.

    It replaces the pool of the standard library. The number of workers follows from
    what this process may use. Workers start when they are needed, with as many threads
    for BLAS and OpenMP as they have cores. If a worker is killed, only its task is
    lost: the future gets a `TaskKilledError` that says what happened
    (`TaskOutOfMemoryError`, `TaskCrashedError`, `TaskTimeoutError`), and the pool goes
    on. With CORESIZE_PARALLEL=0 there are no workers, and each call is made in the
    caller.

    With ``memory=``, a task starts only while its need fits into the memory that is
    available now, and a task that the kernel has killed for memory is run again, alone.
    So tasks must be safe to run twice, or ``oom_retries`` must be 0. Without
    ``memory=``, no task is ever run twice.

    Args:
        max_workers: the number of processes; None takes it from `plan_workers`.
        mp_context: how processes are started; None is forkserver on Linux, and spawn
            elsewhere or with ``max_tasks_per_child``. fork is possible only while no
            other thread is alive.
        initializer: a function that each worker calls first. If it fails, the pool is
            broken.
        initargs: the arguments of the initializer.
        max_tasks_per_child: tasks after which a worker is replaced.
        memory: bytes that one task needs, as a number, "2GiB", a `TaskProfile`, or a
            callable of its arguments; "auto" learns the need from the peaks of tasks.
        cpus: cores that one task keeps busy.
        timeout: seconds that one task may take; time in which it is stopped does not
            count.
        oom_retries: how often a task is run again, alone, after a kill for memory (with
            ``memory=``). By default, a task that was alone already is not run again; 2
            or more make that many tries in any case, for other programs of the same
            limit may leave more memory then.
        threads: threads of BLAS and OpenMP in each worker, whatever the environment
            says; None leaves what the environment says, else the worker's share.
        share_from: the size from which on a buffer of an argument lies in memory that
            the workers share, such as "1MiB"; for results it is at least 1 MiB. None
            sends all data with their calls.
        writable: what tasks may do with shared arrays: None lets them only read;
            "copy" gives each task arrays of its own to write to, of which the kernel
            copies the pages that the task changes.

    Raises:
        ConfigError: an argument or a setting is not valid.

    On Linux, kills for memory are distinguished by the counters of the worker's
    cgroup (kernel Documentation/admin-guide/cgroup-v2.rst, "memory.events").

    >>> from coresize import ProcessPoolExecutor
    >>> with ProcessPoolExecutor(2) as pool:
    ...     pool.submit(pow, 2, 5).result(), list(pool.map(abs, [-1, -2]))
    (32, [1, 2])
    """

    #: Whether workers import the main module, seconds after which an idle worker ends,
    #: and whether workers get short jobs ahead; see `PoolOptions`.
    _imports_main = True
    _idle: float | None = None
    _gives_ahead = True

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        memory: MemoryNeed | None = None,
        cpus: float | None = None,
        timeout: float | None = None,
        oom_retries: int = 1,
        threads: int | None = None,
        share_from: Size | None = SHARE_FROM,
        writable: Writable | None = None,
    ) -> None:
        options.check(initializer, max_tasks_per_child, timeout, oom_retries, threads)
        shared = sharing(share_from, writable)
        context = self._context = options.context(mp_context, max_tasks_per_child)
        forks = context.get_start_method() == "fork"
        if forks and max_tasks_per_child is not None:
            allowed = "None: a forked worker cannot be replaced"
            raise ConfigError("max_tasks_per_child", max_tasks_per_child, allowed)
        spec = specify(memory)
        plan = sizing.plan(max_workers, memory=spec.fixed if spec else None, cpus=cpus)
        self._max_workers = plan.workers
        self._runner: Caller | Processes
        if sizing.is_serial(plan):
            self._runner = Caller(initializer, initargs, BrokenProcessPool)
        else:
            made = options.PoolOptions(
                context=context,
                forks=forks,
                initializer=initializer,
                initargs=initargs,
                max_tasks=max_tasks_per_child,
                insists=threads is not None,
                measured=spec is not None,
                timeout=timeout,
                oom_retries=oom_retries,
                imports_main=self._imports_main,
                idle=self._idle,
                sharing=shared,
                gives_ahead=self._gives_ahead and timeout is None,
            )
            share = plan.threads_per_worker
            environment = options.environment(threads or share, share)
            self._runner = Processes(made, plan.workers, environment, spec)
        # When no reference to the pool is left, it takes no more tasks.
        self._finalizer = weakref.finalize(self, self._runner.drop)
        self._finalizer.atexit = False

    @property
    def traits(self) -> Traits:
        """The traits of this executor."""
        return self._runner.traits

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call, and return its future.

        A call that cannot be pickled is an error of the future, as is an error that a
        callable ``memory=`` raises. A call has the state of its arguments at its
        submission, even if the caller changes them afterwards; except where the waiting
        calls take much memory already: further large arguments are then copied when a
        worker takes the call.

        Raises:
            BrokenProcessPool: workers cannot start.
            RuntimeError: the executor is shut down.
            TypeError: the function is ``async def``.
        """
        check_sync(fn)
        return self._runner.submit(fn, args, kwargs)

    @property
    def _unfinished(self) -> set[Unfinished]:
        return self._runner.unfinished

    def _calls(
        self, fn: Callable[..., Any], *, chunksize: int | None, buffersize: int | None
    ) -> Source:
        return self._runner.calls(self, fn, chunksize=chunksize, buffersize=buffersize)

    def _once(self, value: object) -> Any:
        """What stands for an object in many calls; see `Sharing.once`."""
        return self._runner.once(value)

    def observe(self) -> PoolState:
        """The present state of the pool: workers, kills for memory, learned need."""
        return self._runner.observe()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more tasks, and end the workers when all tasks are done.

        First, each map takes the rest of its input. An input without a length may be
        endless: if its values were read in part, no more of it is taken.

        Args:
            wait: return only when the workers have ended.
            cancel_futures: cancel the tasks that have not begun.
        """
        try:
            self._end_maps(cancel=cancel_futures)
        finally:
            self._runner.close(cancel=cancel_futures)
            if wait:
                self._runner.join()

    def terminate_workers(self) -> None:
        """Take no more tasks, cancel the waiting ones, and ask the workers to end.

        Each worker gets SIGTERM. A task may handle it, and what the task then returns
        counts.

        Source: CPython 3.14, ProcessPoolExecutor.terminate_workers.
        """
        self._runner.close(terminate=True)

    def kill_workers(self) -> None:
        """Take no more tasks, cancel the waiting ones, and kill the workers at once.

        Source: CPython 3.14, concurrent.futures.ProcessPoolExecutor.kill_workers.
        """
        self._runner.close(interrupt=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Shut down; after Ctrl-C, do not wait for running tasks."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.kill_workers()
        return super().__exit__(kind, error, trace)

    # Private attributes of the standard library's pool that some programs read.

    @property
    def _processes(self) -> dict[int, BaseProcess]:
        """The processes of the workers by their process ids."""
        return {worker.pid: worker.process for worker in self._settled()}

    @property
    def _mp_context(self) -> BaseContext:
        """How processes are started."""
        return self._context

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:
        """The dispatcher's thread; None if it was not started."""
        self._settled()
        return self._dispatcher.thread if self._dispatcher else None

    @property
    def _refused(self) -> str:
        """Why a worker cannot be started now; empty if none was refused."""
        return self._dispatcher.refused if self._dispatcher else ""

    @property
    def _broken(self) -> str | bool:
        """Why the pool takes no more tasks; False if it takes them."""
        return self._runner.broken

    @property
    def _dispatcher(self) -> Dispatcher | None:
        """The dispatcher; None if calls are made in the caller."""
        return getattr(self._runner, "dispatcher", None)

    def _settled(self) -> list[WorkerHandle]:
        """The workers, once each submitted job has a worker or has to wait."""
        if self._dispatcher is None:
            return []
        self._dispatcher.settle()
        return list(self._dispatcher.handles)
