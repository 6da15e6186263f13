"""Run a command and measure what it needs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil

from coresize.measuring.meters import TreeMeter
from coresize.measuring.runs import Pause, Run, start_cgroup, tree_meter


if TYPE_CHECKING:
    from collections.abc import Sequence

    from coresize.measuring.meters import Meter


def measure_command(words: Sequence[str], method: str | None = None) -> Run:
    """Run a command to its end, with all that it starts, and measure it.

    All of its memory is its peak: where it begins to work nobody can tell. What it
    prints goes to standard error, so that standard output holds the answer alone.

    Args:
        words: the program and its arguments.
        method: as of `coresize.profile_task`.

    Raises:
        ConfigError: the method is not known, or does not work here.
        OSError: the program cannot be started.
    """
    cgroup = start_cgroup(method)
    start = time.perf_counter()
    try:
        process = subprocess.Popen(  # noqa: S603 - it is what the user asked for
            words,
            stdout=sys.stderr,
            preexec_fn=cgroup.join if cgroup else None,  # noqa: PLW1509 - no threads
        )
        meter = cgroup or tree_meter(process.pid, method)
        try:
            cpu = _watch(process, meter)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - start
        if cgroup:
            cgroup.sample()
    finally:
        if cgroup:
            cgroup.close()
    return Run(
        peak=meter.peak,
        idle=0,
        wall=wall,
        cpu=cpu,
        exit_code=process.returncode,
        method=meter.method,
    )


def _watch(process: subprocess.Popen[bytes], meter: Meter) -> float:
    """Measure until the command ends; returns its seconds of CPU time."""
    if not hasattr(os, "wait4"):
        return _watch_by_psutil(process, meter)
    import resource

    # Of this very process: a child inherits it over fork and exec (getrusage(2)).
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pause = Pause()
    while True:
        with pause:
            meter.sample()
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(pause.seconds)
    process.returncode = os.waitstatus_to_exitcode(status)
    if isinstance(meter, TreeMeter) and usage.ru_maxrss > inherited:
        meter.believe(usage.ru_maxrss * 1024)  # what came after the last sample
    return usage.ru_utime + usage.ru_stime


def _watch_by_psutil(process: subprocess.Popen[bytes], meter: Meter) -> float:
    """The same where there is no wait4(2): CPU time as the last sample saw it."""
    seen = psutil.Process(process.pid)
    cpu = 0.0
    pause = Pause()
    while process.poll() is None:
        with pause:
            meter.sample()
            with contextlib.suppress(psutil.Error):
                cpu = sum(seen.cpu_times()[:2])
        time.sleep(pause.seconds)
    return cpu
