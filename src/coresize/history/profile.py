"""What the history says, as a profile to plan with."""

from __future__ import annotations

import statistics

from coresize.errors import ConfigError
from coresize.history import store
from coresize.history.prediction import Predictor
from coresize.profiles import TaskProfile


#: The latest tasks decide.
_LATEST = 2000


def profile_of(name: str, item_size: float | None = None) -> TaskProfile:
    """What a task of a function needs, by those of earlier runs.

    Args:
        name: as it was recorded, "module:function".
        item_size: of the item, in the unit in which sizes were recorded; None if
            unknown.

    Raises:
        ConfigError: nothing was recorded under that name.
    """
    seen = store.recall(name)[-_LATEST:]
    if not seen:
        known = ", ".join(f'"{one}"' for one, *_ in store.names()) or "nothing yet"
        allowed = (
            f"a name of which runs were recorded ({known}): run_batch(history=True)"
        )
        raise ConfigError("history", name, allowed)
    predictor = Predictor([(one.size, one.peak_memory) for one in seen])
    found = predictor.predict(item_size)
    return TaskProfile(
        peak_memory=found.need,
        cpu=statistics.median(one.cpu for one in seen),
        wall=statistics.median(one.wall for one in seen),
        method=f"history, {found.method}",
        peaks=sorted(one.peak_memory for one in seen)[-10:],
    )
