"""Slurm's share of this node (src/common/env.c and src/slurmd/slurmstepd of Slurm)."""

from __future__ import annotations

from coresize import units
from coresize.detection import parse_jobs
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
        "SLURM_JOB_CPUS_PER_NODE",
        "SLURM_MEM_PER_CPU",
        "SLURM_MEM_PER_NODE",
        "SLURM_NODEID",
        "SLURM_PROCID",
        "SLURM_STEP_ID",
        "SLURM_STEP_TASKS_PER_NODE",
    }
)

#: Step numbers above this are the batch script, an interactive step and the like, which
#: own the whole allocation (slurm.h, SLURM_MAX_NORMAL_STEP_ID).
_LAST_NORMAL_STEP = 0xFFFFFFF0


def cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The CPUs of a step's task, or, for a batch script, of the job on this node."""
    if not _on_node(job):
        return
    if not _in_step(job):
        yield from _cpus_on_node(job)
        return
    per_task = job.ask("SLURM_CPUS_PER_TASK", count)
    if per_task:
        yield per_task
    if isinstance(per_task, Fact):
        return
    tasks = job.ask("SLURM_STEP_TASKS_PER_NODE", _at_this_node(job))
    if isinstance(tasks, Gap):
        yield tasks
    for cpus in _cpus_on_node(job):
        if isinstance(cpus, Fact) and isinstance(tasks, Fact):
            yield _share(job, cpus, tasks)
        else:
            yield cpus


def memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The memory on this node; if the job has all of it, both variables are unset."""
    if not _on_node(job):
        return
    per_node = job.ask("SLURM_MEM_PER_NODE", _bytes)
    per_cpu = job.ask("SLURM_MEM_PER_CPU", _bytes)
    if isinstance(per_cpu, Fact):
        per_cpu = _times_cpus(job, per_cpu)
    yield from first(per_node, per_cpu)


def _share(job: SchedulerJob, cpus: Fact, tasks: Fact) -> Fact:
    """The CPUs of each task on this node, a whole number."""
    share = max(1.0, (cpus.amount or 0) // (tasks.amount or 1))
    return job.fact(cpus.where, share, cpus.where, f"{cpus.raw} / {tasks.raw} tasks")


def _times_cpus(job: SchedulerJob, per_cpu: Fact) -> FactOrGap:
    """The memory of all CPUs on this node."""
    for cpus in _cpus_on_node(job):
        if isinstance(cpus, Fact):
            total = int((per_cpu.amount or 0) * (cpus.amount or 0))
            raw = f"{per_cpu.raw} x {cpus.raw} CPUs"
            return job.fact(per_cpu.where, total, per_cpu.where, raw)
    return job.gap(
        per_cpu.where, "the CPUs on this node are not known", "cpus-not-known"
    )


def _cpus_on_node(job: SchedulerJob) -> Iterator[FactOrGap]:
    return first(
        job.ask("SLURM_CPUS_ON_NODE", count),
        job.ask("SLURM_JOB_CPUS_PER_NODE", _at_this_node(job)),
    )


def _at_this_node(job: SchedulerJob) -> Callable[[str], float]:
    """A parser for this node's number in a list of numbers by node."""
    place = job.env.get("SLURM_NODEID")

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
