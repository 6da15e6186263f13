"""joblib: the backend "coresize", and a worker count for other backends."""

from __future__ import annotations

from concurrent import futures
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from joblib import Parallel, register_parallel_backend
from joblib.parallel import (
    AutoBatchingMixin,
    BatchedCalls,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    get_active_backend,
    mp,
)

from coresize.adapters.joblib_calls import NAME, Batch, Results
from coresize.executor import reuse
from coresize.executor.admission.needs import MemorySpec
from coresize.executor.jobs import owned
from coresize.executor.serial import OneByOneExecutor
from coresize.executor.traits import Traits, of_caller, of_pool, of_threads
from coresize.planning.plan import plan_workers
from coresize.processes.ownership import Owner
from coresize.units import measured


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

    from coresize.executor.admission.needs import MemoryNeed
    from coresize.executor.reuse import ReusablePool


def n_jobs(memory: str | int | None = None, **needs: Any) -> int:
    """The number of jobs that fit, for ``Parallel(n_jobs=...)`` with any backend.

    Args:
        memory: bytes that one job needs, or a text such as "2GiB".
        needs: further arguments of `coresize.plan_workers`.

    Raises:
        ConfigError: an argument or a setting is not valid.

    >>> from coresize.adapters.joblib import n_jobs
    >>> n_jobs(memory="1GiB", tasks=1)
    1
    """
    return plan_workers(memory=memory, **needs).workers


def register() -> None:
    """Register the backend: ``parallel_config("coresize", memory="2GB")``.

    Importing this module does the same; joblib knows no entry points. The pool is kept
    between calls, for up to 300 s without a call (``idle_worker_timeout=``).

    ``n_jobs=-1`` then means as many jobs as fit, also in libraries that use joblib. If
    a worker dies, its job raises a `TaskKilledError`, and the call fails as with any
    error of a job. With ``memory=``, a job that was killed for memory is first run
    again.

    >>> import joblib
    >>> from coresize.adapters.joblib import register
    >>> register()
    >>> with joblib.parallel_config("coresize", memory="10MB", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(abs)(number) for number in (-1, -2))
    [1, 2]
    """
    register_parallel_backend(NAME, CoresizeBackend)


class JoblibExecutor(OneByOneExecutor):
    """The active backend of joblib, as an executor.

    Args:
        n_jobs: the number of jobs, as in ``joblib.Parallel``; None takes that of
            ``joblib.parallel_config``, or as many as fit.

    >>> from coresize.adapters.joblib import JoblibExecutor
    >>> with JoblibExecutor(2) as executor:
    ...     executor.submit(abs, -1).result()
    1
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        configured = get_active_backend()[1]
        default = configured if configured not in (None, 1) else plan_workers().workers
        super().__init__()
        self._parallel = Parallel(n_jobs=n_jobs or default).__enter__()
        self._backend = self._parallel._backend  # noqa: SLF001 - no public name
        self._max_workers: int = self._backend.effective_n_jobs(self._parallel.n_jobs)
        self._nested = self._backend.get_nested_backend()
        self.traits = self._find_traits()
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._owner = Owner()

    def _find_traits(self) -> Traits:
        """What the backend is like: where its calls run, and how many at a time."""
        if isinstance(self._backend, SequentialBackend):
            return of_caller()
        if getattr(self._backend, "uses_threads", False):
            return of_threads(self._max_workers)
        return of_pool("processes", self._max_workers)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Schedule a call.

        Raises:
            RuntimeError: the executor is shut down.
        """
        if self._closed:
            msg = "cannot schedule new futures after shutdown"
            raise RuntimeError(msg)
        self._owner.check("executor")
        future: Future[T] = owned(Future())
        future.set_running_or_notify_cancel()
        call = BatchedCalls([(fn, args, kwargs)], self._nested)
        if isinstance(self._backend, SequentialBackend):
            _answer(future, call)
            return future
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        retrieve = self._backend.retrieve_result_callback
        self._backend.submit(call, lambda out: _answer(future, partial(retrieve, out)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the standard library
        """Accept no more calls, and release the backend; joblib cancels no calls."""
        if self._closed or not self._owner.is_here:
            return
        try:
            self._end_maps(cancel=cancel_futures)
        finally:
            self._closed = True
        if wait:
            futures.wait(set(self._pending))
        self._parallel.__exit__(None, None, None)


def _answer(future: Future[Any], call: Callable[[], list[Any]]) -> None:
    try:
        future.set_result(call()[0])
    except BaseException as error:  # noqa: BLE001 - the future holds it
        future.set_exception(error)


class CoresizeBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """A joblib backend that runs batches of calls on a pool of processes.

    The pool is kept between calls of `joblib.Parallel` (`coresize.executor.reuse`).
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        memory: MemoryNeed | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            nesting_level=nesting_level,
            inner_max_num_threads=inner_max_num_threads,
            **options,
        )
        self._memory = memory
        self._pool: ReusablePool | None = None
        self._pending: set[Future[Any]] = set()
        #: joblib's parallel objects that use the pool: a backend of `parallel_config`
        #: has several, if their results are read in turns.
        self._users = 0
        self._configured: dict[str, Any] = {}

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """The number of workers for ``n_jobs``: -1 is what fits, -2 one fewer.

        Raises:
            ValueError: ``n_jobs`` is 0.
        """
        if n_jobs == 0:
            msg = "n_jobs == 0 in Parallel has no meaning"
            raise ValueError(msg)
        if n_jobs is None or mp is None:  # JOBLIB_MULTIPROCESSING=0
            return 1
        if n_jobs > 0:
            return n_jobs
        return max(1, plan_workers(memory=measured(self._fixed)).workers + 1 + n_jobs)

    @property
    def _fixed(self) -> int | None:
        """The bytes that each task needs; None if they are unknown or differ."""
        return None if self._memory is None else MemorySpec(self._memory).fixed

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Take a pool.

        The options may hold ``memory``, ``initializer``, ``initargs``, and
        ``idle_worker_timeout``, the seconds after which an idle worker ends. Arrays of
        at least ``max_nbytes`` are shared, and read only if ``mmap_mode`` is "r"; in
        the other modes each task has arrays of its own to write to. None of either
        sends all data with their calls. No temporary folder is used.

        Raises:
            FallbackToBackend: there is one worker only, so joblib makes the calls.
        """
        self._configured = options
        options = {**self.backend_kwargs, **options}
        self._memory = options.get("memory", self._memory)
        self.parallel = parallel
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if self._pool is None:
            self._pool = self._borrow(count, options)
        self._users += 1
        return count

    def _borrow(self, count: int, options: dict[str, Any]) -> ReusablePool:
        idle = options.get("idle_worker_timeout")
        share_from, mode = options.get("max_nbytes"), options.get("mmap_mode", "r")
        terms = reuse.Terms(
            threads=self.inner_max_num_threads,
            memory=self._memory,
            initializer=options.get("initializer"),
            initargs=tuple(options.get("initargs", ())),
            idle=reuse.IDLE if idle is None else idle,
            share_from=None if share_from is None or mode is None else share_from,
            writable=None if mode in {None, "r"} else "copy",
        )
        return reuse.borrow(terms, count)

    def submit(
        self, func: Callable[[], Any], callback: Callable[..., Any] | None = None
    ) -> Future[Any]:
        """Schedule a batch of calls."""
        assert self._pool is not None
        future = self._pool.submit(
            Batch(func, getattr(self.parallel, "_call_id", None))
        )
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """The results of a batch."""
        results = future.result()
        return results.values if isinstance(results, Results) else results

    def terminate(self) -> None:
        """Give the pool back after all calls."""
        self._users = max(0, self._users - 1)
        if self._users:
            return
        pool, self._pool = self._pool, None
        if pool is not None:
            futures.wait(set(self._pending))
            reuse.give_back(pool)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002 - as joblib calls it
        """Cancel waiting calls, and kill the workers if there are running ones.

        In a ``with`` block, joblib wants other workers in any case.
        """
        pool, self._pool, self._users = self._pool, None, 0
        if pool is not None:
            pending, self._pending = set(self._pending), set()
            idle = all([future.cancel() for future in pending])  # noqa: C419 - each
            if idle and not ensure_ready:
                reuse.give_back(pool)
            else:
                pool.kill_workers()
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel, **self._configured)


register()
