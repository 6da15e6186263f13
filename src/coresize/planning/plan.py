"""The worker count for a task, from arguments, profile, settings and machine.

This module only chooses the source of each number; `policy` decides the count.
"""

from __future__ import annotations

from coresize import units
from coresize.arguments import check_amount, check_count
from coresize.detection import available
from coresize.errors import ConfigError
from coresize.model import Notice
from coresize.planning import policy
from coresize.planning.settings import VARIABLES, Settings, load_settings
from coresize.planning.values import OF_HISTORY, Kind, Need, Resources
from coresize.units import to_memory


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from coresize.model import Limits
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.values import WorkerPlan

    _T = TypeVar("_T")

#: The CPU share of a task of kind "io" that was not measured: five workers a core, as
#: CPython assumed for threads (ThreadPoolExecutor until 3.7).
IO_SHARE = 0.2

#: A task with at least this CPU share keeps a whole core busy: the difference to 1 is
#: measurement noise.
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
    max_workers: int | None = None,
    strict: bool = False,
    limits: Limits | None = None,
    settings: Settings | None = None,
    item_size: float | None = None,
    at_most: int | None = None,
    ram: str | int | None = None,
    gpu: float | None = None,
) -> WorkerPlan:
    """The number of workers that is safe for a task: an int that knows its reason.

    The count is at least 1. It is the smallest of: the cores (after rounding and
    reserve) divided by the cores that a task keeps busy; the workers that fit into
    memory, floor((budget - shared) / (idle worker + peak)), where the budget is a
    fraction (0.8) of the memory available now below the tightest limit and below
    memory.high; the GPUs of CUDA_VISIBLE_DEVICES; tasks; max_workers; 61 on Windows;
    and the processes and files that the kernel still permits (pids.max, RLIMIT_NPROC,
    RLIMIT_NOFILE, kernel.threads-max, kernel.pid_max). A task that is larger than
    RLIMIT_AS or RLIMIT_DATA does not fit.
    For tasks that mostly wait, the bound is cores / CPU share, but at most 32 or five a
    core, unless the profile comes from a sweep, which has measured the best count.
    CORESIZE_WORKERS or the setting ``workers`` replaces the bounds of cores, memory and
    GPUs; CORESIZE_PARALLEL=0 or ``parallel = false`` makes the count 1.

    Args:
        memory: bytes that one task needs at its peak, or a text such as "2GiB".
        cpus: cores that one task keeps busy; None takes them from the profile or the
            kind, or 1.
        gpus: GPUs that one task needs.
        profile: a profile of the task; or the name of a profile in the settings or of a
            saved one; or "history:NAME" for the needs recorded by earlier runs. The
            other arguments override the profile.
        tasks: the number of tasks; more workers than that would be idle.
        kind: "cpu", "io" for tasks that mostly wait, or a kind from the settings.
        reserve: whole cores to keep free; None takes the setting ``reserve_cores``.
        max_workers: a bound of your own.
        strict: raise if not even one task fits, instead of warning.
        limits: the limits in cores and bytes; None detects them.
        settings: the settings of the user; None loads them (`coresize.load_settings`).
        item_size: the size of the item, for "history:NAME", in the unit that was
            recorded.
        at_most: the old name of ``max_workers``; accepted, with a warning in the plan.
        ram: the old name of ``memory``.
        gpu: the old name of ``gpus``.

    Raises:
        ConfigError: an argument or a setting is not valid.
        InsufficientMemoryError: ``strict`` is true and not even one task fits.

    The limits are those that `coresize.detect` finds; the ceiling of 61 is that of
    WaitForMultipleObjects. The rules are explained in docs/explanation, "How workers
    are counted".

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
    notes: list[Notice] = []
    memory = _either("memory", memory, "ram", ram, notes)
    gpus = _either("gpus", gpus, "gpu", gpu, notes)
    max_workers = _either("max_workers", max_workers, "at_most", at_most, notes)
    defaults = _kind(settings, kind)
    if profile is None:
        profile = defaults.profile
    task = find_profile(settings, profile, item_size)
    need = _need(kind, defaults, task, memory=memory, cpus=cpus, gpus=gpus)
    caps = {
        "tasks": (tasks, 0),
        "max_workers": (max_workers, 1),
        "profile": (task.max_workers if task else None, 1),
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
            for name, (number, least) in caps.items()
            if number is not None
        },
        override=_override(settings),
        strict=strict,
        warnings=(*settings.warnings, *notes),
    )


def _override(settings: Settings) -> tuple[str, int, str] | None:
    """The count that the user set: the name of the bound, the count, and its origin."""
    if not settings.parallel:
        return "parallel", 1, _origin(settings, "parallel")
    if settings.workers is not None:
        return "override", settings.workers, _origin(settings, "workers")
    return None


def _origin(settings: Settings, name: str) -> str:
    """The place that sets a setting, in words."""
    origin, value = settings.origins[name], getattr(settings, name)
    if origin in VARIABLES.values():
        return origin
    return f"{name} = {str(value).lower()} ({origin})"


def _need(
    kind: str,
    defaults: Kind,
    task: TaskProfile | None,
    *,
    memory: str | int | None,
    cpus: float | None,
    gpus: float | None,
) -> Need:
    """The needs of one worker: arguments override the profile, and that the kind."""
    peak, cores, share = defaults.resources.memory, defaults.resources.cpus, 1.0
    if task:
        peak = peak if task.peak_memory is None else task.peak_memory
        cores = task.threads
        share = task.cpu_share if task.cpu_share < BUSY_SHARE else 1.0
    if kind == "io":
        share = min(share, IO_SHARE)
    if memory is not None:
        peak = to_memory("memory", memory)
        if not peak:
            raise ConfigError("memory", memory, units.SIZES)
    if cpus is not None:
        share = 1.0
        cores = check_amount("cpus", cpus, "a number of cores, 0.001 or above")
    if gpus is None:
        gpus = defaults.resources.gpus
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


_PLAIN = Kind(resources=Resources(cpus=1.0, memory=None, gpus=0.0), profile=None)


_PROFILES = "a TaskProfile (of a sweep: its .profile), or the name of one"


def find_profile(
    settings: Settings,
    profile: TaskProfile | str | None,
    item_size: float | None = None,
) -> TaskProfile | None:
    """The profile of a name: from the settings, saved, in a file, or "history:NAME".

    Raises:
        ConfigError: there is none of that name, or it is not valid.
    """
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


def _either(name: str, value: _T, old: str, other: _T, notes: list[Notice]) -> _T:
    """The value under its name or its old name; the old name adds a note."""
    if other is None:
        return value
    if value is not None:
        raise ConfigError(old, other, f"only one of {name} and {old}")
    text = f"plan_workers: {old} is read as {name}, its name now"
    notes.append(Notice("other-name", text))
    return other
