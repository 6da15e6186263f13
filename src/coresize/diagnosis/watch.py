"""Watching a running program: do cores, quota or memory limit it?"""

from __future__ import annotations

import time

from coresize import processes
from coresize.detection import available, counters
from coresize.errors import ConfigError
from coresize.host import LiveFor
from coresize.model import Value
from coresize.processes import schedstat
from coresize.processes.memory import read_memory, read_proportional
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two samples.
_INTERVAL = 1.0


class Sample(Value):
    """A program and its descendants, over one interval.

    Attributes:
        seconds: seconds since the watch began.
        cores: cores that were busy.
        waited: further cores that the program could have used, but had to wait for.
        limit: cores that the program may use.
        throttled: the part of the quota's periods that were throttled.
        memory: bytes that the program holds apart from files.
        memory_limit: bytes that the program may use; None without a limit.
        processes: the number of processes.
        computing: the number of processes that computed at least half of the time.
    """

    seconds: float
    cores: float
    waited: float
    limit: float
    throttled: float
    memory: int
    memory_limit: int | None
    processes: int
    computing: int

    def __str__(self) -> str:
        limit = "" if self.memory_limit is None else format_bytes(self.memory_limit)
        return (
            f"{self.seconds:4.0f} s {self.cores:5.2f} of "
            f"{format_count(self.limit, 'core')} busy"
            f" {self.waited:5.2f} waited {self.throttled:4.0%} throttled"
            f" {format_bytes(self.memory)}{limit and '/'}{limit}"
        )


def watch(
    pid: int, seconds: float, tell: Callable[[Sample], object] | None = None
) -> list[Sample]:
    """Take samples of a process and its descendants, one a second.

    Args:
        pid: the process.
        seconds: the duration; the watch ends earlier if the process does.
        tell: called with each sample.

    Raises:
        ConfigError: there is no such process, or ``seconds`` is not above 0.
    """
    if not seconds > 0:
        raise ConfigError("watch", seconds, "a number of seconds above 0")
    if not processes.is_running(pid):
        raise ConfigError("pid", pid, "the number of a process that is alive")
    host = LiveFor(pid)
    samples: list[Sample] = []
    before = _look(host, pid)
    start = before.time
    while before.time < start + seconds and processes.is_running(pid):
        time.sleep(min(_INTERVAL, seconds))
        now = _look(host, pid)
        if not now.used:  # the process has just ended
            break
        samples.append(_between(host, start, before, now))
        if tell:
            tell(samples[-1])
        before = now
    return samples


class _Look(Value):
    """The kernel's counts so far, for the tree and for each process and thread."""

    time: float
    total: float
    used: dict[int, float]
    waited: dict[int, float]
    throttling: dict[str, counters.Throttling]


def _look(host: LiveFor, pid: int) -> _Look:
    now, used = time.monotonic(), processes.cpu_of_tree(pid)
    return _Look(
        time=now,
        total=sum(map(sum, used.values())),
        used={process: own for process, (own, _) in used.items()},
        waited=schedstat.waited_of(used),
        throttling=counters.throttling(host),
    )


def _between(host: LiveFor, start: float, before: _Look, now: _Look) -> Sample:
    seconds = now.time - before.time
    shares = {
        process: (used - before.used.get(process, 0.0)) / seconds
        for process, used in now.used.items()
    }
    waited = (
        total - before.waited[thread]
        for thread, total in now.waited.items()
        if thread in before.waited
    )
    # The total falls when a process leaves the tree; the shares are a lower bound.
    cores = max((now.total - before.total) / seconds, sum(shares.values()))
    tightest = counters.tightest(now.throttling, before.throttling)
    limits = available.detect(host)
    return Sample(
        seconds=now.time - start,
        cores=cores,
        waited=sum(waited) / seconds,
        limit=limits.cpu.limit or 1.0,
        throttled=tightest.share if tightest else 0.0,
        memory=sum(map(_held, shares)),
        memory_limit=limits.memory.limit,
        processes=len(shares),
        computing=sum(share >= _HALF for share in shares.values()),
    )


def _held(pid: int) -> int:
    """Bytes of a process; shared memory counts in part, if the kernel tells that."""
    proportional = read_proportional(pid)
    if proportional is None:
        memory = read_memory(pid)
        proportional = memory.private if memory else 0
    return proportional


def conclude(samples: list[Sample], *, ended: bool = False) -> str:
    """Sentences about whether all cores are busy and, if not, the likely reason.

    Args:
        samples: the samples.
        ended: whether the process has ended.
    """
    if not samples:
        return (
            "It has ended before anything was seen." if ended else "Nothing was seen."
        )
    cores = sum(sample.cores for sample in samples) / len(samples)
    limit = samples[-1].limit
    part = min(1.0, cores / limit)  # clocks differ a little
    text = "It has ended. " if ended else ""
    text += f"{cores:.2f} of {limit:g} cores were busy on average ({part:.0%})."
    most = max(samples, key=lambda sample: sample.memory)
    if most.memory_limit and most.memory >= _FULL * most.memory_limit:
        share = f"{most.memory / most.memory_limit:.0%}"
        text += f" It held {share} of the memory: more workers would not fit."
    return f"{text} {_reason(samples, cores, limit)}"


def _reason(samples: list[Sample], cores: float, limit: float) -> str:
    throttled = sum(sample.throttled for sample in samples) / len(samples)
    waited = sum(sample.waited for sample in samples) / len(samples)
    is_enough = waited > 0 and cores + waited <= _ENOUGH * limit
    if throttled >= _THROTTLED and not is_enough:
        share = f"{throttled:.0%} of its periods"
        return (
            f"The quota was used up in {share}: raise it, or run fewer threads, which "
            "lose less time."
        )
    if cores >= _BUSY * limit:
        return f"All cores are busy. {_NO_MORE}."
    if waited >= _IDLE and waited >= _CROWDED * (cores + waited):
        fewer = cores + waited > limit
        return (
            f"It was ready to use {waited:.2f} cores more than it had: others compute "
            "on this machine, or an affinity keeps it on the same CPUs. "
            f"{'Fewer workers would wait less' if fewer else _NO_MORE}."
        )
    if cores < _IDLE:
        return (
            "It waits nearly all the time: for files, the network, a lock or tasks. "
            "Many more workers may help, if memory allows."
        )
    last = samples[-1]
    computing = min(sample.computing for sample in samples)
    if computing and last.computing < limit:
        return (
            f"It computes in {last.computing} of {last.processes} processes: more "
            "workers would use the other cores."
        )
    return (
        "The rest waits: for files, the network, a lock, or for tasks. "
        "More workers may help, if memory allows."
    )


#: Thresholds: the part of throttled periods, the busy part of the limit in cores, the
#: cores of an idle program, the used part of memory, the part of an interval in which a
#: computing process computes, the waiting part of the wanted time.
_THROTTLED, _BUSY, _IDLE, _FULL, _HALF, _CROWDED = 0.1, 0.9, 0.1, 0.9, 0.5, 0.25

#: A program that wants at most this multiple of its limit is not slowed by its quota.
_ENOUGH = 1.25

_NO_MORE = "More workers would gain nothing"
