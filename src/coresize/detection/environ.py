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
from coresize.detection.reading import keep_last
from coresize.errors import ConfigError, ParseError
from coresize.host import CPU_COUNT_OPTION
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
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
    "CORESIZE_OVERRIDE_MEMORY": ("memory", "override", units.size, _SIZE),
    "CORESIZE_MAX_MEMORY": ("memory", "cap", units.size, _SIZE),
    "CUDA_VISIBLE_DEVICES": ("gpu", "limit", parse.devices, None),
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
}

#: The variables by which pytest-xdist tells a process that it is one of several workers
#: on this host (xdist/remote.py); the second holds their number. The processes that its
#: tests start inherit them, and share with the other workers as well.
_TEST_WORKER, _TEST_WORKERS = "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"

_SHARE_RANKS = "CORESIZE_SHARE_RANKS"
_SWITCHES = {"1": True, "on": True, "true": True, "0": False, "off": False}
_SWITCHES |= {"yes": True, "no": False, "false": False}

#: All variables that are read first.
NAMES = frozenset(
    {*_VARIABLES, *MARKS, _RESERVE, _TEST_WORKER, _TEST_WORKERS, _SHARE_RANKS}
)


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
    inside = [scheduler for mark, scheduler in MARKS.items() if mark in present]
    if inside:
        from coresize.detection import schedulers

        yield from schedulers.findings(host, inside, resource)


@keep_last
def _finding(text: str, name: str) -> FactOrGap | None:
    """The fact or gap from one variable; None if its value means "not set"."""
    resource, role, parser, allowed = _VARIABLES[name]
    source = f"env:{name}"
    try:
        amount = parser(text)
    except ParseError as error:
        if allowed:
            raise ConfigError(name, text, allowed) from None
        return Gap(resource=resource, source=source, where=name, reason=str(error))
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


# --- The share of one worker of pytest-xdist ----------------------------------------

#: For each role of a share, the roles whose least amount is divided. The limit of the
#: memory is not: the kernel kills a process when all of them have used it up.
_SHARED: dict[Resource, dict[Role, frozenset[Role]]] = {
    "cpu": {"limit": frozenset({"capacity", "limit", "cap"})},
    "memory": {
        "available": frozenset({"capacity", "limit", "cap", "available"}),
        "soft_available": frozenset({"soft_available"}),
    },
}


def with_test_share(
    present: dict[str, str], resource: Resource, findings: Iterable[FactOrGap]
) -> Iterable[FactOrGap]:
    """The facts and gaps about one resource, and the share of one worker of xdist.

    What all workers share is divided: the machine, the cgroups and the job. Variables
    are not, since a test may have set them; and an override replaces the share.

    Raises:
        ConfigError: CORESIZE_SHARE_RANKS is neither on nor off.
    """
    if not (_TEST_WORKERS in present and _TEST_WORKER in present):
        return findings
    return _with_test_share(present, resource, tuple(findings))


def _with_test_share(
    present: dict[str, str], resource: Resource, findings: Sequence[FactOrGap]
) -> Iterator[FactOrGap]:
    yield from findings
    switch = present.get(_SHARE_RANKS, "1").strip().lower()
    if switch not in _SWITCHES:
        raise ConfigError(_SHARE_RANKS, switch, '"1" or "0", or unset it')
    try:
        workers = units.whole(present[_TEST_WORKERS])
    except ParseError as error:
        reason, name = str(error), _TEST_WORKERS
        yield Gap(resource=resource, source=f"env:{name}", where=name, reason=reason)
        return
    if not _SWITCHES[switch] or workers < 2:
        return
    facts = [one for one in findings if isinstance(one, Fact) and one.amount]
    shared = [fact for fact in facts if not fact.source.startswith("env:")]
    for role, roles in _SHARED[resource].items():
        amounts = [fact.amount or 0 for fact in shared if fact.role in roles]
        if amounts:
            share = min(amounts) / workers
            yield Fact(
                resource=resource,
                amount=share if resource == "cpu" else int(share),
                role=role,
                source=f"env:{_TEST_WORKERS}",
                where=_TEST_WORKERS,
                raw=f"{min(amounts):g} / {workers}",
            )
