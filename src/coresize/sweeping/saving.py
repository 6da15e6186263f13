"""A sweep kept as a profile, so that planning uses it the next time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coresize.profile_files import save_profile
from coresize.profiles import TaskProfile


if TYPE_CHECKING:
    from coresize.sweeping.result import SweepResult


def save(result: SweepResult, name: str) -> str:
    """Keep what was found under a name, or in a file; returns the path of the file.

    The profile bounds the workers that are planned, and of a function it has what one
    worker needs, as far as that was measured.

    Raises:
        ConfigError: the file cannot be written.
    """
    row = next(row for row in result.rows if row.workers == result.recommended)
    profile = TaskProfile(
        # What a command takes is of all its workers together, of which some is shared.
        peak_memory=row.peak_memory if result.unit == "tasks" else None,
        cpu=row.cores / row.workers if row.cores else None,
        wall=1.0 if row.cores else None,
        most_workers=result.recommended,
        method="sweep",
    )
    return save_profile(profile, name)
