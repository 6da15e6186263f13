"""A profile to plan with, made from the history of a function."""

from __future__ import annotations

import statistics

from coresize.planning.history import store
from coresize.planning.history.prediction import Predictor, size_of
from coresize.planning.profiles import TaskProfile


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.planning.history.prediction import Prediction
    from coresize.planning.history.store import Seen

#: The number of latest tasks that a profile is based on.
_LATEST = 2000


def profile_of(name: str, item_size: float | None = None) -> TaskProfile:
    """The profile of a function's tasks, from the records of earlier runs.

    Args:
        name: the recorded name of the function, "module:function".
        item_size: the size of the item, in the unit in which sizes were recorded; None
            if unknown.

    Raises:
        ConfigError: nothing was recorded under that name, or the size is not valid.
    """
    if item_size is not None:
        item_size = size_of(item_size)
    tasks = store.recall(name)[-_LATEST:]
    predictor = Predictor([(task.size, task.peak_memory) for task in tasks])
    prediction = predictor.predict(item_size)
    return TaskProfile(
        peak_memory=prediction.need,
        cpu=statistics.median(task.cpu for task in tasks),
        wall=statistics.median(task.wall for task in tasks),
        method=f"history, {prediction.method}{_how_far(prediction, item_size, tasks)}",
        peaks=sorted(task.peak_memory for task in tasks)[-10:],
    )


def _how_far(prediction: Prediction, size: float | None, tasks: list[Seen]) -> str:
    if size is None or "extrapolated" not in prediction.method:
        return ""
    largest = max(task.size for task in tasks if task.size is not None)
    if not largest:
        return ""
    return f" to {size / largest:.3g} times the largest size that was seen"
