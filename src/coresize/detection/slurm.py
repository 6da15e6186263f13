"""Slurm's share of this node (src/common/env.c and src/slurmd/slurmstepd of Slurm)."""

from __future__ import annotations

from coresize import units
from coresize.detection import parse, parse_jobs
from coresize.detection.job import count, first
from coresize.errors import ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.detection.job import SchedulerJob
    from coresize.detection.reading import FactOrGap

NAMES = frozenset(
    {
        "SLURMD_NODENAME",
        "SLURM_CPUS_ON_NODE",
        "SLURM_CPUS_PER_TASK",
        "SLURM_GPUS_ON_NODE",
        "SLURM_GPUS_PER_NODE",
        "SLURM_JOB_CPUS_PER_NODE",
        "SLURM_JOB_GPUS",
        "SLURM_MEM_PER_CPU",
        "SLURM_MEM_PER_GPU",
        "SLURM_MEM_PER_NODE",
        "SLURM_NODEID",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_PROCID",
        "SLURM_STEP_GPUS",
        "SLURM_STEP_ID",
        "SLURM_STEP_TASKS_PER_NODE",
        "SLURM_TRES_PER_TASK",
        "SRUN_CPUS_PER_TASK",
    }
)

#: The sources that are about one task, not about all tasks on this node.
OF_THE_TASK = frozenset(
    f"slurm:{name}"
    for name in ("SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK", "SLURM_TRES_PER_TASK")
)

#: Step numbers above this are the batch script, an interactive step and the like, which
#: own the whole allocation (slurm.h, SLURM_MAX_NORMAL_STEP_ID).
_LAST_NORMAL_STEP = 0xFFFFFFF0


def cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The CPUs of the step or the batch script on this node, and those of the task.

    Since Slurm 22.05, srun no longer takes the number of CPUs per task from the batch
    script, but the step inherits the script's variables. So the CPUs per task count
    only as far as the step has that many on this node. What the tasks of a step share,
    `coresize.detection.ranks` divides.
    """
    if not _on_node(job):
        return
    found = tuple(_cpus_on_node(job))
    yield from found
    if _in_step(job):
        on_node = next((one for one in found if isinstance(one, Fact)), None)
        here = next((one for one in tasks(job) if isinstance(one, Fact)), None)
        yield from _cpus_per_task(job, on_node, (here and here.amount) or 1)


def _cpus_per_task(
    job: SchedulerJob, on_node: Fact | None, here: float
) -> Iterator[FactOrGap]:
    """The CPUs of a task; a gap for more CPUs than the step has for its tasks here."""
    granted = (
        job.ask("SLURM_CPUS_PER_TASK", count) or job.ask("SRUN_CPUS_PER_TASK", count),
        job.ask("SLURM_TRES_PER_TASK", parse_jobs.tres_cpus),
    )
    for one in granted:
        if isinstance(one, Fact) and on_node:
            wanted = (one.amount or 0) * here
            yield one if wanted <= (on_node.amount or 0) else _stale(job, one, on_node)
        elif one:
            yield one


def _stale(job: SchedulerJob, granted: Fact, on_node: Fact) -> Gap:
    """The gap for a number of CPUs per task that this step does not have."""
    reason = (
        f"the step has fewer CPUs here ({on_node.where}={on_node.raw}) than "
        f"{granted.raw} for each of its tasks: the value may be the batch script's"
    )
    return job.gap(granted.where, reason, "contradicted")


def tasks(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The number of tasks that srun started on this node; nothing outside a step."""
    if _on_node(job) and _in_step(job):
        yield from first(
            job.ask("SLURM_STEP_TASKS_PER_NODE", _at_this_node(job)),
            job.ask("SLURM_NTASKS_PER_NODE", count),
        )


def memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The memory on this node; if the job has all of it, no variable is set."""
    if not _on_node(job):
        return
    yield from first(
        job.ask("SLURM_MEM_PER_NODE", _bytes),
        _times(job, "SLURM_MEM_PER_CPU", "CPUs", _cpus_on_node(job)),
        _times(job, "SLURM_MEM_PER_GPU", "GPUs", _gpus_on_node(job)),
    )


def _times(
    job: SchedulerJob, name: str, what: str, on_node: Iterator[FactOrGap]
) -> FactOrGap | None:
    """The memory of all CPUs, or of all GPUs, on this node."""
    each = job.ask(name, _bytes)
    if not isinstance(each, Fact):
        return each
    for number in on_node:
        if isinstance(number, Fact):
            total = int((each.amount or 0) * (number.amount or 0))
            return job.fact(name, total, name, f"{each.raw} x {number.amount:g} {what}")
    return job.gap(name, f"the {what} on this node are not known", "node-not-known")


def _cpus_on_node(job: SchedulerJob) -> Iterator[FactOrGap]:
    # The job's list is by the nodes of the job, and SLURM_NODEID is by those of the
    # step: inside a step the two may differ.
    in_order = not _in_step(job)
    return first(
        job.ask("SLURM_CPUS_ON_NODE", count),
        job.ask("SLURM_JOB_CPUS_PER_NODE", _at_this_node(job, in_order=in_order)),
    )


def _gpus_on_node(job: SchedulerJob) -> Iterator[FactOrGap]:
    return first(
        job.ask("SLURM_GPUS_ON_NODE", count),
        job.ask("SLURM_STEP_GPUS", parse.cpu_list_length),
        job.ask("SLURM_JOB_GPUS", parse.cpu_list_length),
        job.ask("SLURM_GPUS_PER_NODE", parse_jobs.typed_count),
    )


def _at_this_node(
    job: SchedulerJob, *, in_order: bool = True
) -> Callable[[str], float]:
    """A parser for this node's number in a list of numbers by node.

    Args:
        job: the job.
        in_order: whether SLURM_NODEID is this node's place in the list.
    """
    place = job.env.get("SLURM_NODEID") if in_order else None

    def number_here(text: str) -> float:
        node = units.whole(place) if place else None
        return float(parse_jobs.slurm_count(text, node))

    return number_here


def _bytes(text: str) -> int | None:
    """The bytes; None for 0, which means all of the node's memory."""
    return parse_jobs.slurm_mebibytes(text) or None


def _on_node(job: SchedulerJob) -> bool:
    """Whether slurmd runs on this host; an salloc shell stays on the login node."""
    return "SLURMD_NODENAME" in job.env


def _in_step(job: SchedulerJob) -> bool:
    """Whether srun started this process as a task."""
    try:
        step = units.whole(job.env.get("SLURM_STEP_ID", ""))
    except ParseError:
        return False
    return step <= _LAST_NORMAL_STEP and "SLURM_PROCID" in job.env
