"""Array jobs of batch schedulers: the index of this job, and how many there are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from coresize.errors import ConfigError
from coresize.model import Value
from coresize.planning.settings import SHARDS
from coresize.units import format_count


if TYPE_CHECKING:
    from typing import TypeAlias

    from coresize.host import Host

    #: The index of a shard, and the number of shards.
    _Place: TypeAlias = tuple[int, int]

_log = logging.getLogger("coresize")


class _Array(Value):
    """Names of a scheduler's variables for index, first, last, step, count; or ""."""

    scheduler: str
    index: str
    first: str
    last: str
    step: str
    count: str
    none: str


def _array(scheduler: str, index: str, *, none: str = "", **names: str) -> _Array:
    fields = {name: names.get(name, "") for name in ("first", "last", "step", "count")}
    return _Array(scheduler=scheduler, index=index, none=none, **fields)


#: First is a number for schedulers that always count from it; LSF does not tell the
#: first index, which is 1 in most arrays. ``none`` is the value of the index variable
#: in a job that is no array. Sources: sbatch(1), qsub(1) of Grid Engine, the PBS
#: Professional and the Torque user's guide, LSF's "Environment variables set for job
#: execution", AWS Batch "Array jobs" and "Multi-node parallel jobs", Kubernetes
#: "Indexed Job", Cloud Run "Container runtime contract", Google Batch "Predefined
#: environment variables", and the CI services' lists of predefined variables.
ARRAYS = (
    _array(
        "Slurm",
        "SLURM_ARRAY_TASK_ID",
        first="SLURM_ARRAY_TASK_MIN",
        last="SLURM_ARRAY_TASK_MAX",
        step="SLURM_ARRAY_TASK_STEP",
        count="SLURM_ARRAY_TASK_COUNT",
    ),
    _array(
        "Grid Engine",
        "SGE_TASK_ID",
        first="SGE_TASK_FIRST",
        last="SGE_TASK_LAST",
        step="SGE_TASK_STEPSIZE",
        none="undefined",
    ),
    _array("PBS", "PBS_ARRAY_INDEX"),
    _array("Torque", "PBS_ARRAYID"),
    _array(
        "LSF",
        "LSB_JOBINDEX",
        first="1",
        last="LSB_JOBINDEX_END",
        step="LSB_JOBINDEX_STEP",
        none="0",
    ),
    _array(
        "AWS Batch",
        "AWS_BATCH_JOB_ARRAY_INDEX",
        first="0",
        count="AWS_BATCH_JOB_ARRAY_SIZE",
    ),
    _array(
        "AWS Batch",
        "AWS_BATCH_JOB_NODE_INDEX",
        first="0",
        count="AWS_BATCH_JOB_NUM_NODES",
    ),
    _array("Google Batch", "BATCH_TASK_INDEX", first="0", count="BATCH_TASK_COUNT"),
    _array("Kubernetes", "JOB_COMPLETION_INDEX", first="0"),
    _array(
        "Cloud Run", "CLOUD_RUN_TASK_INDEX", first="0", count="CLOUD_RUN_TASK_COUNT"
    ),
    _array("GitLab", "CI_NODE_INDEX", first="1", count="CI_NODE_TOTAL"),
    _array("CircleCI", "CIRCLE_NODE_INDEX", first="0", count="CIRCLE_NODE_TOTAL"),
    _array(
        "Buildkite",
        "BUILDKITE_PARALLEL_JOB",
        first="0",
        count="BUILDKITE_PARALLEL_JOB_COUNT",
    ),
    _array(
        "Azure Pipelines",
        "SYSTEM_JOBPOSITIONINPHASE",
        first="1",
        count="SYSTEM_TOTALJOBSINPHASE",
    ),
    _array(
        "Bitbucket",
        "BITBUCKET_PARALLEL_STEP",
        first="0",
        count="BITBUCKET_PARALLEL_STEP_COUNT",
    ),
    _array("Semaphore", "SEMAPHORE_JOB_INDEX", first="1", count="SEMAPHORE_JOB_COUNT"),
)

NAMES = frozenset(
    {SHARDS}.union(
        name
        for one in ARRAYS
        for name in (one.index, one.first, one.last, one.step, one.count)
        if name and not name.isdigit()
    )
)


#: Where the indices of an array job begin, as far as is usual.
_FIRSTS = (0, 1)


def place(host: Host, known: _Place | None = None) -> _Place:
    """The place of this job in its array: its index from 0, and the number of jobs.

    An array job may run again in part: ``sbatch --array=7`` after ``--array=0-9``. Then
    the scheduler describes that part alone. So the range of the scheduler is believed
    only if it may be that of a whole array, and a journal of an earlier start goes
    before it. A range that a user gives, in CORESIZE_SHARDS, goes before both.

    Args:
        host: the machine.
        known: the place of an earlier start that wrote to the same journal.

    Raises:
        ConfigError: this is no array job, or the whole array is not known.
    """
    present = host.variables(NAMES)
    array = _array_of(present)
    index = _number(array.index, present)
    if SHARDS in present:
        indices = _given_range(array, present, index)
    elif known is not None and _is_part(array, present, index, known):
        return known
    else:
        indices = _told_range(array, present, index, known)
    return indices.index(index), len(indices)


def _array_of(present: dict[str, str]) -> _Array:
    """The variables of the one scheduler that runs this job as a part of an array."""
    found = [one for one in ARRAYS if present.get(one.index, one.none) != one.none]
    if not found:
        names = ", ".join(one.index for one in ARRAYS)
        allowed = f'"i/n": this is no array job, since none of {names} is set'
        raise ConfigError("shard", "auto", allowed)
    if len(found) > 1:
        names = " and ".join(one.index for one in found)
        allowed = f'"i/n": {names} are set, and which of them counts is not known'
        raise ConfigError("shard", "auto", allowed)
    return found[0]


def _ends(array: _Array, present: dict[str, str]) -> tuple[int | None, int | None]:
    """The first and the last index, as the scheduler describes them; None if unknown.

    Raises:
        ConfigError: a variable of the scheduler is missing, or is no number.
    """
    if not array.first:
        return None, None
    if is_whole(array.first):  # the scheduler always begins with this number
        first = int(array.first)
        if array.last:
            there = array.last in present
            return first, _number(array.last, present) if there else None
        count = _number(array.count, present) if array.count else None
        return first, None if count is None else first + count - 1
    return _number(array.first, present), _number(array.last, present)


def _is_part(array: _Array, present: dict[str, str], index: int, known: _Place) -> bool:
    """Whether this job may belong to the array whose shard a journal is of."""
    first, last = _ends(array, present)
    firsts = [first] if is_whole(array.first) or first == 0 else _FIRSTS
    place_known, count = known
    return any(
        index - one == place_known and (index if last is None else last) - one < count
        for one in firsts
        if one is not None
    )


def _told_range(
    array: _Array, present: dict[str, str], index: int, known: _Place | None
) -> range:
    """The indices of an array job, if what the scheduler tells is a whole array.

    Raises:
        ConfigError: the variables do not determine the indices, or leave some out.
    """
    first, last = _ends(array, present)
    if first is None or last is None:
        wanted = 'such as "1-4"' if first is None else "how many there are"
        allowed = f"the indices of the array, {wanted}: {array.scheduler} does not tell"
        raise ConfigError(SHARDS, "", allowed)
    step = _number(array.step, present) if present.get(array.step) else 1
    count = _number(array.count, present) if array.count else None
    indices = range(first, last + 1, max(step, 1))
    value = f"auto, {first}-{last}:{step}"
    if step < 1 or count not in {None, len(indices)}:
        jobs = (
            ""
            if count is None
            else f" ({array.scheduler} runs {format_count(count, 'job')})"
        )
        raise ConfigError("shard", value, f"an array without gaps{jobs}{_OR}")
    _check_member(array, present, indices)
    if first not in _FIRSTS or step != 1:
        of = "" if known is None else f"; the journal is of shard {known[0]}/{known[1]}"
        allowed = (
            f"an array of all indices from 0 or 1: {array.scheduler} tells "
            f"{first}-{last}:{step} alone, as of an array that runs again in part{of}"
            f"{_OR}"
        )
        raise ConfigError("shard", value, allowed)
    if len(indices) == 1:
        _log.warning(
            'shard="auto" takes all items, since %s tells of no index but %d: if the '
            "array runs again in part,%s",
            *(array.scheduler, index, _OR.removeprefix(", or")),
        )
    return indices


_OR = (
    ', or give the place in the whole array: shard="7/10" (CORESIZE_SHARD=7/10), or '
    'CORESIZE_SHARDS="0-9", the indices as they were submitted at first'
)


def _check_member(array: _Array, present: dict[str, str], indices: range) -> None:
    """Check that the index of this job is one of the array.

    Raises:
        ConfigError: it is not.
    """
    if int(present[array.index]) not in indices:
        allowed = (
            f"one of the array's {indices.start}-{indices.stop - 1}:{indices.step}"
        )
        raise ConfigError(array.index, present[array.index], allowed)


def _given_range(array: _Array, present: dict[str, str], index: int) -> range:
    """The range "1-4" or "1-10:3"; or "4", if it is known where the array begins."""
    text = present[SHARDS]
    bounds, _, step = text.partition(":")
    low, dash, high = bounds.partition("-")
    parts = (low, high or "0", step or "1")
    if all(map(is_whole, parts)):
        first, last, by = map(int, parts)
        if not dash:
            start = _start(array, present, index, first)
            first, last = (-1, -1) if start is None else (start, start + first - 1)
        if 0 <= first <= last and by > 0:
            indices = range(first, last + 1, by)
            _check_member(array, present, indices)
            return indices
    allowed = 'the indices of the array job, such as "0-3", "1-4" or "1-10:3"'
    raise ConfigError(SHARDS, text, allowed)


def _start(
    array: _Array, present: dict[str, str], index: int, count: int
) -> int | None:
    """The first of so many indices; None if they may begin with 0 or with 1."""
    if is_whole(array.first):
        return int(array.first)
    first, last = _ends(array, present)
    if 0 in {first, index}:
        return 0
    return 1 if count in {last, index} else None


def _number(name: str, present: dict[str, str]) -> int:
    text = name if is_whole(name) else present.get(name, "")
    if not is_whole(text):
        raise ConfigError(name, text, "a whole number, as the scheduler sets it")
    return int(text)


def is_whole(text: str) -> bool:
    """Whether a text is a whole number, in ASCII."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit()
