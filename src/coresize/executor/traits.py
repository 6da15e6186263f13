"""The traits of executors: what a caller has to know before it gives them tasks.

This is the one place that distinguishes executors. An executor may state its own traits
in an attribute ``traits``. Executors of other libraries are recognised by the names of
their classes, without importing them. A new kind of executor is one line of the table.
"""

from __future__ import annotations

import contextlib
import inspect
from functools import cache, partial
from typing import TYPE_CHECKING

from coresize.model import Value


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future
    from typing import Any, Literal, TypeAlias

    #: Where tasks run: in the thread that submits them, in threads or interpreters of
    #: this process, in processes of this machine, or on several machines.
    Place: TypeAlias = Literal[
        "caller", "threads", "interpreters", "processes", "cluster"
    ]

#: The places where a task shares the memory of this process.
_HERE = ("caller", "threads")


class Traits(Value):
    """The traits of an executor.

    Attributes:
        place: where the tasks run.
        slots: the number of tasks that run at a time; None if unknown.
        survives: if a worker dies, only the tasks that it was running are lost.
        suspects: a worker runs or holds several tasks, and its death is reported for
            tasks that have not caused it.
        ends_tasks: the executor has an argument ``timeout`` that ends long tasks.
        measures: the executor has an argument ``memory`` that admits tasks by memory.
    """

    place: Place
    slots: int | None
    survives: bool
    suspects: bool
    ends_tasks: bool
    measures: bool

    @property
    def pickles(self) -> bool:
        """Whether a call and its result are pickled on their way."""
        return self.place not in _HERE

    @property
    def shares_memory(self) -> bool:
        """Whether tasks that run side by side share the memory of one process."""
        return self.place in (*_HERE, "interpreters")


def of_caller() -> Traits:
    """The traits of an executor that runs each call in the submitting thread."""
    return of_pool("caller", 1)


def of_threads(slots: int) -> Traits:
    """The traits of a pool of threads."""
    return of_pool("threads", slots)


def of_processes(slots: int) -> Traits:
    """The traits of a pool of processes that loses only one task if a worker dies."""
    return _traits("processes", slots, survives=True, ends_tasks=True, measures=True)


def of_cluster(slots: int | None) -> Traits:
    """The traits of a scheduler that replaces workers, and suspects all their tasks."""
    return _traits("cluster", slots, survives=True, suspects=True)


def traits_of(executor: Executor) -> Traits:
    """The traits of an executor; for an unknown executor, the least favourable ones.

    Args:
        executor: an object with the methods of `concurrent.futures.Executor`.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> traits = traits_of(ThreadPoolExecutor(3))
    >>> traits.place, traits.slots, traits.pickles
    ('threads', 3, False)
    """
    own = getattr(executor, "traits", None)
    if isinstance(own, Traits):
        return own
    known = (_KNOWN[name] for name in names_of(type(executor)) if name in _KNOWN)
    make, count = next(known, _UNKNOWN)
    return make(_counted(executor, count))


def submit_to(
    executor: Executor,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Future[Any]:
    """Submit a call, of which each is made, and gets all of its arguments.

    Dask takes calls of one function with equal arguments for one call, so that a retry
    would get the error of the first attempt; and it takes some keyword arguments for
    its own, such as ``key``.
    """
    if not _is_of_dask(type(executor)):  # type: ignore[arg-type]
        return executor.submit(function, *args, **kwargs)
    called = partial(function, **kwargs) if kwargs else function
    return executor.submit(called, *args, pure=False)


@cache
def _is_of_dask(cls: type) -> bool:
    """Whether a class of executors is Dask's; kept, as each submission asks for it."""
    return _DASK in names_of(cls)


def is_executor(executor: object) -> bool:
    """Whether an object has the methods of an executor that this library uses."""
    return all(hasattr(executor, name) for name in ("submit", "shutdown"))


def shut_down(executor: Executor, *, wait: bool = True, cancel: bool = False) -> None:
    """Shut an executor down, with the arguments that its method accepts.

    The executors of loky, dask and ipyparallel have no ``cancel_futures``: there, the
    holder of the futures has to cancel them.

    Args:
        executor: the executor.
        wait: return only when all tasks have ended.
        cancel: cancel the tasks that have not begun, if the executor can do that.
    """
    if cancel and _takes(executor.shutdown, "cancel_futures"):
        executor.shutdown(wait=wait, cancel_futures=True)
    else:
        executor.shutdown(wait=wait)


def _takes(method: Callable[..., object], name: str) -> bool:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):  # a method without a readable signature
        return False
    kinds = {parameter.kind for parameter in parameters.values()}
    return name in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def of_pool(place: Place, slots: int | None) -> Traits:
    """The traits of a pool that may lose all tasks when a worker dies."""
    return _traits(place, slots)


def _traits(
    place: Place,
    slots: int | None,
    *,
    survives: bool = False,
    suspects: bool = False,
    ends_tasks: bool = False,
    measures: bool = False,
) -> Traits:
    return Traits(
        place=place,
        slots=slots,
        survives=survives,
        suspects=suspects,
        ends_tasks=ends_tasks,
        measures=measures,
    )


def names_of(cls: type) -> Iterator[str]:
    """The full names of a class and of its bases, in the order of resolution."""
    return (f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)


def _counted(executor: Executor, count: Callable[[Any], object]) -> int | None:
    """The result of a counting function if it is a number above 0, else None."""
    found: object = None
    with contextlib.suppress(Exception):  # this runs code of another library
        found = count(executor)
    return found if type(found) is int and found > 0 else None


def _of_attribute(executor: Any) -> object:
    """Count as in the standard library, whose attribute most other libraries have."""
    return getattr(executor, "_max_workers", None)


def _of_dask(executor: Any) -> object:
    return sum(executor._client.nthreads().values())  # noqa: SLF001 - no public name


def _of_mpi(executor: Any) -> object:
    return executor.num_workers


_THREADS, _PROCESSES = partial(of_pool, "threads"), partial(of_pool, "processes")
_CLUSTER = partial(of_pool, "cluster")

#: The executor of Dask, whose scheduler survives workers.
_DASK = "distributed.cfexecutor.ClientExecutor"

#: For each class: a function that makes the traits from the number of slots, and one
#: that counts the tasks at a time.
_KNOWN: dict[str, tuple[Callable[[int | None], Traits], Callable[[Any], object]]] = {
    "concurrent.futures.thread.ThreadPoolExecutor": (_THREADS, _of_attribute),
    "concurrent.futures.process.ProcessPoolExecutor": (_PROCESSES, _of_attribute),
    "concurrent.futures.interpreter.InterpreterPoolExecutor": (
        partial(of_pool, "interpreters"),
        _of_attribute,
    ),
    "loky.process_executor.ProcessPoolExecutor": (_PROCESSES, _of_attribute),
    "joblib.externals.loky.process_executor.ProcessPoolExecutor": (
        _PROCESSES,
        _of_attribute,
    ),
    _DASK: (of_cluster, _of_dask),
    "ipyparallel.client.view.ViewExecutor": (_CLUSTER, _of_attribute),
    "mpi4py.futures.pool.MPIPoolExecutor": (_CLUSTER, _of_mpi),
    "parsl.concurrent.ParslPoolExecutor": (_CLUSTER, _of_attribute),
}
_UNKNOWN = _PROCESSES, _of_attribute


class PoolState(Value):
    """The state of a pool at one moment.

    Attributes:
        workers: the number of processes.
        kills: how often the kernel has killed a task for memory; 0 without ``memory=``.
        evictions: how often the pool has ended a task before the kernel would kill one.
        need: the learned bytes that a task may take; None if none are learned.
        shared_memory: bytes of the large arguments of tasks that run or wait, in memory
            that processes share; what several tasks use counts once.
    """

    workers: int
    kills: int
    evictions: int
    need: int | None
    shared_memory: int
