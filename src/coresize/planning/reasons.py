"""A decision about workers, put into words. Pure."""

from __future__ import annotations

from coresize.model import Notice
from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.planning.values import Decision

#: The words that sentences use for bounds.
_NAMES = {"cpu": "cores", "gpu": "GPUs"}

#: Bounds that a sentence names only if they decide: a count set by the user, and limits
#: of the kernel that are usually far away.
_UNSAID = ("override", "parallel", "processes", "files")


def sentence(decision: Decision) -> str:
    """The count, the bound that decided, and the counts that other bounds allow."""
    others = ", ".join(
        f"{_NAMES.get(name, name)} would allow {number}"
        for name, number in decision.bounds.items()
        if name not in (decision.binding, *_UNSAID)
    )
    number = decision.bounds[decision.binding]
    binds = _BINDS.get(decision.binding, _cap)(decision, number)
    if not number and decision.binding in ("cpu", "memory", "gpu"):
        binds = f"not even one task fits, {binds}"
    if not number and decision.kernel:
        binds = f"not even one worker may be possible, {binds}"
    reason = f"{format_count(decision.workers, 'worker')}: {binds}"
    return f"{reason}; {others}" if others else reason


def warnings(decision: Decision) -> Iterator[Notice]:
    """Sentences about problems that the user should look at."""
    yield from _unknown(decision)
    yield from _impossible(decision)
    yield from _set_too_high(decision)


def _unknown(decision: Decision) -> Iterator[Notice]:
    """What is needed or there is not known."""
    need = decision.need
    if need.memory and decision.budget is None and not decision.exceeded:
        yield Notice(
            "memory-unknown",
            "the memory available here is not known, so it bounds nothing: "
            "set CORESIZE_OVERRIDE_MEMORY",
        )
    if need.doubt:
        text = f"what a task needs may be more or less: {need.doubt}"
        yield Notice("need-doubtful", text)
    if need.gpus and "gpu" not in decision.bounds:
        yield Notice(
            "gpus-unknown",
            "the number of GPUs is not known, so they bound nothing: "
            "set CUDA_VISIBLE_DEVICES",
        )


def _impossible(decision: Decision) -> Iterator[Notice]:
    """Not even one task has what it needs."""
    need, bounds = decision.need, decision.bounds
    if bounds.get("memory") == 0:
        text = f"not even one task fits into memory ({_memory(decision)})"
        yield Notice("memory-below-need", text)
    if bounds["cpu"] == 0:
        text = (
            f"a task wants {format_count(need.cores, 'core')}, and the number of cores "
            f"to use is {decision.cores}"
        )
        yield Notice("cores-below-need", text)
    if bounds.get("gpu") == 0:
        text = f"not even one task has the GPUs it needs ({need.gpus:g})"
        yield Notice("gpus-below-need", text)


def _set_too_high(decision: Decision) -> Iterator[Notice]:
    """A number of workers was set for which there is not enough."""
    bounds = decision.bounds
    if decision.kernel and decision.set_by:
        yield Notice(
            "workers-lowered",
            f"{decision.set_by} is lowered to {decision.workers}: "
            f"{_kernel(decision, decision.workers)}",
        )
    if (
        decision.set_by
        and 0 < bounds.get("memory", decision.workers) < decision.workers
    ):
        yield Notice(
            "workers-above-memory",
            f"{decision.set_by} is obeyed, although memory has room for "
            f"{bounds['memory']}",
        )


def _cpu(decision: Decision, _number: int) -> str:
    each = decision.need.cores
    cores = f"{decision.cores} / {each:.3g} a task" if each != 1 else decision.cores
    return f"cores bind ({cores})"


def _waiting(decision: Decision, number: int) -> str:
    cores = format_count(decision.cores, "core")
    return f"waiting binds (at most {number} for {cores})"


def _memory_binds(decision: Decision, _number: int) -> str:
    return f"memory binds ({_memory(decision)})"


def _memory(decision: Decision) -> str:
    need, limit = decision.need, decision.exceeded
    if limit:
        name = limit.source.removeprefix("rlimit:")
        most = f"{name} permits a process {format_bytes(limit.amount or 0)}"
        return f"{most} / {format_bytes(need.memory or 0)} a task"
    shared = f" - {format_bytes(need.shared)} shared" if need.shared else ""
    budget = f"{format_bytes(decision.budget or 0)} budget{shared}"
    return f"{budget} / {format_bytes(need.memory or 0)} a task"


def _gpu(decision: Decision, _number: int) -> str:
    return f"GPUs bind ({decision.need.gpus:g} a task)"


def _tasks(_decision: Decision, number: int) -> str:
    return f"tasks bind (there {'is' if number == 1 else 'are'} {number})"


def _profile(_decision: Decision, number: int) -> str:
    return f"the profile binds (more than {number} gain nothing)"


def _platform(_decision: Decision, number: int) -> str:
    return f"the platform binds (a pool can wait for {number} processes)"


def _kernel(decision: Decision, number: int) -> str:
    limit = decision.kernel
    if limit is None:
        return _cap(decision, number)
    name = limit.source.partition(":")[2]
    left = format_count(int(limit.amount or 0), *_LEFT[limit.resource])
    place = "" if limit.source.startswith("sysctl:") else f" in {limit.where}"
    return f"{name} binds ({left} left, {limit.raw}{place})"


#: What the kernel's limits count, in words.
_LEFT = {
    "processes": ("process or thread", "processes and threads"),
    "files": ("file", "files"),
}


def _set(decision: Decision, _number: int) -> str:
    return f"set by {decision.set_by}"


def _off(decision: Decision, _number: int) -> str:
    return f"not parallel, by {decision.set_by}"


def _cap(decision: Decision, number: int) -> str:
    return f"{decision.binding} binds (at most {number})"


_BINDS: dict[str, Callable[[Decision, int], str]] = {
    "cpu": _cpu,
    "waiting": _waiting,
    "memory": _memory_binds,
    "gpu": _gpu,
    "tasks": _tasks,
    "platform": _platform,
    "processes": _kernel,
    "files": _kernel,
    "profile": _profile,
    "override": _set,
    "parallel": _off,
}
