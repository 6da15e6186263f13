"""How many cores and how much memory this process may really use."""

from __future__ import annotations

from coresize.available import available_cores, available_memory, detect
from coresize.errors import ConfigError, CoresizeError, HostFileError, ParseError
from coresize.model import CpuLimits, Fact, Gap, Limits, MemoryLimits


__version__ = "0.1.0.dev0"

__all__ = [
    "ConfigError",
    "CoresizeError",
    "CpuLimits",
    "Fact",
    "Gap",
    "HostFileError",
    "Limits",
    "MemoryLimits",
    "ParseError",
    "__version__",
    "available_cores",
    "available_memory",
    "detect",
]
