"""The number of workers of an executor, and the log line that explains it."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from coresize import processes
from coresize.arguments import check_workers
from coresize.detection import available
from coresize.host import current
from coresize.model import Limits
from coresize.planning import overrides, settings
from coresize.planning import plan as planning
from coresize.planning.settings import Settings
from coresize.planning.values import WorkerPlan
from coresize.units import format_count, measured


if TYPE_CHECKING:
    from concurrent.futures import Executor
    from typing import Any

    from coresize.planning.profiles import TaskProfile


_log = logging.getLogger("coresize")


def plan(
    max_workers: int | None,
    *,
    memory: int | None = None,
    cpus: float | None = None,
    cpu_share: float | None = None,
    usual: int | None = None,
    threads: bool = False,
    decided: Settings | None = None,
) -> WorkerPlan:
    """Plan the workers of an executor; logs the plan at INFO.

    What the user has overridden is logged, too, once in a process.

    Args:
        max_workers: the number that the caller wants, or None for one that fits. A
            plan is returned unchanged.
        memory: bytes that one task needs.
        cpus: cores that one task keeps busy.
        cpu_share: the part of its time that a task computes.
        usual: the number if neither ``max_workers`` nor a setting gives one; None for
            one that fits.
        threads: the workers are threads, to which the limits of open files and of
            processes of one pool do not apply.
        decided: the settings, if the caller has loaded them already.

    Raises:
        ConfigError: ``max_workers`` is not above 0.
    """
    if isinstance(max_workers, WorkerPlan):
        return max_workers
    limits = available.detect()
    if threads:
        limits = _of_threads(limits)
    used = _settings(max_workers, usual, decided)
    made = planning.plan_workers(
        memory=None if memory is None else measured(memory),
        cpus=cpus,
        profile=_profile(cpu_share),
        limits=limits,
        settings=used,
    )
    _tell_overrides(limits, used)
    workers = format_count(int(made), "worker")
    text = f"{workers} x {format_count(made.threads_per_worker, 'thread')}: "
    text += made.reason.partition(": ")[2]
    _log.info("%s", text)
    for warning in made.warnings:
        _log.warning("%s", warning)
    return made


def _of_threads(limits: Limits) -> Limits:
    """The limits without those that bound a number of processes, not of threads."""
    facts = (f for f in limits.facts if f.resource not in ("files", "workers"))
    fields: dict[str, Any] = {**limits.as_dict(), "facts": tuple(facts)}
    return Limits(**fields)


#: The overrides and warnings that this process has logged. Their sentences may have
#: other numbers for each pool.
_told: set[object] = set()


def _tell_overrides(limits: Limits, used: Settings) -> None:
    """Log at INFO what the user has overridden, unless this process has logged it."""
    if not _log.isEnabledFor(logging.INFO):
        return
    present = current().variables(overrides.NAMES)
    warnings = [((note.code, note.partition(" ")[0]), note) for note in limits.warnings]
    for about, note in (*overrides.notes(limits, used, present), *warnings):
        if about not in _told:
            _told.add(about)
            _log.info("%s", note)


def _profile(cpu_share: float | None) -> TaskProfile | None:
    if cpu_share is None:
        return None
    from coresize.planning.profiles import TaskProfile  # brings pydantic

    return TaskProfile(cpu_share=cpu_share)


def _settings(
    max_workers: int | None, usual: int | None, decided: Settings | None
) -> Settings:
    """The user's settings with ``max_workers``, which does not turn ``parallel`` on."""
    check_workers(max_workers)
    found = decided or settings.load_settings(defaults={"workers": usual})
    if max_workers is None:
        return found
    origins = {**found.origins, "workers": "argument"}
    fields = {"workers": int(max_workers), "origins": origins}
    every: dict[str, Any] = {**found.as_dict(), **fields}
    return Settings(**every)


def is_serial(made: WorkerPlan) -> bool:
    """Whether an executor is to have no workers, because ``parallel`` is off."""
    return made.binding == "parallel"


# -----------------------------------------------------------------------------
# Starting all workers before a measurement begins.


#: Seconds that a worker is kept busy, so that another is started; and the most tries.
_NAP, _ROUNDS = 0.05, 20


def warm(pool: Executor, workers: int, function: object = None) -> None:
    """Try to start all workers of a pool, until each of them has answered.

    An error that the pool raises because a worker cannot be started is raised here.

    Raises:
        RuntimeError: the pool goes on with fewer workers, since some cannot be started.

    Args:
        pool: a pool that may have this number of workers.
        workers: the number of workers.
        function: is sent along, so that the workers import what it needs.
    """
    for _ in range(_ROUNDS):
        naps = [pool.submit(_nap, function, _NAP) for _ in range(workers)]
        if len({nap.result() for nap in naps}) == workers:
            return
        if refused := getattr(pool, "_refused", ""):
            raise RuntimeError(refused)


def _nap(_function: object, seconds: float) -> tuple[int, int]:
    """Keep this worker busy; returns the ids of its process and thread."""
    time.sleep(seconds)
    return processes.own(), threading.get_ident()
