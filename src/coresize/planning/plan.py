"""The worker count for a task, from arguments, profile, settings and machine.

What is decided here is only where each number comes from; `policy` decides.
"""

from __future__ import annotations

from coresize import units
from coresize.arguments import check_amount, check_count
from coresize.detection import available
from coresize.errors import ConfigError
from coresize.planning import policy
from coresize.planning.settings import VARIABLES, Settings, load_settings
from coresize.planning.values import OF_HISTORY, Kind, Need, Resources
from coresize.units import to_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from coresize.model import Limits
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.values import WorkerPlan

    _T = TypeVar("_T")

#: The part of the time that a task of kind "io" computes, where nobody measured it:
#: five workers a core, as CPython assumed of threads (ThreadPoolExecutor until 3.7).
IO_SHARE = 0.2

#: A task that computes this part of its time keeps a whole core busy: what is missing
#: is the noise of measuring.
BUSY_SHARE = 0.9


def plan_workers(
    *,
    memory: str | int | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    profile: TaskProfile | str | None = None,
    tasks: int | None = None,
    kind: str = "cpu",
    reserve: int | None = None,
    at_most: int | None = None,
    strict: bool = False,
    limits: Limits | None = None,
    settings: Settings | None = None,
    max_workers: int | None = None,
    ram: str | int | None = None,
    gpu: float | None = None,
    item_size: float | None = None,
) -> WorkerPlan:
    """How many workers are safe for a task, at least 1: an int that knows its reason.

    The smallest of: the cores (after rounding and reserve) by what a task keeps busy;
    what fits into memory, floor((budget - shared) / (idle worker + peak)), where the
    budget is a fraction (0.8) of what is available now below the tightest limit and
    below memory.high; the GPUs of CUDA_VISIBLE_DEVICES; tasks; at_most; and 61 on
    Windows. Workers that mostly wait are cores / CPU share, at most 32 or five a core,
    but for a profile of a sweep, which has measured how many.
    CORESIZE_WORKERS or the setting ``workers`` replaces what cores, memory and GPUs
    allow; CORESIZE_PARALLEL=0 or ``parallel = false`` makes it 1.

    Args:
        memory: bytes that one task needs at its peak, or "2GiB".
        cpus: cores that one task keeps busy; else what profile and kind say, or 1.
        gpus: GPUs that one task needs.
        profile: what a task needs, or the name of a profile in the settings or of one
            that was saved, or "history:NAME" for what earlier runs took; arguments
            beside it go first.
        tasks: how many tasks there are; there is no use in more workers.
        kind: "cpu", "io" for tasks that mostly wait, or a kind of the settings.
        reserve: whole cores to keep free; None takes the setting ``reserve_cores``.
        at_most: a bound of your own.
        strict: raise where not even one task fits, instead of warning.
        limits: what may be used, in cores and bytes; None detects it.
        settings: what the user decided; None loads it (`coresize.load_settings`).
        max_workers: another name of ``at_most``.
        ram: another name of ``memory``.
        gpu: another name of ``gpus``.
        item_size: of the item, for "history:NAME", in the unit that was recorded.

    Raises:
        ConfigError: an argument or a setting is not valid.
        InsufficientMemoryError: strict, and not even one task fits.

    Limits are known as far as `coresize.detect` knows them; the ceiling of 61 is that
    of WaitForMultipleObjects. Sources: the rules are those of docs/explanation, "How
    workers are counted".

    >>> from coresize import detect, plan_workers
    >>> from coresize.testing import container
    >>> limits = detect(container(cpus=16, memory="16GiB", used=0))
    >>> plan = plan_workers(memory="1.8GiB", reserve=1, limits=limits)
    >>> plan.reason
    '7 workers: memory binds (12.8 GiB budget / 1.8 GiB a task); cores would allow 15'
    >>> plan * 1, plan.threads_per_worker, plan.binding
    (7, 2, 'memory')
    """
    if settings is None:
        settings = load_settings()
    elif not isinstance(settings, Settings):
        raise ConfigError("settings", settings, "what load_settings() gives")
    limits = limits or available.detect()
    peak: str | int | None = _either("memory", memory, "ram", ram)
    used = _kind(settings, kind)
    task = _profile(settings, used.profile if profile is None else profile, item_size)
    need = _need(
        kind,
        used,
        task,
        memory=peak,
        cpus=cpus,
        gpus=_either("gpus", gpus, "gpu", gpu),
    )
    at_most = _either("at_most", at_most, "max_workers", max_workers)
    given = {
        "tasks": (tasks, 0),
        "max_workers": (at_most, 1),
        "profile": (task.most_workers if task else None, 1),
    }
    return policy.plan(
        limits,
        need,
        rounding=settings.rounding,
        reserve=settings.reserve_cores
        if reserve is None
        else check_count("reserve", reserve, 0),
        memory_fraction=settings.memory_fraction,
        caps={
            name: check_count(name, number, least)
            for name, (number, least) in given.items()
            if number is not None
        },
        override=_override(settings),
        strict=strict,
        warnings=settings.warnings,
    )


def _override(settings: Settings) -> tuple[str, int, str] | None:
    """The count that the user set, by name and place."""
    if not settings.parallel:
        return "parallel", 1, _said(settings, "parallel")
    if settings.workers is not None:
        return "override", settings.workers, _said(settings, "workers")
    return None


def _said(settings: Settings, name: str) -> str:
    origin, value = settings.origins[name], getattr(settings, name)
    if origin in VARIABLES.values():
        return origin
    return f"{name} = {str(value).lower()} ({origin})"


def _need(
    kind: str,
    used: Kind,
    task: TaskProfile | None,
    *,
    memory: str | int | None,
    cpus: float | None,
    gpus: float | None,
) -> Need:
    """What one worker needs: arguments go before the profile, that before the kind."""
    peak, cores, share = used.resources.memory, used.resources.cpu, 1.0
    if task:
        peak = used.resources.memory if task.peak_memory is None else task.peak_memory
        cores = task.threads
        share = task.cpu_share if task.cpu_share < BUSY_SHARE else 1.0
    if kind == "io":
        share = min(share, IO_SHARE)
    if memory is not None:
        peak = to_bytes("memory", memory)
        if not peak:
            raise ConfigError("memory", memory, units.SIZES)
    if cpus is not None:
        share = 1.0
        cores = check_amount("cpus", cpus, "a number of cores, 0.001 or above")
    if gpus is None:
        gpus = used.resources.gpu
    elif gpus != 0:
        gpus = check_amount("gpus", gpus, "a number of GPUs, 0 or above")
    idle = task.idle_memory if task else 0
    return Need(
        memory=None if peak is None else peak + idle,
        shared=task.shared_memory if task else 0,
        cores=cores * share,
        waits=share < 1.0,
        gpus=gpus,
        doubt=task.doubt if task else "",
    )


def _kind(settings: Settings, name: str) -> Kind:
    if name in settings.kinds:
        return settings.kinds[name]
    if name in ("cpu", "io"):
        return _PLAIN
    known = ", ".join(f'"{kind}"' for kind in ("cpu", "io", *settings.kinds))
    raise ConfigError("kind", name, f"one of {known}, or add it to the settings")


_PLAIN = Kind(resources=Resources(cpu=1.0, memory=None, gpu=0.0), profile=None)


_PROFILES = "a TaskProfile (of a sweep: its .profile), or the name of one"


def _profile(
    settings: Settings, profile: TaskProfile | str | None, item_size: float | None
) -> TaskProfile | None:
    if profile is None:
        return None
    if not isinstance(profile, str):
        from coresize.planning.profiles import TaskProfile

        if isinstance(profile, TaskProfile):
            return profile
        raise ConfigError("profile", profile, _PROFILES)
    if profile.startswith(OF_HISTORY):
        from coresize.planning.history.profile import profile_of

        return profile_of(profile.removeprefix(OF_HISTORY), item_size)
    if profile in settings.profiles:
        return settings.profiles[profile]
    from coresize.planning.profile_files import load_profile

    try:
        return load_profile(profile)
    except ConfigError as error:
        if error.value != profile or not settings.profiles:
            raise
        known = ", ".join(f'"{name}"' for name in settings.profiles)
        allowed = f"one of the settings, {known}, or {error.allowed}"
        raise ConfigError("profile", profile, allowed) from None


def _either(name: str, value: _T, alias: str, other: _T) -> _T:
    if value is not None and other is not None:
        raise ConfigError(alias, other, f"only one of {name} and {alias}")
    return other if value is None else value
