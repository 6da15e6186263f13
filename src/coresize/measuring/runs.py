"""The result of one run, and what measuring needs for every kind of run."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

from coresize.errors import ConfigError
from coresize.host import Live
from coresize.measuring.meters import CgroupMeter, PsutilMeter, TreeMeter, make_meter
from coresize.model import Value
from coresize.planning import exports


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coresize.measuring.meters import Meter
    from coresize.planning.profiles import TaskProfile

METHODS = ("cgroup", "proc", "psutil")

#: The pause between two samples: at first, later, and as a multiple of the time that a
#: sample takes.
_SHORTEST, _LONGEST, _COSTS = 0.002, 0.02, 4

#: A run of fewer seconds is too short to distinguish computing from waiting.
TOO_SHORT = 0.05


class Run(Value):
    """The measurements of one run.

    Attributes:
        peak: bytes on top of the idle worker.
        shared: bytes of the arguments in memory that processes share.
        idle: bytes of the idle worker.
        calls: the number of calls that the seconds are the sum of; 1 for a command.
        wall: seconds from start to end.
        delay: the seconds among them in which the task was ready to run but had no CPU,
            because others used it or a quota was used up (Linux; elsewhere 0).
        cpu: seconds of CPU time.
        exit_code: the exit code of a command; minus the signal number if a signal ended
            it; None if unknown (SIGCHLD is ignored).
        method: the method of measuring memory.
    """

    peak: int
    shared: int
    idle: int
    calls: int
    wall: float
    delay: float
    cpu: float
    exit_code: int | None
    method: str


def summarize(runs: list[Run]) -> TaskProfile:
    """Combine several runs into a profile: the largest peak, the longest times.

    The times are those of one call, without the seconds that it was delayed.
    """
    from coresize.planning.profiles import (
        TaskProfile,  # imports pydantic, which not every measurement needs
    )

    most = max(runs, key=lambda run: run.peak)
    longest = max(runs, key=lambda run: run.wall - run.delay)
    unknown = longest.wall < TOO_SHORT
    return TaskProfile(
        peak_memory=most.peak,
        shared_memory=most.shared,
        idle_memory=max(run.idle for run in runs),
        cpu=round(longest.cpu / longest.calls, 6),
        wall=round((longest.wall - longest.delay) / longest.calls, 6),
        threads=1 if unknown else None,
        cpu_share=1.0 if unknown else None,
        thread_limit=_thread_limit(limit_threads(os.environ)),
        method=most.method,
        peaks=[run.peak for run in runs],
    )


def limit_threads(present: Mapping[str, str]) -> dict[str, str]:
    """The environment of a measured task: the one given, with one thread for libraries.

    BLAS, OpenMP and others would start a thread for each core that they count. In a
    pool, each worker has its share of the cores, and a task that was measured with all
    cores would seem to need them. Variables that the user has set stay.
    """
    limits = exports.wanted(
        dict.fromkeys(exports.THREADS, "1"), exports.of_user(present)
    )
    return exports.marked(present, limits)


def _thread_limit(environment: Mapping[str, str]) -> int | None:
    """The threads of OpenMP in an environment; None if it is no plain number."""
    text = environment.get("OMP_NUM_THREADS", "")
    return int(text) if text.isascii() and text.isdigit() and int(text) else None


class Pause:
    """The pause between two samples, which grows with the length of the run."""

    def __init__(self) -> None:
        self.seconds = _SHORTEST
        self._start = self._before = time.perf_counter()

    def __enter__(self) -> None:
        self._before = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter()
        patient = min(_LONGEST, (now - self._start) / 100)
        self.seconds = max(_SHORTEST, patient, (now - self._before) * _COSTS)


def meter_of(method: str | None) -> Callable[[int], Meter]:
    """What makes a meter for a process and all that it starts, without a cgroup.

    Raises:
        ConfigError: the method is not known, or does not work here.
    """
    if method is not None and method not in METHODS:
        raise ConfigError("method", method, f"one of {', '.join(METHODS)}")
    if method != "psutil" and TreeMeter.works():
        return partial(TreeMeter, cpus=Live().cpu_count() or 1)
    if method in ("cgroup", "proc"):
        allowed = "psutil: the others need Linux 4.5, and children in /proc"
        raise ConfigError("method", method, allowed)
    return PsutilMeter


def join_cgroup(pid: int, method: str | None) -> CgroupMeter | None:
    """Move a process into a cgroup of its own, if the method allows that and it works.

    Raises:
        ConfigError: the method is "cgroup", and no cgroup can be made.
    """
    cgroup = cgroup_of(method)
    if cgroup:
        try:
            cgroup.join(pid)
        except OSError:
            cgroup.close()
            if method is None:
                return None
            raise _no_cgroup(method) from None
    return cgroup


def cgroup_of(method: str | None) -> CgroupMeter | None:
    """Make an empty cgroup, if the method allows that and it works.

    Raises:
        ConfigError: the method is "cgroup", and no cgroup can be made.
    """
    if method not in (None, "cgroup"):
        return None
    cgroup = make_meter()
    if cgroup is None and method:
        raise _no_cgroup(method)
    return cgroup


def _no_cgroup(method: str) -> ConfigError:
    allowed = "proc: here no cgroup may be made below the own one"
    return ConfigError("method", method, allowed)
