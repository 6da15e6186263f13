"""The traits of executors: what a caller has to know before it gives them tasks.

This is the one place that distinguishes executors. An executor may state its own traits
in an attribute ``traits``. Executors of other libraries are recognised by the names of
their classes, without importing them. A new kind of executor is one line of the table.
"""

from __future__ import annotations

import contextlib
import inspect
from functools import partial
from typing import TYPE_CHECKING

from coresize.model import Value


if TYPE_CHECKING:
    from collections.abc import Callable
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
    return Traits(
        place="processes",
        slots=slots,
        survives=True,
        suspects=False,
        ends_tasks=True,
        measures=True,
    )


def of_cluster(slots: int | None) -> Traits:
    """The traits of a scheduler that replaces workers, and suspects all their tasks."""
    return Traits(
        place="cluster",
        slots=slots,
        survives=True,
        suspects=True,
        ends_tasks=False,
        measures=False,
    )


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
    for cls in type(executor).__mro__:
        name = _name_of(cls)
        if name == _DASK:
            return of_cluster(_counted(executor, _of_dask))
        known = _KNOWN.get(name)
        if known is not None:
            place, count = known
            return of_pool(place, _counted(executor, count))
    return of_pool("processes", _counted(executor, _of_attribute))


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
    if not any(_name_of(cls) == _DASK for cls in type(executor).__mro__):
        return executor.submit(function, *args, **kwargs)
    called = partial(function, **kwargs) if kwargs else function
    return executor.submit(called, *args, pure=False)


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
    return Traits(
        place=place,
        slots=slots,
        survives=False,
        suspects=False,
        ends_tasks=False,
        measures=False,
    )


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


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


#: The executor of Dask: its scheduler survives workers.
_DASK = "distributed.cfexecutor.ClientExecutor"

#: For each other class: where its tasks run, and a function that counts the tasks at a
#: time.
_KNOWN: dict[str, tuple[Place, Callable[[Any], object]]] = {
    "concurrent.futures.thread.ThreadPoolExecutor": ("threads", _of_attribute),
    "concurrent.futures.process.ProcessPoolExecutor": ("processes", _of_attribute),
    "concurrent.futures.interpreter.InterpreterPoolExecutor": (
        "interpreters",
        _of_attribute,
    ),
    "loky.process_executor.ProcessPoolExecutor": ("processes", _of_attribute),
    "joblib.externals.loky.process_executor.ProcessPoolExecutor": (
        "processes",
        _of_attribute,
    ),
    "ipyparallel.client.view.ViewExecutor": ("cluster", _of_attribute),
    "mpi4py.futures.pool.MPIPoolExecutor": ("cluster", _of_mpi),
    "parsl.concurrent.ParslPoolExecutor": ("cluster", _of_attribute),
}


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
