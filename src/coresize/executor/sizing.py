"""How many workers an executor has, and what it says of that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from coresize.detection import available
from coresize.errors import check_count
from coresize.planning import plan as planning
from coresize.planning import settings


if TYPE_CHECKING:
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.settings import Settings
    from coresize.planning.values import WorkerPlan

_log = logging.getLogger("coresize")


def plan(
    max_workers: int | None,
    *,
    memory: int | None = None,
    cpus: float | None = None,
    cpu_share: float | None = None,
    usual: int | None = None,
) -> WorkerPlan:
    """The workers of an executor; logged once, at INFO, with what overrides it.

    Args:
        max_workers: as many as the caller says, or None for what fits.
        memory: bytes that one task needs.
        cpus: cores that one task keeps busy.
        cpu_share: the part of its time that a task computes.
        usual: the number where nobody says one, neither here nor in the settings; None
            for what fits.

    Raises:
        ConfigError: max_workers is not above 0.
    """
    limits = available.detect()
    made = planning.plan_workers(
        memory=memory,
        cpus=cpus,
        profile=_profile(cpu_share),
        limits=limits,
        settings=_settings(max_workers, usual),
    )
    text = f"{made} workers x {made.threads_per_worker} threads: "
    text += made.reason.partition(": ")[2]
    for fact in limits.overrides:
        text += f"; override {fact.where}={fact.raw} active"
    _log.info("%s", text)
    for warning in made.warnings:
        _log.warning("%s", warning)
    return made


def _profile(cpu_share: float | None) -> TaskProfile | None:
    if cpu_share is None:
        return None
    from coresize.planning.profiles import TaskProfile  # brings pydantic

    return TaskProfile(cpu_share=cpu_share)


def check(max_workers: int | None) -> None:
    """See that it is possible.

    Raises:
        ConfigError: max_workers is no whole number above 0.
    """
    if max_workers is not None:
        # The words of the standard library, whose tests look for them.
        words = ": max_workers must be greater than 0"
        check_count("max_workers", max_workers, 1, words)


def _settings(max_workers: int | None, usual: int | None) -> Settings:
    check(max_workers)
    return settings.load_settings(
        arguments={"workers": max_workers}, defaults={"workers": usual}
    )
