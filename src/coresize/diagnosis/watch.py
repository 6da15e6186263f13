"""A program that runs, watched for a while: is it the cores, the quota, the memory?"""

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
    """A program and all that it started, over one moment.

    Attributes:
        seconds: since the watch began.
        cores: that were busy.
        waited: cores that it was ready to use besides, and had to wait for.
        limit: cores that may be used.
        throttled: the part of the quota's periods that were throttled.
        memory: bytes that it holds apart from files.
        memory_limit: bytes that may be used; None where nothing limits it.
        processes: how many there are.
        computing: those of them that computed half of the time or more.
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
        of = f" of {format_bytes(self.memory_limit)}" if self.memory_limit else ""
        many = format_count(self.processes, "process", "processes")
        return (
            f"{self.seconds:5.0f} s  {self.cores:6.2f} of {self.limit:g} "
            f"core{'s' if self.limit > 1 else ''} busy"
            f"  {self.waited:5.2f} waited for  {self.throttled:4.0%} throttled"
            f"  {format_bytes(self.memory)}{of}  {many}"
        )


def watch(
    pid: int, seconds: float, tell: Callable[[Sample], object] | None = None
) -> list[Sample]:
    """Samples of a process and its descendants, one a second.

    Args:
        pid: the process.
        seconds: how long; it ends before if the process does.
        tell: called with each sample.

    Raises:
        ConfigError: there is no such process, or seconds are not above 0.
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
        if not now.used:  # it has ended meanwhile
            break
        samples.append(_between(host, start, before, now))
        if tell:
            tell(samples[-1])
        before = now
    return samples


class _Look(Value):
    """What the kernel has counted so far: of the tree, of each process and thread."""

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
        used={one: own for one, (own, _) in used.items()},
        waited=schedstat.waited_of(used),
        throttling=counters.throttling(host),
    )


def _between(host: LiveFor, start: float, before: _Look, now: _Look) -> Sample:
    seconds = now.time - before.time
    shares = {
        one: (used - before.used.get(one, 0.0)) / seconds
        for one, used in now.used.items()
    }
    waited = (
        one - before.waited[thread]
        for thread, one in now.waited.items()
        if thread in before.waited
    )
    # What leaves the tree takes its time along, and what is there has computed as much.
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
    """Bytes of a process; what it shares, in parts, where the kernel tells them."""
    part = read_proportional(pid)
    if part is None:
        known = read_memory(pid)
        part = known.private if known else 0
    return part


def conclude(samples: list[Sample], *, ended: bool = False) -> str:
    """Whether all cores are busy, and if not, what may be the reason.

    Args:
        samples: what was seen.
        ended: the process has ended meanwhile.
    """
    if not samples:
        return (
            "It has ended before anything was seen." if ended else "Nothing was seen."
        )
    cores = sum(one.cores for one in samples) / len(samples)
    limit = samples[-1].limit
    part = min(1.0, cores / limit)  # clocks differ a little
    said = "It has ended. " if ended else ""
    said += f"{cores:.2f} of {limit:g} cores were busy on average ({part:.0%})."
    most = max(samples, key=lambda one: one.memory)
    if most.memory_limit and most.memory >= _FULL * most.memory_limit:
        share = f"{most.memory / most.memory_limit:.0%}"
        said += f" It held {share} of the memory: more workers would not fit."
    return f"{said} {_reason(samples, cores, limit)}"


def _reason(samples: list[Sample], cores: float, limit: float) -> str:
    throttled = sum(one.throttled for one in samples) / len(samples)
    waited = sum(one.waited for one in samples) / len(samples)
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
    computing = min(one.computing for one in samples)
    if computing and last.computing < limit:
        return (
            f"It computes in {last.computing} of {last.processes} processes: more "
            "workers would use the other cores."
        )
    return (
        "The rest waits: for files, the network, a lock, or for tasks. "
        "More workers may help, if memory allows."
    )


#: Parts: of periods, of the limit in cores, of one core, of memory; of a moment that a
#: process computes; of the time that a core was wanted.
_THROTTLED, _BUSY, _IDLE, _FULL, _HALF, _CROWDED = 0.1, 0.9, 0.1, 0.9, 0.5, 0.25

#: What keeps no more cores busy than that is not slowed by its quota.
_ENOUGH = 1.25

_NO_MORE = "More workers would gain nothing"
