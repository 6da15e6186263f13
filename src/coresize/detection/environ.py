"""What environment variables say: overrides, caps, and the batch scheduler's share.

Rule 1: variables are read at the call, never at import. Rule 2: an empty value is
unset. Rule 3: a malformed value of our own raises ConfigError, since the user can mend
it; anybody else's is a gap. Rule 4: one variable is one source.
"""

from __future__ import annotations

from coresize.detection import parse
from coresize.errors import ConfigError, ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.detection.reading import Finding
    from coresize.host import Host
    from coresize.model import Resource, Role

_CORES = 'a number of cores above 0, such as "8" or "8.5", or unset it'
_SIZE = (
    'a size above 0, such as "4GB", "512MiB", "16Gi" or a number of bytes, or unset it'
)


def _own_cores(name: str, text: str) -> float:
    return _own(name, text, parse.cores, _CORES)


def _own_size(name: str, text: str) -> float:
    return _own(name, text, parse.size, _SIZE)


def _own(name: str, text: str, parser: Callable[[str], float], allowed: str) -> float:
    try:
        return parser(text)
    except ParseError:
        raise ConfigError(name, text, allowed) from None


def _foreign_cores(_name: str, text: str) -> float:
    return parse.cores(text)


def _foreign_count(_name: str, text: str) -> float | None:
    """CPython spells "not set" as ``default`` (PYTHON_CPU_COUNT, using/cmdline)."""
    return None if text == "default" else float(parse.positive(text))


#: Resource, role and parser by variable. Of the overrides the first that holds wins.
_VARIABLES: dict[str, tuple[Resource, Role, Callable[[str, str], float | None]]] = {
    "CORESIZE_OVERRIDE_CORES": ("cpu", "override", _own_cores),
    "PARALLELLY_OVERRIDE_CORES": ("cpu", "override", _foreign_cores),
    "PYTHON_CPU_COUNT": ("cpu", "override", _foreign_count),
    "CORESIZE_MAX_CORES": ("cpu", "cap", _own_cores),
    "LOKY_MAX_CPU_COUNT": ("cpu", "cap", _foreign_count),
    "CORESIZE_OVERRIDE_MEMORY": ("memory", "override", _own_size),
    "CORESIZE_MAX_MEMORY": ("memory", "cap", _own_size),
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

_RESERVE = "CORESIZE_RESERVE_CORES"

_NAMES = frozenset({*_VARIABLES, *MARKS, _RESERVE})


def read_variables(host: Host) -> dict[str, str]:
    """The variables that are set, of all that any source here looks at first."""
    return host.variables(_NAMES)


def findings(
    host: Host, present: dict[str, str], resource: Resource
) -> Iterator[Finding]:
    """What the variables that are present say about one resource.

    Raises:
        ConfigError: a variable of coresize's own is malformed.
    """
    if not present:
        return
    overridden = False
    for name, (its_resource, role, parser) in _VARIABLES.items():
        if name not in present or its_resource != resource:
            continue
        if role == "override" and overridden:
            continue
        finding = _finding(name, present[name], resource, role, parser)
        if finding:
            yield finding
            overridden |= role == "override" and isinstance(finding, Fact)
    inside = [scheduler for mark, scheduler in MARKS.items() if mark in present]
    if inside:
        from coresize.detection import schedulers

        yield from schedulers.findings(host, inside, resource)


def _finding(
    name: str,
    text: str,
    resource: Resource,
    role: Role,
    parser: Callable[[str, str], float | None],
) -> Finding | None:
    source = f"env:{name}"
    try:
        amount = parser(name, text)
    except ParseError as error:
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
    if _RESERVE not in present:
        return 0
    allowed = "a whole number of cores, 0 or above, or unset it"
    return int(_own(_RESERVE, present[_RESERVE], parse.whole, allowed))
