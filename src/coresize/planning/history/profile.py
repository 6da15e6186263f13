"""What the history says, as a profile to plan with."""

from __future__ import annotations

import statistics

from coresize.planning.history import store
from coresize.planning.history.prediction import Predictor, size_of
from coresize.planning.profiles import TaskProfile


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.planning.history.prediction import Prediction
    from coresize.planning.history.store import Seen

#: The latest tasks decide.
_LATEST = 2000


def profile_of(name: str, item_size: float | None = None) -> TaskProfile:
    """What a task of a function needs, by those of earlier runs.

    Args:
        name: as it was recorded, "module:function".
        item_size: of the item, in the unit in which sizes were recorded; None if
            unknown.

    Raises:
        ConfigError: nothing was recorded under that name, or the size is none.
    """
    if item_size is not None:
        item_size = size_of(item_size)
    seen = store.recall(name)[-_LATEST:]
    predictor = Predictor([(one.size, one.peak_memory) for one in seen])
    found = predictor.predict(item_size)
    return TaskProfile(
        peak_memory=found.need,
        cpu=statistics.median(one.cpu for one in seen),
        wall=statistics.median(one.wall for one in seen),
        method=f"history, {found.method}{_how_far(found, item_size, seen)}",
        peaks=sorted(one.peak_memory for one in seen)[-10:],
    )


def _how_far(found: Prediction, size: float | None, seen: list[Seen]) -> str:
    if size is None or "extrapolated" not in found.method:
        return ""
    largest = max(one.size for one in seen if one.size is not None)
    if not largest:
        return ""
    return f" to {size / largest:.3g} times the largest size that was seen"
