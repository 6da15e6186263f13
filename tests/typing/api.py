"""Public signatures as type checkers see them; checked by mypy, never run."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import coresize
from coresize import Limits, available_cores, available_memory, detect
from coresize.testing import Recorded, container, load_host, use_host


cores: int = available_cores()
fewer: int = available_cores(reserve=1, rounding="floor", physical=True)
memory: int = available_memory()

limits: Limits = detect()
limit: float | None = limits.cpu.limit
quota: float | None = limits.cpu.quota
available: int | None = limits.memory.available
if limits.cpu.binding is not None:
    where: str = limits.cpu.binding.where
for fact in limits.facts:
    amount: float | None = fact.amount
for gap in limits.gaps:
    reason: str = gap.reason

host: Recorded = load_host("host.toml")
with use_host(container(cpus=8, quota=1.5, memory="512MiB", env={"NCPUS": "2"})):
    detect(host)
ProcessPoolExecutor(max_workers=available_cores())

# What must not pass: the ignores are errors where they are not needed.
available_cores(rounding="up")  # type: ignore[arg-type]
available_cores(1)  # type: ignore[call-arg]
limits.cpu.limit = 3.0  # type: ignore[misc]
coresize.Fact(resource="cpu")  # type: ignore[call-arg]
