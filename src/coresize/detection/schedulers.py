"""The share of this host that a batch scheduler announces, as caps.

Rule 1: the variables of a scheduler are read only if its mark is set (environ.MARKS).
Rule 2: only the share of this host counts, never the job's total. Rule 3: every answer
is a cap and joins the minimum, so nested schedulers need no order.

docs/reference/environment.md has the meaning of each variable, with sources.
"""

from __future__ import annotations

from coresize import units
from coresize.detection import parse, parse_jobs, slurm
from coresize.detection.job import SchedulerJob, count, first, mebibytes
from coresize.model import Fact, Gap, Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource

#: AWS Lambda gives one vCPU for this many MB (Lambda docs, "Configure memory").
_LAMBDA_MB_PER_CPU = 1769

_LAMBDA_SIZE = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"
_MACHINE_AD = "_CONDOR_MACHINE_AD"
_SGE_MEMORY = ("SGE_HGR_h_vmem", "SGE_HGR_m_mem_free")
_OAR_FILES = ("OAR_NODEFILE", "OAR_NODE_FILE", "OAR_FILE_NODES", "OAR_RESOURCE_FILE")


class Scheduler(Value):
    """One scheduler: its variables, and a function for the share of each resource."""

    names: frozenset[str]
    shares: dict[Resource, Callable[[SchedulerJob], Iterator[FactOrGap]]]


def findings(
    host: Host, inside: Sequence[str], resource: Resource
) -> Iterator[FactOrGap]:
    """Yield the facts and gaps about one resource from the schedulers of this job."""
    for name in inside:
        scheduler = SCHEDULERS[name]
        if resource in scheduler.shares:
            env = host.variables(scheduler.names)
            yield from scheduler.shares[resource](
                SchedulerJob(name, host, resource, env)
            )


def _pbs_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """This host's slots (TORQUE), or the CPUs of this chunk (OpenPBS).

    TORQUE lists one line for each slot, and its number of slots per node is wrong for
    full host names before 5.0.2 and for jobs of unlike nodes. OpenPBS lists one line
    for each MPI process, at most as many as the chunk has CPUs; it lists more where
    several chunks are on one host.
    """
    listed = job.ask_file("PBS_NODEFILE", job.own(parse_jobs.host_lines))
    per_node = job.ask("PBS_NUM_PPN", count)
    of_chunk = job.ask("NCPUS", count)
    if per_node:
        return job.prefer(listed, per_node, of_chunk)
    if isinstance(listed, Fact) and isinstance(of_chunk, Fact):
        more = (listed.amount or 0) > (of_chunk.amount or 0)
        return job.prefer(listed, of_chunk) if more else first(of_chunk)
    return first(of_chunk, listed)


def _sge_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """This host's slots; NSLOTS is the job's total, so it serves on one host only."""
    if "JOB_ID" not in job.env:  # SGE_ROOT alone is a submit host
        return iter(())
    hosts = job.ask("NHOSTS", units.whole)
    if isinstance(hosts, Fact):
        alone = (hosts.amount or 0) <= 1
    else:
        alone = hosts is None and "PE_HOSTFILE" not in job.env
    return job.prefer(
        job.ask_file("PE_HOSTFILE", job.own(parse_jobs.pe_hosts)),
        job.ask("NSLOTS", count) if alone else None,
        hosts if isinstance(hosts, Gap) else None,
    )


def _sge_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The memory granted on this host (HGR), for all slots of the job together.

    Each consumable resource that the job requests has a variable of its own. h_vmem is
    a limit on all processes of the job (queue_conf(5)); galaxy#8451 has the total.
    """
    if "JOB_ID" in job.env:
        for name in _SGE_MEMORY:
            yield from filter(None, [job.ask(name, parse_jobs.sge_size)])


def _lsf_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """This host's CPUs or slots; without any list, the job's total.

    A job with affinity requirements has as many CPUs as the file lists, and its slots
    may have several CPUs each (Spectrum LSF, "CPU and memory affinity").
    """

    def cpus_here(text: str) -> float | None:
        return job.own(parse_jobs.host_cpus)(text) if text.strip() else None

    lists = (
        job.ask_file("LSB_AFFINITY_HOSTFILE", cpus_here),
        job.ask("LSB_MCPU_HOSTS", job.own(parse_jobs.host_pairs)),
        job.ask("LSB_HOSTS", job.own(parse_jobs.host_lines)),
        job.ask_file("LSB_DJOB_HOSTFILE", job.own(parse_jobs.host_lines)),
    )
    return first(*lists if any(lists) else [job.ask("LSB_DJOB_NUMPROC", count)])


def _fujitsu_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The cores of the virtual node."""
    return first(job.ask("PJM_VNODE_CORE", count))


def _oar_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """This host's lines in the node file, which has four names."""
    names = {job.env[name]: name for name in reversed(_OAR_FILES) if name in job.env}
    slots = job.own(parse_jobs.host_lines)
    return first(*(job.ask_file(name, slots) for name in reversed(names.values())))


def _htcondor_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """``Cpus`` of the machine ad; not OMP_NUM_THREADS, which users set too."""
    return first(
        job.ask_file(_MACHINE_AD, lambda text: parse_jobs.classad(text, "Cpus"))
    )


def _htcondor_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """``Memory`` of the machine ad, in MiB."""
    return first(
        job.ask_file(
            _MACHINE_AD, lambda text: int(parse_jobs.classad(text, "Memory") * 1024**2)
        )
    )


def _flux_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """A fact without an amount: Flux sets no count, and binds the job by affinity."""
    yield job.fact("FLUX_JOB_ID", None, "FLUX_JOB_ID", job.env["FLUX_JOB_ID"])


def _nomad_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The reserved cores; NOMAD_CPU_LIMIT is in MHz and not a count."""
    return first(job.ask("NOMAD_CPU_CORES", parse.cpu_list_length))


def _nomad_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The hard limit: the maximum if memory is oversubscribed, else the limit."""
    return first(
        job.ask("NOMAD_MEMORY_MAX_LIMIT", mebibytes),
        job.ask("NOMAD_MEMORY_LIMIT", mebibytes),
    )


def _lambda_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The CPUs that come with the memory; the sandbox shows more CPUs than these."""
    return first(
        job.ask(_LAMBDA_SIZE, lambda text: units.positive(text) / _LAMBDA_MB_PER_CPU)
    )


def _lambda_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The configured memory."""
    return first(job.ask(_LAMBDA_SIZE, mebibytes))


def _galaxy_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The slots of the job."""
    return first(job.ask("GALAXY_SLOTS", count))


def _galaxy_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The memory of the job in MiB."""
    return first(job.ask("GALAXY_MEMORY_MB", mebibytes))


def _hyperqueue_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The cores of the task, by their numbers (HyperQueue docs, "Task resources")."""
    return first(job.ask("HQ_CPUS", parse.cpu_list_length))


def _jupyterhub_cpu(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The limit of the user's server (jupyterhub/spawner.py, `Spawner.get_env`)."""
    return first(job.ask("CPU_LIMIT", units.cores))


def _jupyterhub_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The limit in bytes; not every spawner enforces it."""
    return first(job.ask("MEM_LIMIT", units.positive))


def _appengine_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The memory of the instance (App Engine docs, "Runtime environment")."""
    return first(job.ask("GAE_MEMORY_MB", mebibytes))


def _cloudfoundry_memory(job: SchedulerJob) -> Iterator[FactOrGap]:
    """The memory of the instance (Cloud Foundry docs, "Environment Variables")."""
    return first(
        job.ask("MEMORY_LIMIT", lambda text: parse_jobs.slurm_mebibytes(text) or None)
    )


#: The schedulers, by their names in `environ.MARKS`.
SCHEDULERS = {
    "slurm": Scheduler(
        names=slurm.NAMES, shares={"cpu": slurm.cpu, "memory": slurm.memory}
    ),
    "pbs": Scheduler(
        names=frozenset({"NCPUS", "PBS_NODEFILE", "PBS_NUM_PPN"}),
        shares={"cpu": _pbs_cpu},
    ),
    "sge": Scheduler(
        names=frozenset({"JOB_ID", "NHOSTS", "NSLOTS", "PE_HOSTFILE", *_SGE_MEMORY}),
        shares={"cpu": _sge_cpu, "memory": _sge_memory},
    ),
    "lsf": Scheduler(
        names=frozenset(
            {
                "LSB_AFFINITY_HOSTFILE",
                "LSB_DJOB_HOSTFILE",
                "LSB_DJOB_NUMPROC",
                "LSB_HOSTS",
                "LSB_MCPU_HOSTS",
            }
        ),
        shares={"cpu": _lsf_cpu},
    ),
    "fujitsu": Scheduler(
        names=frozenset({"PJM_VNODE_CORE"}), shares={"cpu": _fujitsu_cpu}
    ),
    "oar": Scheduler(names=frozenset(_OAR_FILES), shares={"cpu": _oar_cpu}),
    "htcondor": Scheduler(
        names=frozenset({_MACHINE_AD}),
        shares={"cpu": _htcondor_cpu, "memory": _htcondor_memory},
    ),
    "flux": Scheduler(names=frozenset({"FLUX_JOB_ID"}), shares={"cpu": _flux_cpu}),
    "nomad": Scheduler(
        names=frozenset(
            {"NOMAD_CPU_CORES", "NOMAD_MEMORY_LIMIT", "NOMAD_MEMORY_MAX_LIMIT"}
        ),
        shares={"cpu": _nomad_cpu, "memory": _nomad_memory},
    ),
    "lambda": Scheduler(
        names=frozenset({_LAMBDA_SIZE}),
        shares={"cpu": _lambda_cpu, "memory": _lambda_memory},
    ),
    "galaxy": Scheduler(
        names=frozenset({"GALAXY_MEMORY_MB", "GALAXY_SLOTS"}),
        shares={"cpu": _galaxy_cpu, "memory": _galaxy_memory},
    ),
    "hyperqueue": Scheduler(
        names=frozenset({"HQ_CPUS"}), shares={"cpu": _hyperqueue_cpu}
    ),
    "jupyterhub": Scheduler(
        names=frozenset({"CPU_LIMIT", "MEM_LIMIT"}),
        shares={"cpu": _jupyterhub_cpu, "memory": _jupyterhub_memory},
    ),
    "appengine": Scheduler(
        names=frozenset({"GAE_MEMORY_MB"}), shares={"memory": _appengine_memory}
    ),
    "cloudfoundry": Scheduler(
        names=frozenset({"MEMORY_LIMIT"}), shares={"memory": _cloudfoundry_memory}
    ),
}
