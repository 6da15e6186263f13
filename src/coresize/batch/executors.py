"""The executor of a batch: a new one, by name, or the caller's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from coresize.errors import ConfigError
from coresize.executor import sizing
from coresize.executor.admission.needs import AUTO
from coresize.executor.limiter import limit_memory
from coresize.executor.pool.runner import specify
from coresize.executor.process import ProcessPoolExecutor
from coresize.executor.serial import SerialExecutor
from coresize.executor.threads import ThreadPoolExecutor
from coresize.executor.traits import PoolState, is_executor, traits_of


if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any

    from coresize.executor.admission.needs import MemoryNeed
    from coresize.executor.sharing import Size, Writable
    from coresize.planning.settings import Settings

_log = logging.getLogger("coresize")

NAMES = ("process", "thread", "serial", "joblib")
_ALLOWED = '"process", "thread", "serial", "joblib", or an executor'


class Pool:
    """The executor of a batch, with its traits.

    Args:
        executor: a name, or an executor, which stays open when the batch ends.
        max_workers: the most workers; for the caller's executor, how many it has.
        memory: bytes that one task needs, as for `coresize.ProcessPoolExecutor`.
        cpus: cores that one task keeps busy.
        timeout: seconds that one task may take.
        oom_retries: how often a task that was killed for memory runs again.
        share_from: as for `coresize.ProcessPoolExecutor`.
        writable: likewise.
        settings: the settings, if the caller has loaded them already.

    Attributes:
        executor: the executor to which tasks are submitted.
        traits: its traits.
        slots: how many tasks it runs at a time; None if that is not known.

    Raises:
        ConfigError: an argument is not valid, or this executor does not support it.
    """

    def __init__(
        self,
        executor: Executor | str,
        *,
        max_workers: int | None,
        memory: MemoryNeed | None,
        cpus: float,
        timeout: float | None,
        oom_retries: int,
        share_from: Size | None,
        writable: Writable | None,
        settings: Settings | None = None,
    ) -> None:
        if timeout is not None and executor != "process":
            allowed = 'None: only executor="process" can end what takes too long'
            raise ConfigError("timeout", timeout, allowed)
        self._owned = isinstance(executor, str)
        if executor == "process":
            share = None if cpus == 1 else cpus
            spec = specify(memory)
            made: Executor = ProcessPoolExecutor(
                sizing.plan(
                    max_workers,
                    memory=spec.fixed if spec else None,
                    cpus=share,
                    decided=settings,
                ),
                memory=memory,
                timeout=timeout,
                oom_retries=oom_retries,
                share_from=share_from,
                writable=writable,
            )
        elif isinstance(executor, str):
            made = _named(executor, max_workers, cpus)
        elif is_executor(executor):
            made = executor
        else:
            raise ConfigError("executor", executor, _ALLOWED)
        self.traits = traits_of(made)
        workers = None if self.is_serial else max_workers
        self.slots = workers or self.traits.slots
        if self.is_serial and timeout is not None:
            _log.warning("a timeout is not kept where everything runs serially")
        self._inner = self.executor = made
        if memory is not None and executor != "process" and not self.is_serial:
            self.executor = self._limited(made, memory)

    @property
    def is_serial(self) -> bool:
        """Whether each task runs in the thread that submits it."""
        return self.traits.place == "caller"

    @property
    def breaks(self) -> bool:
        """Whether the death of one worker may lose all tasks that were submitted."""
        return self.traits.pickles and not self.traits.survives

    def _limited(self, made: Executor, memory: MemoryNeed) -> Executor:
        if self.traits.measures:
            allowed = "None, and give it to the executor: ProcessPoolExecutor(memory=)"
            raise ConfigError("memory", memory, allowed)
        if self.traits.shares_memory and memory == AUTO:
            allowed = "a size: what one of several threads takes cannot be learned"
            raise ConfigError("memory", memory, allowed)
        return limit_memory(made, memory=memory)

    def once(self, function: Callable[..., Any]) -> Any:
        """What stands for the function of all tasks, whose large buffers go once."""
        inner = self._inner
        return inner._once(function) if isinstance(inner, ProcessPoolExecutor) else None  # noqa: SLF001 - for this only

    @property
    def hint(self) -> str:
        """Advice for the error about a broken executor; "" if only one task is lost."""
        if self.traits.survives:
            return ""
        return " (executor='process' would lose a single task)"

    def observe(self) -> PoolState:
        """The state of the executor now."""
        if self.traits.measures:
            state: PoolState = self._inner.observe()  # type: ignore[attr-defined]
            return state
        return PoolState(
            workers=self.slots or 0, kills=0, evictions=0, need=None, shared_memory=0
        )

    def close(self, *, interrupted: bool) -> None:
        """Shut the executor down, if it was made here; after Ctrl-C without waiting."""
        if not self._owned:
            return
        if interrupted:
            # As a `with` block does after Ctrl-C: do not wait for running tasks.
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
