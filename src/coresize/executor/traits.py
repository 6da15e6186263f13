"""What an executor is like, as far as whoever gives it tasks has to know.

This is the one place that tells executors apart. An executor may tell its own traits,
by an attribute ``traits``; those of other libraries are known by the names of their
classes, without importing them. A new kind of executor is one line of the table.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING

from coresize.model import Value


if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any, Literal, TypeAlias

    #: Where tasks run: in the thread that submits them, in threads or interpreters of
    #: this process, in processes of this machine, or on several machines.
    Place: TypeAlias = Literal[
        "caller", "threads", "interpreters", "processes", "cluster"
    ]

#: The places where a task shares the memory of this process.
_HERE = ("caller", "threads")


class Traits(Value):
    """What an executor is like.

    Attributes:
        place: where its tasks run.
        slots: how many tasks it runs at a time; None where that is not known.
        survives: a worker that dies costs the task that it was running, and no other.
        ends_tasks: it ends a task that takes longer than its ``timeout``.
        measures: it admits tasks by their memory, by an argument ``memory`` of its own.
    """

    place: Place
    slots: int | None
    survives: bool
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
    """The traits of what runs each call in the thread that submits it."""
    return _traits("caller", 1)


def of_threads(slots: int) -> Traits:
    """The traits of a pool of threads."""
    return _traits("threads", slots)


def of_processes(slots: int) -> Traits:
    """The traits of a pool of processes that loses one task when a worker dies."""
    return Traits(
        place="processes", slots=slots, survives=True, ends_tasks=True, measures=True
    )


def traits_of(executor: Executor) -> Traits:
    """What an executor is like; of one that nobody knows, the worst.

    Args:
        executor: anything that has the methods of `concurrent.futures.Executor`.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> traits = traits_of(ThreadPoolExecutor(3))
    >>> traits.place, traits.slots, traits.pickles
    ('threads', 3, False)
    """
    own = getattr(executor, "traits", None)
    if isinstance(own, Traits):
        return own
    for cls in type(executor).__mro__:
        known = _KNOWN.get(f"{cls.__module__}.{cls.__qualname__}")
        if known is not None:
            place, count = known
            return _traits(place, _counted(executor, count))
    return _traits("processes", _counted(executor, _of_attribute))


def is_executor(executor: object) -> bool:
    """Whether an object has the methods of an executor that are used here."""
    return all(hasattr(executor, name) for name in ("submit", "shutdown"))


def shut_down(executor: Executor, *, wait: bool = True, cancel: bool = False) -> None:
    """Shut an executor down, by the arguments that its method takes.

    Those of loky, dask and ipyparallel know no ``cancel_futures``: there whoever has
    the futures cancels them.

    Args:
        executor: the executor.
        wait: return when all that it was given has ended.
        cancel: what has not begun is cancelled, where the executor can do that.
    """
    if cancel and _takes(executor.shutdown, "cancel_futures"):
        executor.shutdown(wait=wait, cancel_futures=True)
    else:
        executor.shutdown(wait=wait)


def _takes(method: Callable[..., object], name: str) -> bool:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):  # it has none that can be read
        return False
    kinds = {parameter.kind for parameter in parameters.values()}
    return name in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def _traits(place: Place, slots: int | None) -> Traits:
    return Traits(
        place=place, slots=slots, survives=False, ends_tasks=False, measures=False
    )


def _counted(executor: Executor, count: Callable[[Any], object]) -> int | None:
    """What a way of counting gives, where it gives a number above 0."""
    found: object = None
    with contextlib.suppress(Exception):  # it is the code of another library
        found = count(executor)
    return found if type(found) is int and found > 0 else None


def _of_attribute(executor: Any) -> object:
    """As of the standard library, and of most that were made after it."""
    return getattr(executor, "_max_workers", None)


def _of_dask(executor: Any) -> object:
    return sum(executor._client.nthreads().values())  # noqa: SLF001 - no public name


def _of_mpi(executor: Any) -> object:
    return executor.num_workers


#: By the class: where tasks run, and how to count how many at a time.
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
    "distributed.cfexecutor.ClientExecutor": ("cluster", _of_dask),
    "ipyparallel.client.view.ViewExecutor": ("cluster", _of_attribute),
    "mpi4py.futures.pool.MPIPoolExecutor": ("cluster", _of_mpi),
    "parsl.concurrent.ParslPoolExecutor": ("cluster", _of_attribute),
}


class PoolState(Value):
    """What a pool is like at one moment.

    Attributes:
        workers: processes that it has.
        kills: how often the kernel killed one for memory, where ``memory=`` is given.
        evictions: how often a task was ended before the kernel would have killed.
        need: bytes that a task may take, as learned; None where it is not.
    """

    workers: int
    kills: int
    evictions: int
    need: int | None
