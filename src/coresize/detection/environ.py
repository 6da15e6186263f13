"""Limits from environment variables: overrides, caps, and the scheduler's share.

Rule 1: variables are read at the call, never at import. Rule 2: an empty variable
counts as unset, except one that then hides all devices
(`coresize.host.EMPTY_IS_NONE`). Rule 3: a malformed variable of coresize raises
ConfigError, since the user can correct it; any other malformed variable is a gap. Rule
4: one variable is one source.
"""

from __future__ import annotations

from coresize import units
from coresize.detection import parse
from coresize.detection.reading import gap, keep_last
from coresize.errors import ConfigError, ParseError
from coresize.host import CPU_COUNT_OPTION
from coresize.model import Fact


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource, Role

    Parser: TypeAlias = Callable[[str], float | None]


def _python_count(text: str) -> float | None:
    """CPython spells "not set" as ``default`` (PYTHON_CPU_COUNT, using/cmdline)."""
    return None if text == "default" else _count(text)


def _count(text: str) -> float:
    return float(units.positive(text))


_CORES = 'a number of cores above 0, such as "8" or "8.5", or unset it'
_SIZE = f"{units.SIZES}, or unset it"
_RESERVE = "CORESIZE_RESERVE_CORES"
_RESERVES = "a whole number of cores, 0 or above, or unset it"

#: Resource, role and parser by variable; and, for variables of coresize, the allowed
#: values. The first valid override wins.
_VARIABLES: dict[str, tuple[Resource, Role, Parser, str | None]] = {
    "CORESIZE_OVERRIDE_CORES": ("cpu", "override", units.cores, _CORES),
    "PARALLELLY_OVERRIDE_CORES": ("cpu", "override", units.cores, None),
    CPU_COUNT_OPTION: ("cpu", "override", _python_count, None),
    "PYTHON_CPU_COUNT": ("cpu", "override", _python_count, None),
    "CORESIZE_MAX_CORES": ("cpu", "cap", units.cores, _CORES),
    "LOKY_MAX_CPU_COUNT": ("cpu", "cap", _count, None),
    "CORESIZE_OVERRIDE_MEMORY": ("memory", "override", units.memory_size, _SIZE),
    "CORESIZE_MAX_MEMORY": ("memory", "cap", units.memory_size, _SIZE),
    "CUDA_VISIBLE_DEVICES": ("gpu", "limit", parse.devices, None),
}

#: The overrides, each with its resource, the strongest first.
OVERRIDES = {
    name: resource
    for name, (resource, role, *_) in _VARIABLES.items()
    if role == "override"
}

#: The variables that mark a job of a scheduler. The scheduler's other variables count
#: only with its mark: NSLOTS or NCPUS may come from anyone.
MARKS = {
    "SLURM_JOB_ID": "slurm",
    "PBS_JOBID": "pbs",
    "SGE_ROOT": "sge",
    "LSB_JOBID": "lsf",
    "PJM_JOBID": "fujitsu",
    "OAR_JOB_ID": "oar",
    "_CONDOR_MACHINE_AD": "htcondor",
    "FLUX_JOB_ID": "flux",
    "NOMAD_ALLOC_ID": "nomad",
    "AWS_LAMBDA_FUNCTION_NAME": "lambda",
    "GALAXY_SLOTS": "galaxy",
    "HQ_JOB_ID": "hyperqueue",
    "JUPYTERHUB_USER": "jupyterhub",
    "GAE_ENV": "appengine",
    "GAE_INSTANCE": "appengine",
    "VCAP_APPLICATION": "cloudfoundry",
}

#: The variables by which a launcher tells a process that it is one of several ranks on
#: this host. All but torchrun's mark hold the number of ranks.
RANKS = frozenset(
    {
        "HOROVOD_LOCAL_SIZE",
        "JSM_NAMESPACE_LOCAL_SIZE",
        "MPI_LOCALNRANKS",
        "MV2_COMM_WORLD_LOCAL_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "PALS_LOCAL_SIZE",
        "PMI_LOCAL_SIZE",
        "PYTEST_XDIST_WORKER_COUNT",
        "TORCHELASTIC_RUN_ID",
    }
)

#: The variables beside which this process may be a rank: Slurm counts the tasks itself.
_MAYBE_RANK = RANKS | {"SLURM_JOB_ID"}

_SHARE_RANKS = "CORESIZE_SHARE_RANKS"

#: All variables that are read first.
NAMES = frozenset({*_VARIABLES, *MARKS, *RANKS, _RESERVE, _SHARE_RANKS})


def read_variables(host: Host) -> dict[str, str]:
    """The variables of `NAMES` that are set."""
    return host.variables(NAMES)


def findings(
    host: Host, present: dict[str, str], resource: Resource
) -> Iterator[FactOrGap]:
    """Yield the facts and gaps about one resource from the variables that are set.

    Raises:
        ConfigError: a variable of coresize is malformed, for any resource.
    """
    if not present:
        return
    reserved_cores(present)
    overridden = False
    for name in _VARIABLES:
        if name not in present:
            continue
        finding = _finding(present[name], name)
        if not finding or finding.resource != resource:
            continue
        if isinstance(finding, Fact) and finding.role == "override":
            if overridden:
                continue
            overridden = True
        yield finding
    inside = dict.fromkeys(name for mark, name in MARKS.items() if mark in present)
    if inside:
        from coresize.detection import schedulers

        yield from schedulers.findings(host, tuple(inside), resource)


@keep_last
def _finding(text: str, name: str) -> FactOrGap | None:
    """The fact or gap from one variable; None if its value means "not set"."""
    resource, role, parser, allowed = _VARIABLES[name]
    source = f"env:{name}"
    try:
        amount = parser(text)
    except ParseError as error:
        if allowed:
            hint = units.unit_hint(text) if resource == "memory" else ""
            raise ConfigError(name, text, allowed + hint) from None
        return gap(error, resource=resource, source=source, where=name)
    if amount is None:
        return None
    return Fact(
        resource=resource, amount=amount, role=role, source=source, where=name, raw=text
    )


def reserved_cores(present: dict[str, str]) -> int:
    """The cores that CORESIZE_RESERVE_CORES keeps free; 0 when it is not set.

    Raises:
        ConfigError: the variable is not a whole number, 0 or above.
    """
    text = present.get(_RESERVE)
    if text is None:
        return 0
    try:
        return units.whole(text)
    except ParseError:
        raise ConfigError(_RESERVE, text, _RESERVES) from None


def shares_ranks(present: dict[str, str]) -> bool:
    """Whether this process may be a rank, and counts only its share of the host.

    Raises:
        ConfigError: CORESIZE_SHARE_RANKS is neither on nor off.
    """
    if _MAYBE_RANK.isdisjoint(present) and _SHARE_RANKS not in present:
        return False
    text = present.get(_SHARE_RANKS, "1")
    try:
        wanted = units.switch(text)
    except ParseError:
        raise ConfigError(_SHARE_RANKS, text, '"1" or "0", or unset it') from None
    return wanted and not _MAYBE_RANK.isdisjoint(present)
