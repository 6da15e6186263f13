"""From limits to a count of workers. Pure, and the only module that rounds.

Rule 1: a further bound never raises the count, and the count is at least 1.
Rule 2: a count that the user sets replaces the bounds of cores, memory and GPUs, as an
override replaces a detected amount; the other bounds still hold. Without parallel
execution there are no workers, so the limits of the kernel do not bind.
"""

from __future__ import annotations

from coresize.detection.limits import memory_budget, whole_cores
from coresize.errors import InsufficientMemoryError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.model import Fact, Limits, Notice, Resource
    from coresize.planning.values import Need, WorkerPlan

#: The most workers whose tasks mostly wait: the larger of a fixed number and a number
#: per core. CPython uses both for threads that wait (concurrent.futures,
#: ThreadPoolExecutor: 5 a processor until 3.7, at most 32 since 3.8).
MOST_WAITING = 32
WAITING_PER_CORE = 5

#: What a pool needs of the kernel: the files that the process which starts the workers
#: has open for each of them; and for the pool itself files, and processes and threads:
#: a thread that distributes calls, the forkserver, the resource tracker, and one more
#: for a worker that is replaced. Workers that spawn or fork starts take two files each;
#: a pool that has no more goes on with the workers that it has.
FILES_PER_WORKER = 1
FILES_PER_POOL = 16
TASKS_PER_POOL = 4

_RESOURCES = {"cpu", "waiting", "memory", "gpu", "profile"}

#: The bounds that a count set by the user replaces, by the name of the count.
_REPLACED = {
    "override": _RESOURCES,
    "parallel": {*_RESOURCES, "platform", "processes", "files"},
}


def plan(
    limits: Limits,
    need: Need,
    *,
    rounding: str,
    reserve: int,
    memory_fraction: float,
    caps: dict[str, int],
    override: tuple[str, int, str] | None = None,
    strict: bool = False,
    warnings: tuple[Notice, ...] = (),
) -> WorkerPlan:
    """The number of workers that is safe, with the bound that decides.

    Args:
        limits: what the process may use.
        need: what one worker needs.
        rounding: how to round a fraction of a core.
        reserve: whole cores to keep free.
        memory_fraction: the part of the memory available now that workers may use.
        caps: further bounds by name, such as "tasks" and "max_workers".
        override: a count that the user set: the name of the bound ("override" or
            "parallel"), the count, and its origin.
        strict: raise if not even one task fits.
        warnings: further warnings for the user.

    Raises:
        InsufficientMemoryError: ``strict`` is true and not even one task fits.
    """
    from coresize.planning import reasons, values

    cores = whole_cores(limits.cpu.limit, rounding=rounding, reserve=reserve)
    budget = memory_budget(limits.memory, memory_fraction)
    one, kernel = _of_one_process(limits), _of_kernel(limits)
    exceeded = one if one and (need.memory or 0) > (one.amount or 0) else None
    bounds = {**_bounds(limits, need, cores, 0 if exceeded else budget), **caps}
    if "profile" in caps:
        bounds.pop("waiting", None)  # a measurement overrides a rule of thumb
    if strict and bounds.get("memory") == 0:
        raise _insufficient(need, exceeded.amount if exceeded else budget)
    bounds |= {name: _workers_within(fact) for name, fact in kernel.items()}
    deciding = dict(bounds)
    if override:
        kind, count, _ = override
        bounds[kind] = count
        deciding = {k: n for k, n in bounds.items() if k not in _REPLACED[kind]}
    binding = min(deciding, key=deciding.__getitem__)
    workers = max(1, deciding[binding])
    decision = values.Decision(
        workers=workers,
        binding=binding,
        bounds=bounds,
        need=need,
        cores=cores,
        budget=budget,
        exceeded=exceeded,
        kernel=kernel.get(binding),
        set_by=override[2] if override else None,
    )
    return values.WorkerPlan(
        workers,
        threads_per_worker=_threads(cores, bounds.get("processes"), workers),
        memory_per_worker=_memory_per_worker(need, budget, workers, one),
        binding=binding,
        bounds=bounds,
        reason=reasons.sentence(decision),
        warnings=(*reasons.warnings(decision), *warnings),
    )


def _bounds(
    limits: Limits, need: Need, cores: int, budget: int | None
) -> dict[str, int]:
    """The numbers of workers that the cores, the memory and the GPUs allow."""
    bounds = {"cpu": _how_many(cores, need.cores)}
    if need.waits:
        bounds["waiting"] = max(MOST_WAITING, WAITING_PER_CORE * cores)
    if (need.memory or need.shared) and budget is not None:
        bounds["memory"] = max(0, budget - need.shared) // max(1, need.memory or 0)
    gpus = _least(limits, "gpu")
    if need.gpus and gpus is not None:
        bounds["gpu"] = _on_devices(int(gpus), need.gpus)
    return bounds


def _insufficient(need: Need, most: float | None) -> InsufficientMemoryError:
    """The error that says what one worker with its task needs, and what it may have."""
    return InsufficientMemoryError((need.memory or 0) + need.shared, int(most or 0))


def _of_one_process(limits: Limits) -> Fact | None:
    """The tightest limit of the memory of a single process, such as RLIMIT_AS."""
    of_one = [
        fact
        for fact in limits.facts
        if fact.resource in ("address_space", "data") and fact.amount is not None
    ]
    return min(of_one, key=lambda fact: fact.amount or 0, default=None)


#: The bound by which the kernel limits a count of workers, by resource.
_KERNEL = {"workers": "platform", "processes": "processes", "files": "files"}


def _of_kernel(limits: Limits) -> dict[str, Fact]:
    """The tightest fact of each resource that limits a count of workers, by bound."""
    found: dict[str, Fact] = {}
    for fact in limits.facts:
        name = _KERNEL.get(fact.resource)
        if name and fact.amount is not None:
            found[name] = min(found.get(name, fact), fact, key=_workers_within)
    return found


def _workers_within(fact: Fact) -> int:
    """The number of workers of one pool for which the kernel has room."""
    left = int(fact.amount or 0)
    if fact.resource == "files":
        return max(0, left - FILES_PER_POOL) // FILES_PER_WORKER
    return max(0, left - TASKS_PER_POOL) if fact.resource == "processes" else left


def _how_many(amount: float, each: float) -> int:
    """How often a need fits into an amount; 0.3 fits three times into 0.9."""
    return int(amount / each + 1e-9)  # floats would say 2.9999999999999996


def _on_devices(devices: int, each: float) -> int:
    """The number of tasks that the GPUs hold; tasks may share a GPU, not span two."""
    return devices * _how_many(1, each) if each < 1 else _how_many(devices, each)


def _least(limits: Limits, resource: Resource) -> float | None:
    return min(
        (
            fact.amount
            for fact in limits.facts
            if fact.resource == resource and fact.amount is not None
        ),
        default=None,
    )


def _threads(cores: int, tasks: int | None, workers: int) -> int:
    """The threads that each worker may keep busy; the kernel has room for them all."""
    return max(1, (cores if tasks is None else min(cores, tasks)) // workers)


def _memory_per_worker(
    need: Need, budget: int | None, workers: int, one: Fact | None
) -> int | None:
    """The need of a task, or a share of the budget that one process can have."""
    if need.memory or budget is None:
        return need.memory
    share = max(0, budget - need.shared) // workers
    return share if one is None else min(share, int(one.amount or 0))
