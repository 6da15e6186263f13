"""Plotting a sweep (needs the extra ``plot``: matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coresize.errors import ConfigError, CoresizeError


if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from coresize.sweeping.result import SweepResult

_KINDS = (".png", ".svg", ".pdf")
_STEPS = 200

#: The height of the plot, as a multiple of the highest throughput.
_ABOVE = 1.3


def check(path: str, where: str = "plot") -> None:
    """Check that a plot can be written to a path, before anything is measured.

    Args:
        path: the path of the plot.
        where: the argument that holds the path, for messages.

    Raises:
        CoresizeError: matplotlib is not installed.
        ConfigError: the path is not that of a picture, or its folder does not exist.
    """
    if Path(path).suffix.lower() not in _KINDS:
        raise ConfigError(where, path, "the path of a .png, .svg or .pdf file")
    if not Path(path).parent.is_dir():
        raise ConfigError(where, path, "a path in a folder that is there")
    try:
        import matplotlib  # noqa: F401, ICN001 - only to see whether it is installed
    except ImportError:
        msg = "a plot needs matplotlib: install the extra coresize[plot]"
        raise CoresizeError(msg) from None


def plot(result: SweepResult, path: str, *, cores: int | None = None) -> None:
    """Write a plot of the points with their spread, the law, the ideal, the advice.

    Args:
        result: the result of the sweep.
        path: the path of a .png, .svg or .pdf file.
        cores: the cores that the process may use, to be marked.

    Raises:
        CoresizeError: matplotlib is not installed.
        ConfigError: the path is not that of a picture, or cannot be written.
    """
    check(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure.subplots(), result, cores)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        allowed = f"a file that can be written ({error})"
        raise ConfigError("plot", path, allowed) from None


def _draw(axes: Axes, result: SweepResult, cores: int | None) -> None:
    rows = [row for row in result.rows if not row.error]
    counts = [row.workers for row in rows]
    rates = [row.throughput for row in rows]
    spread = [
        [row.throughput - row.low for row in rows],
        [row.high - row.throughput for row in rows],
    ]
    axes.errorbar(counts, rates, yerr=spread, fmt="o", capsize=3, label="measured")
    steps = [1 + (max(counts) - 1) * step / _STEPS for step in range(_STEPS + 1)]
    single = result.serial.throughput if result.serial else None
    if result.model:
        law = [result.model.throughput(step) for step in steps]
        axes.plot(steps, law, label="Universal Scalability Law")
        single = single or result.model.single
    if single:
        ideal = [single * step for step in steps]
        axes.plot(steps, ideal, "--", color="gray", label="ideal")
    axes.axvline(
        result.recommended, color="green", label=f"{result.recommended} advised"
    )
    for bound, name in ((cores, "cores"), (result.memory_bound, "fit into memory")):
        if bound is not None and bound <= 1.5 * max(counts):
            axes.axvline(bound, linestyle=":", color="red", label=f"{bound} {name}")
    axes.set(
        xlabel="workers",
        ylabel=f"{result.unit} a second",
        ylim=(0, _ABOVE * max(rates)),
    )
    axes.legend()
