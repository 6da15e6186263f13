"""The values of planning: what one worker needs, and how many there are. Immutable."""

from __future__ import annotations

from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


#: Where a setting that nobody set comes from.
DEFAULT = "default"

#: What a name begins with to be taken from what earlier runs have recorded.
OF_HISTORY = "history:"


class Resources(Value):
    """What a task of one kind uses.

    Attributes:
        cpu: cores.
        memory: bytes; None when nobody said.
        gpu: GPUs.
    """

    cpu: float
    memory: int | None
    gpu: float


class Kind(Value):
    """One kind of task in the settings.

    Attributes:
        resources: what a task of it uses.
        profile: the name of its profile, or None.
    """

    resources: Resources
    profile: str | None


class Need(Value):
    """What one worker needs while it runs a task.

    Attributes:
        memory: bytes of the idle worker and the task together; None when nobody said.
        shared: bytes that all workers share, counted once.
        cores: cores that the worker keeps busy, a fraction where tasks wait.
        waits: whether the fraction comes from waiting, which is bounded.
        gpus: devices, a fraction where tasks share one.
        doubt: why it may need more memory than that; empty where nothing says so.
    """

    memory: int | None
    shared: int
    cores: float
    waits: bool
    gpus: float
    doubt: str


class Decision(Value):
    """A count of workers, and everything that it was decided from.

    Attributes:
        workers: the count.
        binding: the bound that decided.
        bounds: every bound, as a number of workers.
        need: what one worker needs.
        cores: whole cores, after rounding and reserve.
        budget: bytes that workers may use; None when unknown.
        set_by: what set the count, where the user did.
    """

    workers: int
    binding: str
    bounds: dict[str, int]
    need: Need
    cores: int
    budget: int | None
    set_by: str | None


class WorkerPlan(int):
    """A count of workers that knows its reason. It is an int, at least 1.

    Attributes:
        workers: the count, as a plain int.
        threads_per_worker: threads that each may keep busy, at least 1.
        memory_per_worker: bytes that each may use: what a task needs, or where nobody
            said that, an equal share of the budget; None where nothing is known.
        binding: the name of the bound that decided.
        bounds: every bound by name, as a number of workers.
        reason: one sentence that says why.
        warnings: sentences about what a person should look at.

    >>> from coresize import plan_workers
    >>> plan = plan_workers(memory="2GiB", tasks=1)
    >>> plan == 1, plan.bounds["tasks"], f"{plan} worker"
    (True, 1, '1 worker')
    """

    workers: int
    threads_per_worker: int
    memory_per_worker: int | None
    binding: str
    bounds: dict[str, int]
    reason: str
    warnings: tuple[str, ...]

    def __new__(
        cls,
        workers: int,
        *,
        threads_per_worker: int,
        memory_per_worker: int | None,
        binding: str,
        bounds: dict[str, int],
        reason: str,
        warnings: tuple[str, ...] = (),
    ) -> Self:
        """Make a plan; `coresize.plan_workers` does, and decides what is in it."""
        plan = super().__new__(cls, workers)
        plan.__dict__.update(
            workers=int(workers),
            threads_per_worker=threads_per_worker,
            memory_per_worker=memory_per_worker,
            binding=binding,
            bounds=bounds,
            reason=reason,
            warnings=warnings,
        )
        return plan

    def as_dict(self) -> dict[str, object]:
        """The attributes by name."""
        return dict(self.__dict__)

    __str__ = int.__repr__
    __setattr__ = Value.__setattr__
    __delattr__ = Value.__delattr__

    def __repr__(self) -> str:
        return f"<WorkerPlan {self.reason}>"

    def __reduce__(self) -> tuple[Callable[..., WorkerPlan], tuple[dict[str, object]]]:
        return _replan, (self.as_dict(),)


def _replan(attributes: dict[str, object]) -> WorkerPlan:
    plan: WorkerPlan = WorkerPlan(**attributes)  # type: ignore[arg-type]
    return plan
