"""The share of one rank, where a launcher starts several on this host.

mpirun, srun, torchrun and pytest-xdist start some processes, the ranks, on each host. A
rank that the launcher binds to CPUs finds its share in its affinity. A rank that is not
bound sees all that the host or the job has, and so do its neighbours, so this module
divides it:

1. What is shared is divided: the machine, the cgroups and the job. What belongs to the
   process itself is not: its affinity, its variables, the CPUs that Slurm grants to
   each task. A rank that is bound to 4 of 16 CPUs beside 3 others may use 4, not 1.
2. mpirun and srun count all ranks of the host. torchrun counts those of one agent,
   which may be a rank itself: so its number divides what the agent may use.
3. A share is no cap, so an override replaces it. Every launcher gives a share of its
   own and the least applies, so launchers need no order.

Sources: Open MPI, "Environment variables set for MPI processes"; hydra of MPICH and
Intel MPI (MPI_LOCALNRANKS); the user guides of MVAPICH2, HPE PALS and Cray PMI, IBM JSM
and Horovod; srun(1); PyTorch, "torchrun", "Environment Variables"; pytest-xdist,
"Identifying the worker process during a test".
"""

from __future__ import annotations

from coresize.detection import slurm
from coresize.detection.environ import RANKS
from coresize.detection.job import SchedulerJob, count
from coresize.model import AFFINITY, RANK_SHARE, Fact, Gap
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource, Role

#: torchrun's number, and the variables beside which it is torchrun's.
_TORCHRUN = "LOCAL_WORLD_SIZE"
_INSIDE_TORCHRUN = frozenset({"LOCAL_RANK", "TORCHELASTIC_RUN_ID"})

_IN_SLURM = "SLURM_JOB_ID"

#: The variables that a number of ranks must stand beside: a test may set the number.
_BESIDE = {"PYTEST_XDIST_WORKER_COUNT": "PYTEST_XDIST_WORKER"}

NAMES = RANKS | _INSIDE_TORCHRUN | {_TORCHRUN, _IN_SLURM, *_BESIDE.values()}

_LIMITS: frozenset[Role] = frozenset({"capacity", "limit", "cap"})

#: For each role of a share, the roles whose least amount is divided. No limit of the
#: memory is a rank's own: the kernel kills a rank when all of them have used it up.
_ROLES: dict[Resource, dict[Role, frozenset[Role]]] = {
    "cpu": {"limit": _LIMITS},
    "memory": {
        "available": _LIMITS | {"available"},
        "soft_available": frozenset({"soft_available"}),
    },
}

#: Where a process finds what is its own: its variables, and its resource limits.
_OWN = ("env:", "rlimit:")

#: The kinds of source that count CPUs of the affinity mask.
_OF_THE_MASK = (AFFINITY, "system:topology")


def with_shares(
    host: Host, resource: Resource, findings: Iterable[FactOrGap]
) -> Iterator[FactOrGap]:
    """Yield the facts and gaps about one resource, then the shares of this rank."""
    found = tuple(findings)
    yield from found
    env = host.variables(NAMES)
    of_host = _shared([one for one in found if one.source not in slurm.OF_THE_TASK])
    shares = [
        share
        for ranks in _on_host(host, resource, env)
        for share in _divide(of_host, ranks)
    ]
    yield from shares
    if env.keys() >= _INSIDE_TORCHRUN:
        job = SchedulerJob("ranks", host, resource, env)
        ranks = job.ask(_TORCHRUN, count)
        yield from _divide(_shared([*found, *shares]), ranks)


def _on_host(
    host: Host, resource: Resource, env: dict[str, str]
) -> Iterator[FactOrGap | None]:
    """Yield the numbers of ranks on this host, one by launcher."""
    job = SchedulerJob("ranks", host, resource, env)
    for name in sorted(RANKS - _INSIDE_TORCHRUN):
        if _BESIDE.get(name, name) in env:
            yield job.ask(name, count)
    if _IN_SLURM in env:
        variables = host.variables(slurm.NAMES)
        yield from slurm.tasks(SchedulerJob("slurm", host, resource, variables))


def _shared(findings: Sequence[FactOrGap]) -> list[Fact]:
    """The facts about what this process shares with the other ranks."""
    facts = [
        one
        for one in findings
        if isinstance(one, Fact)
        and one.amount is not None
        and not one.source.startswith(_OWN)
    ]
    others = [fact for fact in facts if fact.source not in _OF_THE_MASK]
    least = min((fact.amount or 0 for fact in others), default=float("inf"))
    # A mask of fewer CPUs is that of a rank that is bound, and its own.
    bound = any(
        fact.source == AFFINITY and (fact.amount or 0) < least for fact in facts
    )
    return others if bound else facts


def _divide(shared: Sequence[Fact], ranks: FactOrGap | None) -> Iterator[FactOrGap]:
    """Yield what each of some ranks may use of what they share."""
    if isinstance(ranks, Gap):
        yield ranks
    if not isinstance(ranks, Fact) or not ranks.amount or ranks.amount <= 1:
        return
    for role, roles in _ROLES[ranks.resource].items():
        amounts = [fact.amount or 0 for fact in shared if fact.role in roles]
        if amounts:
            yield _share(ranks, role, min(amounts))


def _share(ranks: Fact, role: Role, amount: float) -> Fact:
    """The share of one rank in an amount: cores, at least 1, or whole bytes."""
    part = amount / (ranks.amount or 1)
    in_cores = ranks.resource == "cpu"
    whole = f"{amount:g} cores" if in_cores else format_bytes(amount)
    return Fact(
        resource=ranks.resource,
        amount=max(1.0, part) if in_cores else int(part),
        role=role,
        source=f"{RANK_SHARE}:{ranks.where}",
        where=ranks.where,
        raw=f"{whole} / {ranks.amount:g} ranks",
    )
