"""Executors that fit what this process may use, and that survive a kill."""

from __future__ import annotations

from coresize.executor.limiter import limit_memory
from coresize.executor.process import ProcessPoolExecutor
from coresize.executor.serial import SerialExecutor
from coresize.executor.threads import ThreadPoolExecutor


__all__ = [
    "ProcessPoolExecutor",
    "SerialExecutor",
    "ThreadPoolExecutor",
    "limit_memory",
]
