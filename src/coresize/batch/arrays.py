"""Array jobs of batch schedulers: which of its jobs this one is."""

from __future__ import annotations

from coresize.errors import ConfigError
from coresize.model import Value
from coresize.planning.settings import SHARDS


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.host import Host


class _Array(Value):
    """The variables of one scheduler: index, first, last, step, count; "" is none."""

    __slots__ = ("scheduler", "index", "first", "last", "step", "count", "none")  # noqa: RUF023

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


#: Schedulers that count from 0 give "0" for first. What a job that is no array has in
#: place of an index is ``none``. Sources: sbatch(1), qsub(1) of Grid Engine, the PBS
#: Professional and the Torque user's guide, LSF's "Environment variables set for job
#: execution", AWS Batch "Array jobs", Kubernetes "Indexed Job", Cloud Run "Container
#: runtime contract".
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
    _array("LSF", "LSB_JOBINDEX", none="0"),
    _array(
        "AWS Batch",
        "AWS_BATCH_JOB_ARRAY_INDEX",
        first="0",
        count="AWS_BATCH_JOB_ARRAY_SIZE",
    ),
    _array("Kubernetes", "JOB_COMPLETION_INDEX", first="0"),
    _array(
        "Cloud Run", "CLOUD_RUN_TASK_INDEX", first="0", count="CLOUD_RUN_TASK_COUNT"
    ),
)

NAMES = frozenset(
    {SHARDS}.union(
        name
        for one in ARRAYS
        for name in (one.index, one.first, one.last, one.step, one.count)
        if name and name != "0"
    )
)


def place(host: Host) -> str:
    """The place of this job among those of its array, as "i/n"."""
    present = host.variables(NAMES)
    found = [one for one in ARRAYS if present.get(one.index, one.none) != one.none]
    if not found:
        names = ", ".join(one.index for one in ARRAYS)
        allowed = f'"i/n": this is no array job, since none of {names} is set'
        raise ConfigError("shard", "auto", allowed)
    if len(found) > 1:
        names = " and ".join(one.index for one in found)
        allowed = f'"i/n": {names} are set, and which of them counts is not known'
        raise ConfigError("shard", "auto", allowed)
    first, last, step = _range(found[0], present)
    index = _number(found[0].index, present)
    if not first <= index <= last or (index - first) % step:
        allowed = f"one of the array's {first}-{last}:{step}"
        raise ConfigError(found[0].index, present[found[0].index], allowed)
    return f"{(index - first) // step}/{(last - first) // step + 1}"


def _range(array: _Array, present: dict[str, str]) -> tuple[int, int, int]:
    """First, last and step of the indices of an array job.

    Raises:
        ConfigError: they cannot be told.
    """
    if SHARDS in present:
        return _given_range(array, present[SHARDS])
    if array.first == "0" and array.count:
        return 0, _number(array.count, present) - 1, 1
    if not array.last:
        wanted = "how many there are" if array.first == "0" else 'such as "1-4"'
        allowed = f"the indices of the array, {wanted}: {array.scheduler} does not tell"
        raise ConfigError(SHARDS, "", allowed)
    first, last = _number(array.first, present), _number(array.last, present)
    step = _number(array.step, present) if present.get(array.step) else 1
    there = (last - first) // max(step, 1) + 1
    if step < 1 or (array.count and _number(array.count, present) != there):
        jobs = f"{array.scheduler} runs {present.get(array.count)} jobs"
        allowed = f"an array without gaps ({jobs}), or CORESIZE_SHARD=i/n"
        raise ConfigError("shard", f"auto, {first}-{last}:{step}", allowed)
    return first, last, step


def _given_range(array: _Array, text: str) -> tuple[int, int, int]:
    """Of "4", "1-4" or "1-10:3"; a number alone where the scheduler counts from 0."""
    bounds, _, step = text.partition(":")
    first, dash, last = bounds.partition("-")
    parts = (first, last or "0", step or "1")
    if all(map(is_whole, parts)) and (dash or array.first == "0"):
        whole = tuple(map(int, parts))
        low, high = (whole[0], whole[1]) if dash else (0, whole[0] - 1)
        if 0 <= low <= high and whole[2] > 0:
            return low, high, whole[2]
    allowed = 'the indices of the array job, such as "0-3", "1-4" or "1-10:3"'
    raise ConfigError(SHARDS, text, allowed)


def _number(name: str, present: dict[str, str]) -> int:
    text = present.get(name, "")
    if not is_whole(text):
        raise ConfigError(name, text, "a whole number, as the scheduler sets it")
    return int(text)


def is_whole(text: str) -> bool:
    """Whether a text is a whole number, in ASCII."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit()
