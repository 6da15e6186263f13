"""Make all checks of this machine."""

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

#: What is looked at in a moment, and what takes seconds.
_QUICK: dict[str, Callable[[Context], Iterator[Finding]]] = {
    "counted CPUs": cores.belief,
    "overrides": cores.overrides,
    "caps": cores.caps,
    "variables without effect": cores.foreign,
    "throttling": throttling.throttling,
    "memory limits": memory.limits,
    "memory.oom.group": memory.group,
    "kills": memory.kills,
    "swap": memory.swap,
    "pressure": memory.pressure,
    "/dev/shm": folders.shared_memory,
    "temporary folder": folders.temporary,
    "threads": threads.blas,
    "GPUs": gpus.gpus,
}
_MAIN, _SCALING = "main module", "scaling"
_MEASURED: dict[str, Callable[[Context], Iterator[Finding]]] = {
    "start methods": start_methods.methods,
    _MAIN: imports.main_module,
    "imports": imports.imports,
    _SCALING: scaling.scaling,
}

#: Seconds that counters are watched.
_WATCHED = 0.5


def diagnose(
    *, main: str | Sequence[str] | None = None, measure: bool = True
) -> Diagnosis:
    """Why it may be slow here: what was found, the most severe first.

    Limits against what others believe, throttling, memory, kills of the past, swap,
    pressure, /dev/shm, temporary folders, threads, GPUs; and, measured, what it costs
    to start workers and what does not get faster with more of them.

    Args:
        main: the file of a program, or the name of a module as for ``python -m``, whose
            import by workers is timed; it is run as spawn does, so without what its
            guard ``__name__ == "__main__"`` keeps. With its arguments, where it reads
            them outside of that: ``["analyse.py", "data.csv"]``. None is this very
            program.
        measure: make the checks that take seconds, too; that of a main module which is
            given is made in any case.

    Raises:
        ConfigError: main is no file and no name of a module, or a CORESIZE variable or
            setting is malformed.
        CoresizeError: this is a worker that imports the main module.

    Most of it is known on Linux alone; elsewhere there are fewer checks.

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
        except Exception as error:  # noqa: BLE001 - an odd machine ends no diagnosis
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
    """A program and its arguments, checked."""
    words = (main,) if isinstance(main, str) else tuple(main or ())
    if words and not (Path(words[0]).is_file() or imports.is_module(words[0])):
        allowed = "the path of a Python file, or the name of a module"
        raise ConfigError("main", words[0], allowed)
    return words


def _require_main(findings: list[Finding]) -> None:
    """Start no workers that would only say once more what is known.

    Raises:
        Skipped: they could not import this program.
    """
    if any(one.check == _MAIN and one.severity == "error" for one in findings):
        reason = "workers cannot import the main module"
        raise Skipped(reason)


def _chosen(
    context: Context, *, measure: bool
) -> dict[str, Callable[[Context], Iterator[Finding]]]:
    if measure:
        return {**_QUICK, **_MEASURED}
    return {**_QUICK, _MAIN: imports.main_module} if context.main else _QUICK
