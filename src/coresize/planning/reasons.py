"""A decision about workers, put into words. Pure."""

from __future__ import annotations

from coresize.units import format_bytes, format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.planning.values import Decision

#: The words that sentences use for bounds.
_NAMES = {"cpu": "cores", "gpu": "GPUs"}


def sentence(decision: Decision) -> str:
    """The count, the bound that decided, and the counts that other bounds allow."""
    others = ", ".join(
        f"{_NAMES.get(name, name)} would allow {number}"
        for name, number in decision.bounds.items()
        if name not in (decision.binding, "override", "parallel")
    )
    number = decision.bounds[decision.binding]
    binds = _BINDS.get(decision.binding, _cap)(decision, number)
    if not number and decision.binding in ("cpu", "memory", "gpu"):
        binds = f"not even one task fits, {binds}"
    reason = f"{format_count(decision.workers, 'worker')}: {binds}"
    return f"{reason}; {others}" if others else reason


def warnings(decision: Decision) -> Iterator[str]:
    """Sentences about problems that the user should look at."""
    need, bounds = decision.need, decision.bounds
    if need.memory and decision.budget is None:
        yield (
            "the memory available here is not known, so it bounds nothing: "
            "set CORESIZE_OVERRIDE_MEMORY"
        )
    if need.doubt:
        yield f"what a task needs may be more or less: {need.doubt}"
    if need.gpus and "gpu" not in bounds:
        yield (
            "the number of GPUs is not known, so they bound nothing: "
            "set CUDA_VISIBLE_DEVICES"
        )
    if bounds.get("memory") == 0:
        yield f"not even one task fits into memory ({_memory(decision)})"
    if bounds["cpu"] == 0:
        yield (
            f"a task wants {format_count(need.cores, 'core')}, and the number of cores "
            f"to use is {decision.cores}"
        )
    if bounds.get("gpu") == 0:
        yield f"not even one task has the GPUs it needs ({need.gpus:g})"
    if (
        decision.set_by
        and 0 < bounds.get("memory", decision.workers) < decision.workers
    ):
        yield (
            f"{decision.set_by} is obeyed, although memory has room for "
            f"{bounds['memory']}"
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
    need = decision.need
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
    "profile": _profile,
    "override": _set,
    "parallel": _off,
}
