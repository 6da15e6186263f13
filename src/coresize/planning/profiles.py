"""Task profiles: written by hand, measured, or loaded from a file."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from coresize import units
from coresize.errors import ConfigError
from coresize.model import Value
from coresize.planning import settings_names
from coresize.planning.validation import Bytes, Schema, Seconds, Whole, check
from coresize.units import to_memory


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from coresize.model import Notice

_MOST_THREADS = 10**6
_SHARE = "a part of a core above 0 and up to 1, such as 0.05"


#: The method of a profile whose numbers a user has written.
_BY_HAND = "by hand"
#: No process takes less than a page of memory.
_PAGE = 4096
_SIZES_BY_HAND = ("peak_memory", "idle_memory", "shared_memory")


class _Fields(Schema):
    peak_memory: Bytes | None = Field(default=None, description=units.SIZES)
    idle_memory: Bytes = 0
    shared_memory: Bytes = 0
    cpu: Seconds | None = Field(default=None, description="seconds, 0 or above")
    wall: Seconds | None = Field(default=None, description="seconds, 0 or above")
    threads: Annotated[Whole, Field(ge=1, le=_MOST_THREADS)] | None = Field(
        default=None, description="a whole number above 0"
    )
    cpu_share: Annotated[float, Field(ge=0.0001, le=1)] | None = Field(
        default=None, description=_SHARE
    )
    max_workers: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="a whole number above 0"
    )
    thread_limit: Annotated[Whole, Field(ge=1)] | None = Field(
        default=None, description="a whole number above 0"
    )
    method: str = Field(default=_BY_HAND, description="a text")
    peaks: list[Whole] | tuple[Whole, ...] = Field(
        default=(), description="the peaks of all runs in bytes"
    )


class TaskProfile(Value):
    """What one task needs, together with the worker that runs it.

    Attributes:
        peak_memory: bytes that the task needs at its peak, on top of the idle worker;
            None if unknown.
        idle_memory: bytes of the idle worker: the interpreter and its imports.
        shared_memory: bytes that all workers share, counted once.
        cpu: seconds of CPU time of all threads and processes of the task; None if
            unknown.
        wall: seconds from start to end, without those in which the task was ready to
            run but had no CPU, as far as they are known; None if unknown.
        threads: threads that the task keeps busy at the same time, at least 1.
        cpu_share: the part of the time that these threads compute: 1.0 is CPU-bound,
            0.05 mostly waits.
        max_workers: the most workers to use, because a sweep found no gain in more;
            None for no such bound. The old name ``most_workers`` is accepted, with a
            warning.
        thread_limit: threads that BLAS, OpenMP and similar libraries were allowed while
            the task was measured; None if unknown.
        method: the origin of the numbers: "by hand", "cgroup", "proc", "psutil",
            "sweep", or "history" with the method of prediction.
        peaks: the peak of each run in bytes, where it was measured.

    Sizes may be bytes or texts such as "2GiB". By default, threads and CPU share are
    computed from the CPU and wall seconds; without those, they are 1.

    Raises:
        ConfigError: a value is not valid.

    >>> from coresize import TaskProfile
    >>> profile = TaskProfile(peak_memory="2GiB", cpu=3.0, wall=60.0)
    >>> profile.peak_memory, profile.threads, profile.cpu_share
    (2147483648, 1, 0.05)
    """

    peak_memory: int | None
    idle_memory: int
    shared_memory: int
    cpu: float | None
    wall: float | None
    threads: int
    cpu_share: float
    max_workers: int | None
    thread_limit: int | None
    method: str
    peaks: tuple[int, ...]

    def __init__(
        self,
        *,
        peak_memory: int | str | None = None,
        idle_memory: int | str = 0,
        shared_memory: int | str = 0,
        cpu: float | None = None,
        wall: float | None = None,
        threads: int | None = None,
        cpu_share: float | None = None,
        max_workers: int | None = None,
        thread_limit: int | None = None,
        method: str = _BY_HAND,
        peaks: Sequence[int] = (),
        most_workers: int | None = None,
    ) -> None:
        if most_workers is not None:
            if max_workers is not None:
                allowed = "only one of max_workers and most_workers"
                raise ConfigError("most_workers", most_workers, allowed)
            text = "TaskProfile: most_workers is read as max_workers, its name now"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            max_workers = most_workers
        fields = {
            "peak_memory": peak_memory,
            "idle_memory": idle_memory,
            "shared_memory": shared_memory,
            "cpu": cpu,
            "wall": wall,
            "threads": threads,
            "cpu_share": cpu_share,
            "max_workers": max_workers,
            "thread_limit": thread_limit,
            "method": method,
            "peaks": peaks,
        }
        super().__init__(**_completed(fields, "TaskProfile"))

    @property
    def memory(self) -> int | None:
        """Bytes of one worker while the worker runs the task; None if unknown."""
        return None if self.peak_memory is None else self.idle_memory + self.peak_memory

    @property
    def most_workers(self) -> int | None:
        """The old name of ``max_workers``."""
        return self.max_workers

    @property
    def doubt(self) -> str:
        """Why the task may need more memory than stated; empty without a reason."""
        return self.method if "extrapolated" in self.method else ""


#: The least CPU share: a task that seems to compute nothing still computes something.
_LEAST_SHARE = 0.001

#: The part of a further busy thread that counts as measurement noise.
_NOISE = 0.1


def _completed(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields; missing threads and CPU share are computed from the seconds.

    Raises:
        ConfigError: a key is not known, or a value is not valid.
    """
    checked = check(_Fields, given, where)
    fields = checked.model_dump()
    if checked.method == _BY_HAND:  # what was measured may be small
        for name in _SIZES_BY_HAND:
            to_memory(f"{where}: {name}", given.get(name) or 0, _PAGE)
    cpu, wall = checked.cpu, checked.wall
    busy = cpu / wall if cpu is not None and wall else None
    threads = math.ceil(min(busy or 1, _MOST_THREADS) - _NOISE)
    fields["threads"] = checked.threads or max(1, threads)
    if checked.cpu_share is None:
        share = 1.0 if busy is None else busy / fields["threads"]
        fields["cpu_share"] = min(1.0, max(_LEAST_SHARE, round(share, 4)))
    fields["peaks"] = tuple(checked.peaks)
    return fields


def from_table(
    table: Mapping[str, Any], where: str, notes: list[Notice]
) -> TaskProfile:
    """The profile in a table from TOML, YAML or JSON.

    Args:
        table: the table.
        where: the file, or the place in it, for messages.
        notes: gets a note for each field that has an old name.

    Raises:
        ConfigError: a key is not known, or a value is not valid.
    """
    named, written = settings_names.renamed(table, where, settings_names.OF_PROFILES)
    profile = TaskProfile.__new__(TaskProfile)
    with settings_names.own_names(written, where):
        Value.__init__(profile, **_completed(named, where))
    notes += settings_names.notes(written, where)
    return profile
