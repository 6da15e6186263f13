"""The immutable values of planning: the needs of one worker, and the plan."""

from __future__ import annotations

from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from coresize.model import Fact, Notice


#: The origin of a setting that no place sets.
DEFAULT = "default"

#: The prefix of a profile name that stands for the records of earlier runs.
OF_HISTORY = "history:"


class Resources(Value):
    """The resources that a task of one kind uses.

    Attributes:
        cpus: cores.
        memory: bytes; None if not stated.
        gpus: GPUs.
    """

    cpus: float
    memory: int | None
    gpus: float


class Kind(Value):
    """One kind of task in the settings.

    Attributes:
        resources: the resources that a task of this kind uses.
        profile: the name of the kind's profile, or None.
    """

    resources: Resources
    profile: str | None


class Need(Value):
    """What one worker needs while it runs a task.

    Attributes:
        memory: bytes of the idle worker and the task together; None if not stated.
        shared: bytes that all workers share, counted once.
        cores: cores that the worker keeps busy, a fraction if tasks wait.
        waits: whether the fraction comes from waiting; then the count has a bound.
        gpus: GPUs, a fraction if tasks share one.
        doubt: why the worker may need more memory than stated; empty without a reason.
    """

    memory: int | None
    shared: int
    cores: float
    waits: bool
    gpus: float
    doubt: str


class Decision(Value):
    """A count of workers, and everything that the decision was based on.

    Attributes:
        workers: the count.
        binding: the bound that decided.
        bounds: every bound, as a number of workers.
        need: what one worker needs.
        cores: whole cores, after rounding and reserve.
        budget: bytes that workers may use; None if unknown.
        exceeded: the limit of a single process, such as RLIMIT_AS, that a worker with
            its task would exceed; None without one.
        kernel: the kernel's limit of processes or files that decided; None if another
            bound did.
        set_by: the variable or setting by which the user set the count, or None.
    """

    workers: int
    binding: str
    bounds: dict[str, int]
    need: Need
    cores: int
    budget: int | None
    exceeded: Fact | None
    kernel: Fact | None
    set_by: str | None


class WorkerPlan(int):
    """A count of workers that knows its reason: an int, at least 1.

    Attributes:
        workers: the count, as a plain int.
        threads_per_worker: threads that each worker may keep busy, at least 1.
        memory_per_worker: bytes that each worker may use: the need of a task or, if
            that is not stated, an equal share of the budget; None if neither is known.
        binding: the name of the bound that decided.
        bounds: every bound by name, as a number of workers.
        reason: one sentence that explains the count.
        warnings: sentences about problems that the user should look at.

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
    warnings: tuple[Notice, ...]

    def __new__(
        cls,
        workers: int,
        *,
        threads_per_worker: int,
        memory_per_worker: int | None,
        binding: str,
        bounds: dict[str, int],
        reason: str,
        warnings: tuple[Notice, ...] = (),
    ) -> Self:
        """Make a plan from its attributes, as `coresize.plan_workers` does."""
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
        """The attributes by name, and the codes of the warnings."""
        codes = [warning.code for warning in self.warnings]
        return {**self.__dict__, "warning_codes": codes}

    __str__ = int.__repr__
    __setattr__ = Value.__setattr__
    __delattr__ = Value.__delattr__

    def __repr__(self) -> str:
        return f"<WorkerPlan {self.reason}>"

    def __reduce__(self) -> tuple[Callable[..., WorkerPlan], tuple[dict[str, object]]]:
        return _replan, (dict(self.__dict__),)


def _replan(attributes: dict[str, object]) -> WorkerPlan:
    plan: WorkerPlan = WorkerPlan(**attributes)  # type: ignore[arg-type]
    return plan
