"""Pools of processes that are kept between uses, so that no use waits for workers.

A pool has one user at a time: two threads that ask for the same get a pool each, and
the one can kill its workers without harm to the other. When its user gives it back, a
pool stays, without a job, until its workers have been idle for some time
(`coresize.executor.pool.workers`), until a pool for other terms is asked for, or until
the program ends.

The terms of a pool are what its workers have inherited or were told at their start. So
a pool serves again only while a new worker would be in the same state as its old ones.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from coresize.detection.available import available_cores
from coresize.executor import sizing
from coresize.executor.admission.needs import MemorySpec
from coresize.executor.pool import options
from coresize.executor.process import ProcessPoolExecutor
from coresize.model import Value
from coresize.processes import inheritance, main_module


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from coresize.executor.admission.needs import MemoryNeed
    from coresize.executor.sharing import Writable
    from coresize.planning.values import WorkerPlan
    from coresize.processes.inheritance import Inheritance

#: Variables that tell where a program is, not how it is to run: pytest sets this one
#: anew for each test.
_PASSING = frozenset({"PYTEST_CURRENT_TEST"})

#: Seconds after which the workers of a kept pool end; joblib's number for loky.
IDLE = 300.0

#: The least seconds between two looks at the memory of a pool's workers.
_OFTEN = 1.0


class Terms(Value):
    """What a pool is made for.

    Attributes:
        threads: threads of BLAS and OpenMP in each worker; None for the worker's share.
        memory: bytes that one task needs, as for `ProcessPoolExecutor`.
        initializer: a function that each worker calls first, or None.
        initargs: the arguments of the initializer.
        idle: seconds after which an idle worker ends.
        share_from: bytes from which on a buffer is shared, or None.
        writable: what tasks may do with shared arrays, as for `ProcessPoolExecutor`.
    """

    threads: int | None
    memory: MemoryNeed | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    idle: float
    share_from: int | None
    writable: Writable | None


class ReusablePool(ProcessPoolExecutor):
    """A pool whose workers end when they are idle, and import no main module.

    It gives no jobs ahead: what is known of a function's earlier calls, in other uses
    of the pool or in smaller batches, does not tell how long a batch takes.

    Args:
        terms: what the pool is made for.
        plan: the number of workers, and the threads of each.
        state: what its workers inherit.

    Attributes:
        plan: as above; of the present use.
        cores: the cores that the plan divides.
    """

    _imports_main = False
    _gives_ahead = False

    def __init__(
        self, terms: Terms, plan: WorkerPlan, cores: int, state: _State
    ) -> None:
        self._idle = terms.idle
        self._rested = float("-inf")
        self.terms, self.plan, self.cores, self.state = terms, plan, cores, state
        super().__init__(
            plan,  # a plan is taken as it is
            memory=terms.memory,
            threads=terms.threads,
            initializer=terms.initializer,
            initargs=terms.initargs,
            share_from=terms.share_from,
            writable=terms.writable,
        )

    @property
    def is_usable(self) -> bool:
        """Whether the pool takes calls, and has workers."""
        return self._dispatcher is not None and self._dispatcher.is_usable

    def serves(self, terms: Terms, state: _State) -> bool:
        """Whether new workers for these terms would be like those of this pool.

        Apart from their number, and the threads that follow from it.
        """
        return self.is_usable and self.state == state and _equal(self.terms, terms)

    def can_take(self, plan: WorkerPlan) -> bool:
        """Whether the pool can get the size of this plan: its workers stay as they are.

        The bound of memory knows its number of workers from the start.
        """
        same = self.plan.workers == plan.workers or self.terms.memory is None
        return same and self.plan.threads_per_worker == plan.threads_per_worker

    def take(self, plan: WorkerPlan, cores: int) -> None:
        """Get the size of this plan."""
        self.plan, self.cores = plan, cores
        self._max_workers = plan.workers
        if self._dispatcher is not None:
            self._dispatcher.resize(plan.workers)

    def rest(self) -> None:
        """End a use: workers that hold much memory may end.

        This wakes the dispatcher, which takes longer than a short use; so it is done at
        most once a second.
        """
        now = time.monotonic()
        if self._dispatcher is not None and now - self._rested > _OFTEN:
            self._rested = now
            self._dispatcher.rest()


_State = tuple["Inheritance", tuple[str, ...]]

_lock = threading.Lock()

#: The pools that nobody uses.
_kept: list[ReusablePool] = []


def borrow(terms: Terms, count: int) -> ReusablePool:
    """A pool for these terms: one that is kept, or a new one.

    Pools that are kept for other terms are shut down. If nothing has changed since the
    last use, no plan is made: that takes longer than a short use.

    Args:
        terms: what the pool is for.
        count: the number of workers.

    Raises:
        ConfigError: the terms are not valid.
    """
    state, cores = _state(), available_cores()
    with _lock:
        kept = [pool for pool in _kept if pool.serves(terms, state)]
        other = [pool for pool in _kept if pool not in kept]
        same = [
            pool for pool in kept if (pool.plan.workers, pool.cores) == (count, cores)
        ]
        found = same[-1] if same else kept[-1] if kept else None
        _kept[:] = [pool for pool in kept if pool is not found]
    for pool in other:
        pool.shutdown(wait=False)
    if same:
        return same[-1]
    fixed = None if terms.memory is None else MemorySpec(terms.memory).fixed
    plan = sizing.plan(count, memory=fixed)
    if found is not None and found.can_take(plan):
        found.take(plan, cores)
        return found
    if found is not None:
        found.shutdown(wait=False)
    return ReusablePool(terms, plan, cores, state)


def give_back(pool: ReusablePool) -> None:
    """Keep a pool that has no calls; one that takes no calls is shut down."""
    if not pool.is_usable:
        pool.shutdown(wait=False)
        return
    pool.rest()
    with _lock:
        _kept.append(pool)


def drop(*, wait: bool = False) -> None:
    """Shut down all pools that nobody uses.

    Args:
        wait: wait until their workers and threads have ended.
    """
    with _lock:
        pools = _kept[:]
        _kept.clear()
    for pool in pools:
        pool.shutdown(wait=wait)


def _state() -> _State:
    """What a worker would inherit now, and where it would find modules.

    Each call says in which folder it is made, so the folder may change.
    """
    now = inheritance.current()
    environment = {
        name: value for name, value in now.environment.items() if name not in _PASSING
    }
    state = now.changed(environment=environment, folder=None, main=main_module.NONE)
    return state, tuple(sys.path)


def _equal(terms: Terms, others: Terms) -> bool:
    try:
        return bool(terms == others)
    except Exception:  # noqa: BLE001 - the user's arguments, such as arrays
        return False


def _forget() -> None:
    """The pools of the parent are no pools of a forked child."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _kept.clear()


# Workers are forked only where no other thread is alive.
options.before_fork(partial(drop, wait=True))

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
