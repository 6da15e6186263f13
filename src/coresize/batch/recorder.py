"""Records in the history what the tasks of a batch took; of many, a fair sample."""

from __future__ import annotations

import logging
import numbers
import random
from collections.abc import Sized
from typing import TYPE_CHECKING

from coresize.errors import CoresizeError
from coresize.planning.history import store
from coresize.planning.history.prediction import size_of
from coresize.texts import one_line


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from coresize.batch.outcomes import Outcome

_log = logging.getLogger("coresize")

#: The most tasks of one run that are kept.
_KEPT = 2000

_NOTHING = (
    "history: nothing is recorded of %s: what a task held is known on Linux alone, and "
    "where it ran in a process of its own (no thread) for a millisecond or more"
)


class Recorder:
    """Collects the tasks of one run, and saves them in the history.

    Args:
        name: the name of the function.
        size_of_item: a function that returns the size of an item; None takes the value
            of a number, and the length of an item that has one.
    """

    def __init__(self, name: str, size_of_item: Callable[[Any], float] | None) -> None:
        self._name = name
        self._size_of = size_of_item or _size_of
        self._rows: list[tuple[float | None, int, float, float]] = []
        self._largest: tuple[float | None, int, float, float] | None = None
        self._count = self._unmeasured = 0
        self._told = False
        # A fixed seed: the same tasks in the same order give the same sample.
        self._random = random.Random(0)  # noqa: S311 - a sample, no secret

    def add(self, item: Any, outcome: Outcome) -> None:
        """Keep a task that has succeeded and was measured."""
        if outcome.status != "ok":
            return
        if outcome.peak_memory is None:
            self._unmeasured += 1
            return
        alone = outcome.wall - outcome.waited  # as with a core of its own
        row = (self._size(item), outcome.peak_memory, alone, outcome.cpu)
        if self._largest is None or row[1] > self._largest[1]:
            self._largest = row
        self._count += 1
        if len(self._rows) < _KEPT:
            self._rows.append(row)
        else:  # each of all tasks is kept with the same chance (Vitter 1985)
            place = self._random.randrange(self._count)
            if place < _KEPT:
                self._rows[place] = row

    def _size(self, item: Any) -> float | None:
        """The size of an item; None if the function fails, which is logged once."""
        try:
            size = self._size_of(item)
            return None if size is None else size_of(size)
        except Exception as error:  # noqa: BLE001 - the user's function; the batch goes on
            if not self._told:
                text = f"history: {self._name}: the size of an item: {error}"
                _log.warning("%s", one_line(text))
            self._told = True
            return None

    def save(self, *, workers: int, throughput: float) -> None:
        """Write the tasks to the history; log why that is not possible."""
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
    """The value of a number that is not negative, or the length of an item; or None."""
    if isinstance(item, numbers.Real):
        number = float(item)
        return number if number >= 0 else None
    return float(len(item)) if isinstance(item, Sized) else None
