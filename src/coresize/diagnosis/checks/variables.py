"""Environment variables that bound other programs, or that no program reads."""

from __future__ import annotations

import re

from coresize.diagnosis.findings import Finding
from coresize.planning import exports
from coresize.units import format_count


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from coresize.diagnosis.context import Context
    from coresize.diagnosis.findings import Severity

#: The programs that obey a variable. Other variables of `coresize.planning.exports` are
#: examined by other checks, or bound a worker and not a program.
_PROGRAMS = {
    "MC_CORES": "R's package parallel",
    "R_PARALLELLY_AVAILABLECORES_SYSTEM": "R's package parallelly",
    "R_PARALLELLY_AVAILABLECORES_FALLBACK": "R's package parallelly",
    "GOMAXPROCS": "Go",
    "RAYON_NUM_THREADS": "Rust's rayon",
    "POLARS_MAX_THREADS": "polars",
    "NUMBA_NUM_THREADS": "numba",
    "OMP_NUM_THREADS": "OpenMP and BLAS",
    "OPENBLAS_NUM_THREADS": "OpenBLAS",
    "MKL_NUM_THREADS": "MKL",
    "CMAKE_BUILD_PARALLEL_LEVEL": "cmake --build",
    "PYTEST_XDIST_AUTO_NUM_WORKERS": "pytest -n auto",
    "JAVA_TOOL_OPTIONS": "Java",
    "MAKEFLAGS": "make",
}

#: Variables of threads within one process: 1 is right for each worker of a pool.
_OF_WORKERS = frozenset(exports.THREADS) - {"GOMAXPROCS"}

#: The number in a variable that holds several options.
_NUMBERS = {
    "JAVA_TOOL_OPTIONS": re.compile(r"-XX:ActiveProcessorCount=([0-9]+)"),
    "MAKEFLAGS": re.compile(r"(?:^|\s)(?:-j|--jobs=)([0-9]+)"),
}

#: With this many times as many threads as cores, threads mostly wait for each other.
_MUCH = 1.5


def bounds(context: Context) -> Iterator[Finding]:
    """Variables that let other programs use few of the cores, or too many workers.

    Such variables are often set in the image of a container, for a smaller machine.
    Those that coresize has set itself do not count.
    """
    present = context.variable(*_PROGRAMS, exports.SET)
    for name, text in exports.of_user(present).items():
        count = _number(name, text)
        few = 0 < count * 2 <= context.real_cores
        if name in _OF_WORKERS:  # the check of threads examines numbers above 1
            if few and count == 1:
                yield _few(context, name, count, "note", _OWN_SHARE)
        elif few:
            yield _few(context, name, count, "warning", _IDLE)
        elif count > _MUCH * context.real_cores:
            yield _many(context, name, count)


_IDLE = (
    "the other cores are idle; images often set such a variable for a smaller machine"
)
_OWN_SHARE = (
    "this is right for each worker of a pool; a program that runs alone leaves the "
    "other cores idle"
)


def _number(name: str, text: str) -> int:
    """The number of cores or workers in a variable; 0 if it has none."""
    if name in _NUMBERS:
        match = _NUMBERS[name].search(text)
        text = match[1] if match else ""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def _few(
    context: Context, name: str, count: int, severity: Severity, why: str
) -> Finding:
    cores = context.real_cores
    return Finding(
        severity=severity,
        code="variable-below-cores",
        check="variables of other programs",
        title=f"{name} lets {_PROGRAMS[name]} use {count} of "
        f"{format_count(cores, 'core')}",
        seen=f"{name}={context.variable(name)[name]}, {format_count(cores, 'core')}",
        where=name,
        why=why,
        advice=f"unset {name}, and start programs by coresize run -- CMD, which sets "
        "it for this machine",
    )


def _many(context: Context, name: str, count: int) -> Finding:
    cores = context.real_cores
    return Finding(
        severity="warning",
        code="variable-above-cores",
        check="variables of other programs",
        title=f"{name} lets {_PROGRAMS[name]} start {format_count(count, 'worker')} "
        f"on {format_count(cores, 'core')}",
        seen=f"{name}={context.variable(name)[name]}, {format_count(cores, 'core')}",
        where=name,
        why="workers without a core of their own wait for each other",
        advice=f"unset {name}, and start programs by coresize run -- CMD, which sets "
        "it for this machine",
    )


def foreign(context: Context) -> Iterator[Finding]:
    """Variables that are set, but that the intended programs do not read."""
    for warning in context.settings.warnings:
        title, _, meant = warning.partition(": ")
        yield Finding(
            severity="warning",
            code=warning.code,
            check="variables without effect",
            title=title,
            seen=title.partition(" ")[0],
            where="environment",
            why="the value has no effect",
            advice=f"{meant or 'does it belong to another program?'} "
            "Otherwise unset it",
        )
    variables = context.variable("PARALLELLY_OVERRIDE_CORES")
    if context.cores > context.real_cores:
        return  # the value is wrong, and R should not obey it either
    for name, value in variables.items():
        yield Finding(
            severity="note",
            code="variable-unread-by-r",
            check="variables without effect",
            title=f"{name}={value} has no effect in R",
            seen=f"{name}={value}",
            where="environment",
            why="coresize uses it, but R's package parallelly reads only names that "
            "begin with R_PARALLELLY_, and only when it is loaded",
            advice=f"set R_PARALLELLY_AVAILABLECORES_SYSTEM={value} before R starts, "
            "or use coresize run -- Rscript ...",
        )
