"""What a pool of processes was asked to be, checked once."""

from __future__ import annotations

from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from typing import Any


class Setup(Value):
    """How workers are made, and what bounds their tasks.

    Attributes:
        max_workers: at most so many.
        context: how processes are started.
        forks: they are forked from this very process.
        initializer: what each worker calls first, or None.
        initargs: its arguments.
        max_tasks: how many tasks a worker ends before it is replaced, or None.
        environment: variables that each worker has from its start.
        measured: memory is asked for, so each worker tells the peak of each task.
        timeout: seconds that a task may take, or None.
        oom_retries: how often a task that was killed for memory is run again.
    """

    __slots__ = (  # noqa: RUF023
        "max_workers",
        "context",
        "forks",
        "initializer",
        "initargs",
        "max_tasks",
        "environment",
        "measured",
        "timeout",
        "oom_retries",
    )

    max_workers: int
    context: BaseContext
    forks: bool
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks: int | None
    environment: dict[str, str]
    measured: bool
    timeout: float | None
    oom_retries: int
