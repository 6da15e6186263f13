"""The share of this host that a batch scheduler announces, as caps.

Rule 1: a scheduler is asked only where its mark is set (environ.MARKS). Rule 2: only
the share of this host counts, never the job's total. Rule 3: every answer is a cap and
joins the minimum, so nested schedulers need no order.

Which variable means what, with its sources, is in docs/reference/environment.md.
"""

from __future__ import annotations

from coresize.detection import parse, parse_jobs
from coresize.detection.job import Job, first
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coresize.detection.reading import Finding
    from coresize.host import Host
    from coresize.model import Resource

_MIB = 1024**2

#: AWS Lambda gives one vCPU for this many MB (Lambda docs, "Configure memory").
_LAMBDA_MB_PER_CPU = 1769

#: Slurm's step numbers above this are the batch script, an interactive step and the
#: like, which own the whole allocation (slurm.h, SLURM_MAX_NORMAL_STEP_ID).
_LAST_NORMAL_STEP = 0xFFFFFFF0


def findings(
    host: Host, schedulers: Sequence[str], resource: Resource
) -> Iterator[Finding]:
    """What each of the schedulers that we are inside of says about one resource."""
    for scheduler in schedulers:
        share = _SHARES.get((scheduler, resource))
        if share:
            env = host.variables(_NAMES[scheduler])
            yield from share(
                Job(scheduler=scheduler, host=host, resource=resource, env=env)
            )


def _mebibytes(text: str) -> int:
    return parse.positive(text) * _MIB


def _count(text: str) -> float:
    return float(parse.positive(text))


# --- Slurm (src/common/env.c, src/slurmd/slurmstepd) --------------------------


def _slurm_cpu(job: Job) -> Iterator[Finding]:
    """A step's task has its own CPUs; a batch script has the job's on this node."""
    if "SLURMD_NODENAME" not in job.env:  # an salloc shell runs on the login node
        return
    per_task = job.ask("SLURM_CPUS_PER_TASK", _count) if _in_step(job) else None
    tasks = None
    if _in_step(job):
        tasks = job.ask("SLURM_STEP_TASKS_PER_NODE", _at_this_node(job))
    for finding in first(per_task, *_slurm_cpus_on_node(job)):
        shared = isinstance(tasks, Fact) and finding is not per_task
        yield _split(job, finding, tasks) if shared else finding
    if isinstance(tasks, Gap) and not isinstance(per_task, Fact):
        yield tasks


def _split(job: Job, finding: Finding, tasks: Finding | None) -> Finding:
    """The whole CPUs of each of the tasks on this node."""
    if not isinstance(finding, Fact) or not isinstance(tasks, Fact):
        return finding
    share = max(1.0, (finding.amount or 0) // (tasks.amount or 1))
    raw = f"{finding.raw} / {tasks.raw} tasks"
    return job.fact(finding.where, share, finding.where, raw)


def _slurm_memory(job: Job) -> Iterator[Finding]:
    """Of this node; both variables are unset when the job has all of it."""
    if "SLURMD_NODENAME" not in job.env:
        return
    per_node = job.ask(
        "SLURM_MEM_PER_NODE", lambda text: parse_jobs.slurm_mebibytes(text) or None
    )
    per_cpu = job.ask(
        "SLURM_MEM_PER_CPU", lambda text: parse_jobs.slurm_mebibytes(text) or None
    )
    if isinstance(per_cpu, Fact):
        cpus = [
            cpu for cpu in first(*_slurm_cpus_on_node(job)) if isinstance(cpu, Fact)
        ]
        per_cpu = (
            job.fact(
                "SLURM_MEM_PER_CPU",
                int((per_cpu.amount or 0) * (cpus[0].amount or 0)),
                "SLURM_MEM_PER_CPU",
                f"{per_cpu.raw} x {cpus[0].raw} CPUs",
            )
            if cpus
            else job.gap("SLURM_MEM_PER_CPU", "the CPUs on this node are not known")
        )
    yield from first(per_node, per_cpu)


def _slurm_cpus_on_node(job: Job) -> tuple[Finding | None, Finding | None]:
    return (
        job.ask("SLURM_CPUS_ON_NODE", _count),
        job.ask("SLURM_JOB_CPUS_PER_NODE", _at_this_node(job)),
    )


def _at_this_node(job: Job) -> Callable[[str], float]:
    def count_here(text: str) -> float:
        place = job.env.get("SLURM_NODEID")
        return float(
            parse_jobs.slurm_count(text, parse.whole(place) if place else None)
        )

    return count_here


def _in_step(job: Job) -> bool:
    """Whether srun started this process as a task."""
    step = job.env.get("SLURM_STEP_ID", "")
    normal = step.isdigit() and int(step[:20]) <= _LAST_NORMAL_STEP
    return normal and "SLURM_PROCID" in job.env


# --- The others ---------------------------------------------------------------


def _pbs_cpu(job: Job) -> Iterator[Finding]:
    """TORQUE's CPUs per node; OpenPBS's of this chunk, else this host's slots."""
    return first(
        job.ask("PBS_NUM_PPN", _count),
        job.ask("NCPUS", _count),
        job.ask_file("PBS_NODEFILE", job.own(parse_jobs.host_lines)),
    )


def _sge_cpu(job: Job) -> Iterator[Finding]:
    """This host's slots; NSLOTS is the job's total, so it serves on one host only."""
    if "JOB_ID" not in job.env:  # SGE_ROOT alone is a submit host
        return
    hosts = job.ask("NHOSTS", _count)
    alone = hosts is None or (isinstance(hosts, Fact) and hosts.amount == 1)
    yield from first(
        job.ask_file("PE_HOSTFILE", job.own(parse_jobs.pe_hosts)),
        job.ask("NSLOTS", _count)
        if alone
        else hosts
        if isinstance(hosts, Gap)
        else None,
    )


def _lsf_cpu(job: Job) -> Iterator[Finding]:
    """This host's slots; LSB_DJOB_NUMPROC is the job's total, for want of any list."""
    lists = (
        job.ask("LSB_MCPU_HOSTS", job.own(parse_jobs.host_pairs)),
        job.ask("LSB_HOSTS", job.own(parse_jobs.host_lines)),
        job.ask_file("LSB_DJOB_HOSTFILE", job.own(parse_jobs.host_lines)),
    )
    return first(*lists if any(lists) else [job.ask("LSB_DJOB_NUMPROC", _count)])


def _fujitsu_cpu(job: Job) -> Iterator[Finding]:
    """The cores of the virtual node."""
    return first(job.ask("PJM_VNODE_CORE", _count))


def _oar_cpu(job: Job) -> Iterator[Finding]:
    """This host's lines in the node file, which has four names."""
    names = [name for name in _OAR_FILES if name in job.env]
    return first(
        *(job.ask_file(name, job.own(parse_jobs.host_lines)) for name in names[:1])
    )


def _htcondor_cpu(job: Job) -> Iterator[Finding]:
    """``Cpus`` of the machine ad, not OMP_NUM_THREADS: a user sets that one too."""
    return first(
        job.ask_file(_MACHINE_AD, lambda text: float(parse_jobs.classad(text, "Cpus")))
    )


def _htcondor_memory(job: Job) -> Iterator[Finding]:
    """``Memory`` of the machine ad, in MiB."""
    return first(
        job.ask_file(
            _MACHINE_AD, lambda text: parse_jobs.classad(text, "Memory") * _MIB
        )
    )


def _flux_cpu(job: Job) -> Iterator[Finding]:
    """Flux sets no count; it binds the job by affinity."""
    yield job.fact("FLUX_JOB_ID", None, "FLUX_JOB_ID", job.env["FLUX_JOB_ID"])


def _nomad_cpu(job: Job) -> Iterator[Finding]:
    """The reserved cores; NOMAD_CPU_LIMIT is in MHz and no count."""
    return first(job.ask("NOMAD_CPU_CORES", parse.cpu_list_length))


def _nomad_memory(job: Job) -> Iterator[Finding]:
    """The hard limit, which is the maximum where memory is oversubscribed."""
    return first(
        job.ask("NOMAD_MEMORY_MAX_LIMIT", _mebibytes),
        job.ask("NOMAD_MEMORY_LIMIT", _mebibytes),
    )


def _lambda_cpu(job: Job) -> Iterator[Finding]:
    """The share that comes with the memory; the sandbox shows more CPUs than that."""
    return first(
        job.ask(_LAMBDA_SIZE, lambda text: parse.positive(text) / _LAMBDA_MB_PER_CPU)
    )


def _lambda_memory(job: Job) -> Iterator[Finding]:
    """The configured memory."""
    return first(job.ask(_LAMBDA_SIZE, _mebibytes))


def _galaxy_cpu(job: Job) -> Iterator[Finding]:
    """The slots of the job."""
    return first(job.ask("GALAXY_SLOTS", _count))


def _galaxy_memory(job: Job) -> Iterator[Finding]:
    """The memory of the job in MiB."""
    return first(job.ask("GALAXY_MEMORY_MB", _mebibytes))


_OAR_FILES = ("OAR_NODEFILE", "OAR_NODE_FILE", "OAR_FILE_NODES", "OAR_RESOURCE_FILE")
_MACHINE_AD = "_CONDOR_MACHINE_AD"
_LAMBDA_SIZE = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"

_NAMES = {
    "slurm": frozenset(
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
    ),
    "pbs": frozenset({"NCPUS", "PBS_NODEFILE", "PBS_NUM_PPN"}),
    "sge": frozenset({"JOB_ID", "NHOSTS", "NSLOTS", "PE_HOSTFILE"}),
    "lsf": frozenset(
        {"LSB_DJOB_HOSTFILE", "LSB_DJOB_NUMPROC", "LSB_HOSTS", "LSB_MCPU_HOSTS"}
    ),
    "fujitsu": frozenset({"PJM_VNODE_CORE"}),
    "oar": frozenset(_OAR_FILES),
    "htcondor": frozenset({_MACHINE_AD}),
    "flux": frozenset({"FLUX_JOB_ID"}),
    "nomad": frozenset(
        {"NOMAD_CPU_CORES", "NOMAD_MEMORY_LIMIT", "NOMAD_MEMORY_MAX_LIMIT"}
    ),
    "lambda": frozenset({_LAMBDA_SIZE}),
    "galaxy": frozenset({"GALAXY_MEMORY_MB", "GALAXY_SLOTS"}),
}

_SHARES: dict[tuple[str, Resource], Callable[[Job], Iterator[Finding]]] = {
    ("slurm", "cpu"): _slurm_cpu,
    ("slurm", "memory"): _slurm_memory,
    ("pbs", "cpu"): _pbs_cpu,
    ("sge", "cpu"): _sge_cpu,
    ("lsf", "cpu"): _lsf_cpu,
    ("fujitsu", "cpu"): _fujitsu_cpu,
    ("oar", "cpu"): _oar_cpu,
    ("htcondor", "cpu"): _htcondor_cpu,
    ("htcondor", "memory"): _htcondor_memory,
    ("flux", "cpu"): _flux_cpu,
    ("nomad", "cpu"): _nomad_cpu,
    ("nomad", "memory"): _nomad_memory,
    ("lambda", "cpu"): _lambda_cpu,
    ("lambda", "memory"): _lambda_memory,
    ("galaxy", "cpu"): _galaxy_cpu,
    ("galaxy", "memory"): _galaxy_memory,
}
