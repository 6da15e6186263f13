"""What tasks of a batch took, kept for the history: a fair part of many."""

from __future__ import annotations

import logging
import random
from collections.abc import Sized
from typing import TYPE_CHECKING

from coresize.errors import CoresizeError
from coresize.history import store


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from coresize.batch.outcomes import Outcome

_log = logging.getLogger("coresize")

#: Tasks of one run that are kept.
_KEPT = 2000

_NOTHING = (
    "history: nothing is recorded of %s: what a task held is known only where it ran "
    "in a process of its own (in no thread, not serially) for a millisecond or more"
)


class Recorder:
    """The tasks of one run.

    Args:
        name: of the function.
        size_of: what gives the size of an item; None takes a number as it is, and of
            what has a length its length.
    """

    def __init__(self, name: str, size_of: Callable[[Any], float] | None) -> None:
        self._name = name
        self._size_of = size_of or _size_of
        self._rows: list[tuple[float | None, int, float, float]] = []
        self._largest: tuple[float | None, int, float, float] | None = None
        self._count = self._unmeasured = 0
        # The same tasks each time, as far as they come in the same order.
        self._random = random.Random(0)  # noqa: S311 - a sample, no secret

    def add(self, item: Any, outcome: Outcome) -> None:
        """Take note of a task, if it is a measure of anything."""
        if outcome.status != "ok":
            return
        if outcome.peak_memory is None:
            self._unmeasured += 1
            return
        alone = outcome.wall - outcome.waited  # on a machine with a core for it
        row = (self._size_of(item), outcome.peak_memory, alone, outcome.cpu)
        if self._largest is None or row[1] > self._largest[1]:
            self._largest = row
        self._count += 1
        if len(self._rows) < _KEPT:
            self._rows.append(row)
        else:  # each of all tasks is kept with the same chance (Vitter 1985)
            place = self._random.randrange(self._count)
            if place < _KEPT:
                self._rows[place] = row

    def save(self, *, workers: int, throughput: float) -> None:
        """Write them; where that is not possible, say so in the log."""
        if self._largest is None:
            if self._unmeasured:
                _log.warning(_NOTHING, self._name)
            return
        if self._largest not in self._rows:
            self._rows[-1] = self._largest
        try:
            store.record(self._name, self._rows, workers=workers, throughput=throughput)
        except CoresizeError as error:
            _log.warning("%s", error)


def _size_of(item: Any) -> float | None:
    if isinstance(item, (int, float)):
        return float(item)
    return float(len(item)) if isinstance(item, Sized) else None
