"""The pool of processes that people use."""

from __future__ import annotations

import weakref
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from coresize.errors import ConfigError
from coresize.executor import sizing
from coresize.executor.mapping import MapExecutor
from coresize.executor.pool import options
from coresize.executor.pool.runner import Processes, specify
from coresize.executor.serial import Caller


if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from concurrent.futures import Future
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import TracebackType
    from typing import Any, ParamSpec, TypeVar

    from coresize.executor.admission.needs import Memory
    from coresize.executor.mapping import Source
    from coresize.executor.pool.dispatcher import Dispatcher
    from coresize.executor.pool.handle import WorkerHandle
    from coresize.executor.traits import PoolState, Traits
    from coresize.processes.exit_hooks import Unfinished

    P = ParamSpec("P")
    T = TypeVar("T")


class ProcessPoolExecutor(MapExecutor):
    """A pool of processes that fits, and that loses one task when a worker dies.

    To be used in place of the standard library's. Workers are sized by what this
    process may use, start when they are needed, and begin with as many threads for BLAS
    and OpenMP as they have cores. A worker that is killed takes its task along and
    nothing else: that future gets a `TaskKilledError` which says what happened
    (`TaskOutOfMemoryError`, `TaskCrashedError`, `TaskTimeoutError`), and the pool goes
    on. With CORESIZE_PARALLEL=0 it has no workers, and makes each call in the caller.

    With ``memory=`` a task starts only while its need fits into what is available now,
    and one that the kernel killed for memory is run again, alone; so tasks must be safe
    to run twice, or ``oom_retries`` be 0. Without it none is ever run twice.

    Args:
        max_workers: processes; None is what `plan_workers` says.
        mp_context: how processes are started; None is forkserver on Linux, and spawn
            elsewhere or with ``max_tasks_per_child``. fork is possible only while no
            other thread is alive.
        initializer: what each worker calls first. Where it fails, the pool is broken.
        initargs: its arguments.
        max_tasks_per_child: tasks after which a worker is replaced.
        memory: bytes that one task needs, as a number, "2GiB", a `TaskProfile`, or a
            callable of its arguments; "auto" learns it from what tasks take.
        cpus: cores that one task keeps busy.
        timeout: seconds that one task may take, in which it could run: not stopped.
        oom_retries: how often a task that was killed for memory is run again.
        threads: threads of BLAS and OpenMP in each worker, whatever the environment
            says; None is what the environment says, else the worker's share.

    Raises:
        ConfigError: an argument or a setting is not valid.

    Kills for memory are told from others on Linux, by the counters of the worker's
    cgroup (kernel Documentation/admin-guide/cgroup-v2.rst, "memory.events").

    >>> from coresize import ProcessPoolExecutor
    >>> with ProcessPoolExecutor(2) as pool:
    ...     pool.submit(pow, 2, 5).result(), list(pool.map(abs, [-1, -2]))
    (32, [1, 2])
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        memory: Memory | None = None,
        cpus: float | None = None,
        timeout: float | None = None,
        oom_retries: int = 1,
        threads: int | None = None,
    ) -> None:
        options.check(initializer, max_tasks_per_child, timeout, oom_retries, threads)
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
            )
            share = plan.threads_per_worker
            environment = options.environment(threads or share, share)
            self._runner = Processes(made, plan.workers, environment, spec)
        # A pool that nobody holds any more takes no more tasks.
        self._finalizer = weakref.finalize(self, self._runner.drop)
        self._finalizer.atexit = False

    @property
    def traits(self) -> Traits:
        """What this executor is like."""
        return self._runner.traits

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call, and return the future of what comes of it.

        What cannot be pickled is an error of the future, as is what a callable
        ``memory=`` raises. What is large is pickled when a worker takes it: until the
        task runs, the caller must not change it.

        Raises:
            BrokenProcessPool: workers cannot start.
            RuntimeError: the executor is shut down.
        """
        return self._runner.submit(fn, args, kwargs)

    @property
    def _unfinished(self) -> set[Unfinished]:
        return self._runner.unfinished

    def _calls(
        self, fn: Callable[..., Any], *, chunksize: int | None, buffersize: int | None
    ) -> Source:
        return self._runner.calls(self, fn, chunksize=chunksize, buffersize=buffersize)

    def observe(self) -> PoolState:
        """What the pool is like now: its workers, kills for memory, need learned."""
        return self._runner.observe()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Take no more tasks, and end the workers when all are done.

        Of a map all of the input is taken first, unless it may be endless (it has no
        length) and a part was read.

        Args:
            wait: return when that is so.
            cancel_futures: cancel the tasks that have not begun.
        """
        try:
            self._end_maps(cancel=cancel_futures)
        finally:
            self._runner.close(cancel=cancel_futures)
            if wait:
                self._runner.join()

    def terminate_workers(self) -> None:
        """Take no more tasks, cancel those that wait and ask the workers to end.

        Each worker gets SIGTERM, which a task may handle: what it then returns counts.

        Source: CPython 3.14, ProcessPoolExecutor.terminate_workers.
        """
        self._runner.close(terminate=True)

    def kill_workers(self) -> None:
        """Take no more tasks, cancel those that wait and end those that run, at once.

        Source: CPython 3.14, concurrent.futures.ProcessPoolExecutor.kill_workers.
        """
        self._runner.close(interrupt=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Shut down; after Ctrl-C without waiting for tasks that are running."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.kill_workers()
        return super().__exit__(kind, error, trace)

    # What programs that look inside the standard library's pool find there.

    @property
    def _processes(self) -> dict[int, BaseProcess]:
        """The processes of the workers by their numbers."""
        return {worker.pid: worker.process for worker in self._settled()}

    @property
    def _mp_context(self) -> BaseContext:
        """How processes are started."""
        return self._context

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:
        """The thread that serves the workers."""
        self._settled()
        return self._dispatcher.thread if self._dispatcher else None

    @property
    def _refused(self) -> str:
        """Why a worker cannot be started now; empty where none is refused."""
        return self._dispatcher.refused if self._dispatcher else ""

    @property
    def _broken(self) -> str | bool:
        """Why no more tasks are taken."""
        return self._runner.broken

    @property
    def _dispatcher(self) -> Dispatcher | None:
        """What serves the workers; None where there are to be none."""
        return getattr(self._runner, "dispatcher", None)

    def _settled(self) -> list[WorkerHandle]:
        """The workers, when all that was submitted was given to them, or waits."""
        if self._dispatcher is None:
            return []
        self._dispatcher.settle()
        return list(self._dispatcher.handles)
