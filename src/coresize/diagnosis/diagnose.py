"""Running all checks of a diagnosis."""

from __future__ import annotations

import time
from pathlib import Path

from coresize.diagnosis.checks import (
    cores,
    folders,
    gpus,
    imports,
    memory,
    scaling,
    start_methods,
    threads,
    throttling,
    variables,
)
from coresize.diagnosis.context import collect
from coresize.diagnosis.findings import Diagnosis, Skipped, order
from coresize.errors import ConfigError
from coresize.processes.main_module import refuse_while_importing


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coresize.diagnosis.context import Context
    from coresize.diagnosis.findings import Finding

#: The checks that take a moment, and the checks that take seconds.
_QUICK: dict[str, Callable[[Context], Iterator[Finding]]] = {
    "counted CPUs": cores.counts,
    "overrides": cores.overrides,
    "caps": cores.caps,
    "variables without effect": variables.foreign,
    "variables of other programs": variables.bounds,
    "throttling": throttling.throttling,
    "memory limits": memory.limits,
    "memory.oom.group": memory.group,
    "kills": memory.kills,
    "swap": memory.swap,
    "pressure": memory.pressure,
    "/dev/shm": folders.shared_memory,
    "memfd_create": folders.segments_refused,
    "temporary folder": folders.temporary,
    "threads": threads.blas,
    "GPUs": gpus.gpus,
}
_MAIN, _SCALING = "main module", "scaling"
_MEASURED: dict[str, Callable[[Context], Iterator[Finding]]] = {
    "start methods": start_methods.methods,
    "temporary files": folders.speed,
    _MAIN: imports.main_module,
    "imports": imports.imports,
    _SCALING: scaling.scaling,
}

#: Seconds that counters are watched.
_WATCHED = 0.5


def diagnose(
    *, main: str | Sequence[str] | None = None, measure: bool = True
) -> Diagnosis:
    """Find out why programs may be slow here; the most severe findings come first.

    The checks compare limits with the CPUs that other programs count, and look at
    throttling, memory, past kills, swap, pressure, /dev/shm, temporary folders, threads
    and GPUs. Some checks measure: the cost of starting workers, and the kinds of work
    that more workers do not speed up.

    Args:
        main: the file of a program, or the name of a module as for ``python -m``, whose
            import by workers is timed. It is imported as spawn does, so without the
            code below its guard ``__name__ == "__main__"``. If it reads arguments
            outside of the guard, add them: ``["analyse.py", "data.csv"]``. None for
            this program.
        measure: whether to make the checks that take seconds, too; the check of a
            given ``main`` is always made.

    Raises:
        ConfigError: ``main`` is neither a file nor the name of a module, or a CORESIZE
            variable or setting is malformed.
        CoresizeError: this process is a worker that is importing the main module.

    Most information exists on Linux only; elsewhere, fewer checks are made.

    >>> from coresize import diagnose
    >>> diagnosis = diagnose(measure=False)
    >>> "throttling" in diagnosis.checks
    True
    """
    refuse_while_importing("make no diagnosis")
    start = time.perf_counter()
    context = collect(_words(main), imports.loaded(), _WATCHED)
    findings: list[Finding] = []
    made: list[str] = []
    skipped: list[tuple[str, str]] = []
    for name, check in _chosen(context, measure=measure).items():
        try:
            if name == _SCALING and not context.main:
                _require_main(findings)
            findings += check(context)
        except Skipped as reason:
            skipped.append((name, str(reason)))
        except Exception as error:  # noqa: BLE001 - other checks go on
            skipped.append((name, f"{type(error).__name__}: {error}"))
        else:
            made.append(name)
    return Diagnosis(
        findings=order(findings),
        checks=tuple(made),
        skipped=tuple(skipped),
        seconds=time.perf_counter() - start,
    )


def _words(main: str | Sequence[str] | None) -> tuple[str, ...]:
    """Check a program and its arguments, and return them."""
    words = (main,) if isinstance(main, str) else tuple(main or ())
    if words and not (Path(words[0]).is_file() or imports.is_module(words[0])):
        allowed = "the path of a Python file, or the name of a module"
        raise ConfigError("main", words[0], allowed)
    return words


def _require_main(findings: list[Finding]) -> None:
    """Skip the workers of a check if they could not import the main module.

    Raises:
        Skipped: an earlier check has found that error.
    """
    if any(f.check == _MAIN and f.severity == "error" for f in findings):
        reason = "workers cannot import the main module"
        raise Skipped(reason)


def _chosen(
    context: Context, *, measure: bool
) -> dict[str, Callable[[Context], Iterator[Finding]]]:
    if measure:
        return {**_QUICK, **_MEASURED}
    return {**_QUICK, _MAIN: imports.main_module} if context.main else _QUICK
