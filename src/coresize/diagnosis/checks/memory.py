"""Memory: limits, free memory, past kills, swap, pressure."""

from __future__ import annotations

from coresize.detection import counters
from coresize.detection.system import MEMINFO
from coresize.diagnosis.findings import Finding
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.context import Context

#: The part of a limit that should be left.
_LITTLE = 0.1

#: Thresholds in percent of a minute in which some task waited for a resource. Waiting
#: for cores is common, waiting for memory is bad (kernel
#: Documentation/accounting/psi.rst).
_STALLED = {"cpu": 50.0, "memory": 10.0, "io": 25.0}


def limits(context: Context) -> Iterator[Finding]:
    """Little memory left below the tightest limit, or below memory.high."""
    memory = context.limits.memory
    left = memory.available_together
    if (
        memory.limit
        and memory.binding
        and left is not None
        and left < _LITTLE * memory.limit
    ):
        yield Finding(
            severity="warning",
            code="memory-nearly-used",
            check="memory limits",
            title=f"only {format_bytes(left)} of memory is left",
            seen=f"limit {format_bytes(memory.limit)}, working set "
            f"{format_bytes(memory.limit - left)}",
            where=f"{memory.binding.where} ({memory.binding.raw})",
            why="at the limit the kernel kills a process",
            advice="run fewer workers: ProcessPoolExecutor(memory=...) starts "
            "tasks only while they fit",
        )
    high, left_below = memory.soft_limit, memory.soft_available
    if high and left_below is not None and left_below < _LITTLE * high:
        yield Finding(
            severity="warning",
            code="memory-high-near",
            check="memory limits",
            title=f"{format_bytes(left_below)} are left below memory.high",
            seen=f"memory.high {format_bytes(high)}",
            where=next(
                fact.where
                for fact in context.limits.facts
                if fact.role == "soft" and fact.amount == high
            ),
            why="above memory.high, the kernel kills nothing but throttles all "
            "processes severely (kernel Documentation/admin-guide/cgroup-v2.rst)",
            advice="run fewer workers, or raise memory.high",
        )


def group(context: Context) -> Iterator[Finding]:
    """memory.oom.group: one kill ends all processes of the container."""
    for where in counters.oom_groups(context.host):
        yield Finding(
            severity="warning",
            code="oom-group",
            check="memory.oom.group",
            title="one kill for memory takes the whole container",
            seen="memory.oom.group = 1",
            where=where,
            why="Kubernetes sets it since 1.28; no pool can lose only one task here, "
            "because the parent is killed with its workers",
            advice="keep a journal (run_batch(journal=...)) and pass memory= to the "
            "pool, which then keeps more memory free; or set singleProcessOOMKill in "
            "the kubelet",
        )


def kills(context: Context) -> Iterator[Finding]:
    """Kills for memory since the cgroup was made."""
    for where, values in counters.memory_events(context.host).items():
        count = values.get("oom_kill", 0)
        if count:
            killed = format_count(count, "process", "processes")
            yield Finding(
                severity="warning",
                code="killed-for-memory",
                check="kills",
                title=f"the kernel has killed {killed} here for memory",
                seen=f"oom_kill {count}",
                where=where,
                why="their work was lost, or has to be repeated",
                advice="measure the memory of a task (coresize profile -- CMD) and "
                "plan workers by it (coresize workers --memory SIZE)",
            )
            return  # the ancestors count them as well


def swap(context: Context) -> Iterator[Finding]:
    """Swap in use by this cgroup or, if that is unknown, by the machine."""
    used, where = counters.swap_used(context.host)
    memory = context.limits.memory
    of_machine = where == MEMINFO
    limit = memory.total if of_machine else memory.limit or memory.total
    if used and limit and used > 0.01 * limit:
        yield Finding(
            severity="warning" if used > _LITTLE * limit else "note",
            code="swap-used",
            check="swap",
            title=f"{format_bytes(used)} are swapped out"
            f"{' on the whole machine' if of_machine else ''}",
            seen=f"swap in use {format_bytes(used)}",
            where=where,
            why="each use of a swapped page is a read from disk, a thousand times "
            "slower than memory",
            advice="run fewer workers, so that everything fits into memory",
        )


#: The levels of memory pressure of macOS that are worth a finding (XNU,
#: bsd/sys/event.h, NOTE_MEMORYSTATUS_PRESSURE_WARN and _CRITICAL), as four bytes.
_LEVELS = {"02000000": "a warning", "04000000": "critical"}


def pressure(context: Context) -> Iterator[Finding]:
    """High pressure: PSI of Linux, if the kernel measures it; the level of macOS."""
    level = _LEVELS.get(context.host.calls().get("vm_pressure_level", ""))
    if level:
        yield Finding(
            severity="warning",
            code="pressure",
            check="pressure",
            title=f"macOS calls its memory pressure {level}",
            seen=f"kern.memorystatus_vm_pressure_level: {level}",
            where="sysctl kern.memorystatus_vm_pressure_level",
            why="the system compresses and swaps memory, which makes every use of it "
            "slower",
            advice="run fewer workers, or close other programs",
        )
    for resource, where, percent in counters.pressures(context.host):
        if percent >= _STALLED[resource]:
            yield Finding(
                severity="warning",
                code="pressure",
                check="pressure",
                title=f"tasks waited for {resource} {percent:.0f}% of the last minute",
                seen=f"some avg60={percent:.2f}",
                where=where,
                why="in this part of the time, at least one task was ready, but waited",
                advice="start fewer workers, or look for other programs on this machine"
                if resource != "io"
                else "write less data, or use a faster disk",
            )
