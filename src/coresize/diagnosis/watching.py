"""A program that runs, watched for a while: is it the cores, the quota, the memory?"""

from __future__ import annotations

import time

from coresize import available, counters, footprint, processes
from coresize.detection.parse import format_bytes
from coresize.errors import ConfigError
from coresize.host import LiveFor
from coresize.model import Value


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
        limit: cores that may be used.
        throttled: the part of the quota's periods that were throttled.
        memory: bytes that it holds apart from files.
        memory_limit: bytes that may be used; None where nothing limits it.
        processes: how many there are.
        computing: those of them that computed half of the time or more.
    """

    __slots__ = (  # noqa: RUF023
        "seconds",
        "cores",
        "limit",
        "throttled",
        "memory",
        "memory_limit",
        "processes",
        "computing",
    )

    seconds: float
    cores: float
    limit: float
    throttled: float
    memory: int
    memory_limit: int | None
    processes: int
    computing: int

    def __str__(self) -> str:
        of = f" of {format_bytes(self.memory_limit)}" if self.memory_limit else ""
        return (
            f"{self.seconds:5.0f} s  {self.cores:6.2f} of {self.limit:g} cores busy"
            f"  {self.throttled:4.0%} throttled  {format_bytes(self.memory)}{of}"
            f"  {self.processes} processes"
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
    start = before = time.monotonic()
    used, counted = processes.cpu_of_tree(pid), counters.throttling(host)
    while before < start + seconds and processes.is_running(pid):
        time.sleep(min(_INTERVAL, seconds))
        now, used_now = time.monotonic(), processes.cpu_of_tree(pid)
        counted_now = counters.throttling(host)
        if not used_now:  # it has ended meanwhile
            break
        shares = {
            one: (used_now[one] - used.get(one, 0.0)) / (now - before)
            for one in used_now
        }
        tightest = counters.tightest(counted_now, counted)
        samples.append(_sample(host, now - start, shares, tightest))
        if tell:
            tell(samples[-1])
        before, used, counted = now, used_now, counted_now
    return samples


def _sample(
    host: LiveFor,
    seconds: float,
    shares: dict[int, float],
    tightest: counters.Throttling | None,
) -> Sample:
    limits = available.detect(host)
    held = [footprint.memory(pid) for pid in shares]
    return Sample(
        seconds=seconds,
        cores=sum(shares.values()),
        limit=limits.cpu.limit or 1.0,
        throttled=tightest.share if tightest else 0.0,
        memory=sum(one.private for one in held if one),
        memory_limit=limits.memory.limit,
        processes=len(shares),
        computing=sum(share >= _HALF for share in shares.values()),
    )


def conclude(samples: list[Sample]) -> str:
    """Whether all cores are busy, and if not, what may be the reason."""
    if not samples:
        return "The process has ended before anything was seen."
    cores = sum(one.cores for one in samples) / len(samples)
    limit = samples[-1].limit
    said = f"{cores:.2f} of {limit:g} cores were busy on average ({cores / limit:.0%})."
    most = max(samples, key=lambda one: one.memory)
    if most.memory_limit and most.memory >= _FULL * most.memory_limit:
        share = f"{most.memory / most.memory_limit:.0%}"
        said += f" It held {share} of the memory: more workers would not fit."
    return f"{said} {_reason(samples, cores, limit)}"


def _reason(samples: list[Sample], cores: float, limit: float) -> str:
    throttled = sum(one.throttled for one in samples) / len(samples)
    if throttled >= _THROTTLED:
        share = f"{throttled:.0%} of its periods"
        return f"The quota was used up in {share}: fewer threads lose less time."
    if cores >= _BUSY * limit:
        return "All cores are busy: more workers would gain nothing."
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
#: process computes.
_THROTTLED, _BUSY, _IDLE, _FULL, _HALF = 0.1, 0.9, 0.1, 0.9, 0.5
