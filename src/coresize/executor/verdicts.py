"""What the errors of other executors say of a task, by the names of their classes.

Where tasks run in a cluster, its library reports the death of a worker by an error of
its own, and a batch is to tell that from an error of the task. The libraries are not
imported: a class is recognised by its module and name, as are executors
(`coresize.executor.traits`).
"""

from __future__ import annotations

from coresize.executor.traits import names_of


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    #: What has ended a task: its worker died, the worker's memory ran out, or it was
    #: cancelled.
    Verdict: TypeAlias = Literal["killed", "oom", "cancelled"]

#: The verdict by class. Sources: the libraries' documentation of their exceptions, and
#: what they raise when a worker is killed.
_VERDICTS: dict[str, Verdict] = {
    "distributed.scheduler.KilledWorker": "killed",
    "executorlib.standalone.interactive.communication.ExecutorlibSocketError": "killed",
    "ipyparallel.error.EngineError": "killed",
    "parsl.executors.high_throughput.errors.ManagerLost": "killed",
    "parsl.executors.high_throughput.errors.WorkerLost": "killed",
    "ray.exceptions.ActorDiedError": "killed",
    "ray.exceptions.LocalRayletDiedError": "killed",
    "ray.exceptions.NodeDiedError": "killed",
    "ray.exceptions.OutOfMemoryError": "oom",
    "ray.exceptions.TaskCancelledError": "cancelled",
    "ray.exceptions.WorkerCrashedError": "killed",
    "submitit.core.utils.UncompletedJobError": "killed",
}

#: An error of an engine of IPython, which names its class in an attribute.
_REMOTE = "ipyparallel.error.RemoteError"


def verdict_of(error: BaseException) -> Verdict | None:
    """What an executor's error says of its task; None for an error of the task.

    >>> verdict_of(ValueError()) is None
    True
    """
    for cls in names_of(type(error)):
        remote = cls == _REMOTE
        name = f"ipyparallel.error.{getattr(error, 'ename', '')}" if remote else cls
        if name in _VERDICTS:
            return _VERDICTS[name]
    return None
