"""A sweep as a profile, so that planning uses it the next time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize.planning.profiles import TaskProfile


if TYPE_CHECKING:
    from collections.abc import Sequence

    from coresize.sweeping.result import SweepResult
    from coresize.sweeping.row import Row


def profile_of(result: SweepResult) -> TaskProfile:
    """The bound on workers; of a function what one needs, as far as it was measured."""
    good = [row for row in result.rows if not row.error]
    # As many as fit may not have been measured: then the nearest count stands for it.
    row = min(good, key=lambda row: abs(row.workers - result.recommended))
    alone = _least_crowded(result, good)
    return TaskProfile(
        # What a command takes is of all its workers together, of which some is shared.
        peak_memory=row.peak_memory if result.unit == "tasks" else None,
        cpu=alone.cores / alone.workers if alone.cores else None,
        wall=1.0 if alone.cores else None,
        most_workers=result.recommended,
        method="sweep",
    )


def _least_crowded(result: SweepResult, good: Sequence[Row]) -> Row:
    """Where workers did not have to wait for each other's core, or as few as can be."""
    if result.serial and not result.serial.error:
        return result.serial
    return min(good, key=lambda row: row.workers)
