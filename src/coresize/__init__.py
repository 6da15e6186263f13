"""How many cores and how much memory this process may really use."""

from __future__ import annotations

from coresize.detection.available import available_cores, available_memory, detect
from coresize.errors import (
    ConfigError,
    CoresizeError,
    HostFileError,
    InsufficientMemoryError,
    JournalError,
    ParseError,
    TaskCrashedError,
    TaskKilledError,
    TaskOutOfMemoryError,
    TaskTimeoutError,
)
from coresize.model import VERSION as __version__  # noqa: N811
from coresize.model import CpuLimits, Fact, Gap, Limits, MemoryLimits


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.batch.outcomes import Outcome
    from coresize.batch.run import BatchRun, parallel_map, run_batch
    from coresize.batch.shards import Shard
    from coresize.diagnosis.diagnose import diagnose
    from coresize.diagnosis.findings import Diagnosis
    from coresize.executor.limiter import limit_memory
    from coresize.executor.process import ProcessPoolExecutor
    from coresize.executor.serial import SerialExecutor
    from coresize.executor.shares import Shared, share
    from coresize.executor.threads import ThreadPoolExecutor
    from coresize.measuring.profiling import profile_task
    from coresize.planning.plan import plan_workers
    from coresize.planning.profile_files import load_profile, save_profile
    from coresize.planning.profiles import TaskProfile
    from coresize.planning.settings import Settings, load_settings
    from coresize.planning.values import WorkerPlan
    from coresize.processes.transfer import TransferError
    from coresize.sweeping.result import SweepResult
    from coresize.sweeping.sweep import sweep

__all__ = [
    "BatchRun",
    "ConfigError",
    "CoresizeError",
    "CpuLimits",
    "Diagnosis",
    "Fact",
    "Gap",
    "HostFileError",
    "InsufficientMemoryError",
    "JournalError",
    "Limits",
    "MemoryLimits",
    "Outcome",
    "ParseError",
    "ProcessPoolExecutor",
    "SerialExecutor",
    "Settings",
    "Shard",
    "Shared",
    "SweepResult",
    "TaskCrashedError",
    "TaskKilledError",
    "TaskOutOfMemoryError",
    "TaskProfile",
    "TaskTimeoutError",
    "ThreadPoolExecutor",
    "TransferError",
    "WorkerPlan",
    "__version__",
    "available_cores",
    "available_memory",
    "detect",
    "diagnose",
    "limit_memory",
    "load_profile",
    "load_settings",
    "parallel_map",
    "plan_workers",
    "profile_task",
    "run_batch",
    "save_profile",
    "share",
    "sweep",
]

#: Names that are loaded on first use, so that ``import coresize`` stays fast (PEP 562).
_LAZY = {
    "BatchRun": "batch.run",
    "Diagnosis": "diagnosis.findings",
    "Outcome": "batch.outcomes",
    "Shard": "batch.shards",
    "SweepResult": "sweeping.result",
    "sweep": "sweeping.sweep",
    "diagnose": "diagnosis.diagnose",
    "parallel_map": "batch.run",
    "run_batch": "batch.run",
    "ProcessPoolExecutor": "executor.process",
    "SerialExecutor": "executor.serial",
    "Shared": "executor.shares",
    "share": "executor.shares",
    "ThreadPoolExecutor": "executor.threads",
    "TransferError": "processes.transfer",
    "Settings": "planning.settings",
    "TaskProfile": "planning.profiles",
    "WorkerPlan": "planning.values",
    "limit_memory": "executor.limiter",
    "load_profile": "planning.profile_files",
    "load_settings": "planning.settings",
    "plan_workers": "planning.plan",
    "profile_task": "measuring.profiling",
    "save_profile": "planning.profile_files",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    import importlib

    value = getattr(importlib.import_module(f"coresize.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
