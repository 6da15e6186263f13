"""Running a command and measuring what it needs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from coresize import processes
from coresize.measuring.meters import TreeMeter
from coresize.measuring.runs import Pause, Run, cgroup_of, meter_of
from coresize.processes.commands import Command
from coresize.processes.schedstat import RunDelay


if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from coresize.measuring.meters import Meter
    from coresize.measuring.supervisor import Supervisor


def measure_command(
    words: Sequence[str],
    method: str | None = None,
    *,
    variables: Mapping[str, str] | None = None,
    supervisor: Supervisor | None = None,
) -> Run:
    """Run a command to its end, and measure it with all processes that it starts.

    The peak is all memory of the command, because the beginning of its real work is not
    known. The output of the command goes to standard error, so that standard output
    holds nothing but the answer. With a supervisor, the output is dropped, except for
    standard error, which the supervisor reads; the input is empty; and processes that
    the command leaves behind are killed. If the measurement is interrupted, the command
    and every process that it has started are killed.

    Args:
        words: the program and its arguments.
        method: the method, as for `coresize.profile_task`.
        variables: environment variables, besides those of this process.
        supervisor: reads the standard error of the command, and may kill the command.

    Raises:
        ConfigError: the method is not known, or does not work here.
        OSError: the program cannot be started.
    """
    start_meter = meter_of(method)
    cgroup = cgroup_of(method)
    start = time.perf_counter()
    command = Command(
        words,
        environment={**os.environ, **(variables or {})},
        own_session=supervisor is not None,
        # The process joins before it begins, so that its start is charged to it.
        preexec_fn=cgroup.join if cgroup else None,
        **_streams(alone=supervisor is not None),
    )
    try:
        try:
            process = command.start()
            if supervisor:
                supervisor.begin(process)
            wait = supervisor.wait if supervisor else time.sleep
            meter = cgroup or start_meter(process.pid)
            waits = RunDelay(process.pid)
            code, cpu = _watch(process, meter, wait, waits)
        finally:
            command.close(everywhere=supervisor is not None)
            if supervisor:
                supervisor.close()
        wall = time.perf_counter() - start
        if cgroup:
            cgroup.sample()
    except subprocess.SubprocessError as error:  # joining the cgroup failed
        raise OSError(0, str(error)) from None
    finally:
        if cgroup:
            cgroup.close()
    times = {"wall": wall, "delay": _delay(wall, cpu, waits.seconds), "cpu": cpu}
    told: dict[str, Any] = {"peak": meter.peak, "method": meter.method, **times}
    return Run(calls=1, exit_code=code, shared=0, idle=0, **told)


def _delay(wall: float, cpu: float, waited: float) -> float:
    """By how many seconds a command took longer because its threads had no CPU.

    Its threads wanted a CPU for ``cpu + waited`` seconds in all, so about this number
    divided by ``wall`` wanted one at the same time, and each of these was delayed by
    its part of the waiting. The command cannot take less time than its threads ran.

    >>> _delay(2.0, 1.0, 1.0)  # one thread that computes, at a quota of 0.5
    1.0
    >>> _delay(8.0, 4.0, 12.0)  # two threads that compute, at a quota of 0.5
    6.0
    """
    threads = max(1, round((cpu + waited) / wall))
    return max(0.0, min(waited / threads, wall - cpu / threads))


def _streams(*, alone: bool) -> dict[str, Any]:
    """The streams of a command: dropped if it runs alone, otherwise beside ours."""
    if not alone:
        # Even if standard error is closed, nothing goes to standard output.
        return {"stdout": sys.stderr or subprocess.DEVNULL}
    return {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        # Windows cannot wait for a pipe.
        "stderr": subprocess.PIPE if hasattr(os, "wait4") else subprocess.DEVNULL,
        "bufsize": 0,
    }


def _watch(
    process: subprocess.Popen[bytes],
    meter: Meter,
    wait: Callable[[float], None],
    waits: RunDelay,
) -> tuple[int | None, float]:
    """Measure until the command ends; returns its exit code and its CPU seconds."""
    if not hasattr(os, "wait4"):
        return _watch_by_psutil(process, meter, wait)

    # A child inherits the peak of this process over fork and exec (getrusage(2)).
    inherited = processes.resident_peak() // 1024
    pause = Pause()
    while True:
        with pause:
            meter.sample()
            waits.look()
        try:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored: the exit code is lost
            process.returncode = -1
            return None, 0.0
        if pid:
            break
        wait(pause.seconds)
    process.returncode = os.waitstatus_to_exitcode(status)
    if isinstance(meter, TreeMeter) and usage.ru_maxrss > inherited:
        meter.believe(usage.ru_maxrss * 1024)  # covers the time after the last sample
    return process.returncode, usage.ru_utime + usage.ru_stime


def _watch_by_psutil(
    process: subprocess.Popen[bytes], meter: Meter, wait: Callable[[float], None]
) -> tuple[int | None, float]:
    """The same without wait4(2): the CPU time is that of the last sample."""
    import psutil

    observed = psutil.Process(process.pid)
    cpu = 0.0
    pause = Pause()
    while process.poll() is None:
        with pause:
            meter.sample()
            with contextlib.suppress(psutil.Error):
                cpu = sum(observed.cpu_times()[:2])
        wait(pause.seconds)
    return process.returncode, cpu
