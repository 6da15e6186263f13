"""What environment variables say: overrides, caps, and the batch scheduler's share.

Rule 1: variables are read at the call, never at import. Rule 2: an empty value is
unset, but where it hides all (`coresize.host.EMPTY_IS_NONE`). Rule 3: a malformed value
of our own raises ConfigError, since the user can mend it; anybody else's is a gap.
Rule 4: one variable is one source.
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
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from coresize.detection.reading import Finding
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

#: Resource, role, parser, and of our own what is allowed, by variable. Of the
#: overrides the first that holds wins.
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

#: The variables that say "inside a job of this scheduler". What a scheduler sets
#: besides is believed with its mark alone: NSLOTS or NCPUS may be anybody's.
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

#: All the variables that are looked at first.
NAMES = frozenset({*_VARIABLES, *MARKS, _RESERVE})


def read_variables(host: Host) -> dict[str, str]:
    """The variables that are set, of all that any source here looks at first."""
    return host.variables(NAMES)


def findings(
    host: Host, present: dict[str, str], resource: Resource
) -> Iterator[Finding]:
    """What the variables that are present say about one resource.

    Raises:
        ConfigError: a variable of coresize's own is malformed, of whatever resource.
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
def _finding(text: str, name: str) -> Finding | None:
    """What one variable says; None where it says that it is not set."""
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
        ConfigError: it is not a whole number, 0 or above.
    """
    text = present.get(_RESERVE)
    if text is None:
        return 0
    try:
        return units.whole(text)
    except ParseError:
        raise ConfigError(_RESERVE, text, _RESERVES) from None
