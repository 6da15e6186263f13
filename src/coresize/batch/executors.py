"""The executor that a batch runs over: by name, or the caller's own."""

from __future__ import annotations

import concurrent.futures
import logging
from typing import TYPE_CHECKING

from coresize.detection import available
from coresize.errors import ConfigError
from coresize.executor.admission.needs import AUTO
from coresize.executor.limiter import limit_memory
from coresize.executor.process import ProcessPoolExecutor
from coresize.executor.serial import SerialExecutor
from coresize.executor.threads import ThreadPoolExecutor
from coresize.executor.traits import PoolState


if TYPE_CHECKING:
    from concurrent.futures import Executor

    from coresize.executor.admission.needs import Memory

_log = logging.getLogger("coresize")

NAMES = ("process", "thread", "serial", "joblib")
_ALLOWED = '"process", "thread", "serial", "joblib", or an executor'


class Pool:
    """An executor, and what a batch has to know of it.

    Args:
        executor: a name, or an executor, which stays open when the batch ends.
        max_workers: workers at most; of a foreign executor, how many it has.
        memory: bytes that one task needs, as for `coresize.ProcessPoolExecutor`.
        cpus: cores that one task keeps busy.
        timeout: seconds that one task may take.
        oom_retries: how often a task that was killed for memory is run again.

    Attributes:
        executor: what tasks are submitted to.
        workers: how many it has at most.
        crosses: tasks run in other processes.
        serial: tasks run in the caller.
        survives: it loses a single task when a worker dies.

    Raises:
        ConfigError: an argument is not valid, or nothing that this executor can do.
    """

    def __init__(
        self,
        executor: Executor | str,
        *,
        max_workers: int | None,
        memory: Memory | None,
        cpus: float,
        timeout: float | None,
        oom_retries: int,
    ) -> None:
        if timeout is not None and executor != "process":
            allowed = 'None: only executor="process" can end what takes too long'
            raise ConfigError("timeout", timeout, allowed)
        self._owned = isinstance(executor, str)
        if executor == "process":
            made: Executor = ProcessPoolExecutor(
                max_workers,
                memory=memory,
                cpus=None if cpus == 1 else cpus,
                timeout=timeout,
                oom_retries=oom_retries,
            )
        elif isinstance(executor, str):
            made = _named(executor, max_workers, cpus)
        else:
            made = _checked(executor)
        self.serial = isinstance(made, SerialExecutor)
        threads = isinstance(made, concurrent.futures.ThreadPoolExecutor)
        self.crosses = not (self.serial or threads)
        self.workers = max_workers or getattr(made, "_max_workers", None) or 0
        if self.serial:
            self.workers = 1
        elif not self.workers:
            self.workers = available.available_cores()
        self.survives = isinstance(made, ProcessPoolExecutor)
        if self.serial and timeout is not None:
            _log.warning("a timeout is not kept where everything runs serially")
        self._inner = made
        self.executor = made
        if memory is not None and executor != "process" and not self.serial:
            self.executor = self._limited(made, memory, threads=threads)

    def _limited(self, made: Executor, memory: Memory, *, threads: bool) -> Executor:
        if isinstance(made, ProcessPoolExecutor):
            allowed = "None, and give it to the executor: ProcessPoolExecutor(memory=)"
            raise ConfigError("memory", memory, allowed)
        if threads and memory == AUTO:
            allowed = "a size: what one of several threads takes cannot be learned"
            raise ConfigError("memory", memory, allowed)
        return limit_memory(made, memory=memory)

    @property
    def hint(self) -> str:
        """What may help where it is broken, and it does not say so itself."""
        return "" if self.survives else " (executor='process' would lose a single task)"

    def observe(self) -> PoolState:
        """What it is like now."""
        if isinstance(self._inner, ProcessPoolExecutor):
            return self._inner.observe()
        return PoolState(workers=self.workers, kills=0, evictions=0, need=None)

    def close(self, *, interrupted: bool) -> None:
        """End it, if it was made here; after Ctrl-C at once."""
        if not self._owned:
            return
        if interrupted:
            # As on leaving `with`: what runs is not waited for.
            self.executor.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        else:
            self.executor.shutdown(cancel_futures=True)


def _named(name: str, max_workers: int | None, cpus: float) -> Executor:
    if name == "thread":
        share = cpus if cpus < 1 else None
        return ThreadPoolExecutor(max_workers, cpu_share=share)
    if name == "serial":
        return SerialExecutor()
    if name == "joblib":
        from coresize.adapters.joblib import JoblibExecutor

        return JoblibExecutor(max_workers)
    raise ConfigError("executor", name, _ALLOWED)


def _checked(executor: Executor) -> Executor:
    if not (hasattr(executor, "submit") and hasattr(executor, "shutdown")):
        raise ConfigError("executor", executor, _ALLOWED)
    return executor
