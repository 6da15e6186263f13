"""joblib's batches of calls, on their way to a worker.

joblib's own workers import no main module, and what a program defines there is sent by
value; programs for joblib rely on it, and some have no guard. So it is here.

Unpickling a batch imports this module, which registers the backend in the worker: tasks
may name it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from joblib import register_parallel_backend

from coresize.processes import buffers, transfer
from coresize.processes.buffers import Apart


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAME = "coresize"


class Batch:
    """A batch of calls, which is pickled by value.

    Args:
        calls: joblib's batch.
        scope: the call of `joblib.Parallel` that the batch belongs to. As with joblib's
            own backends, an array that several batches share must not change before the
            call returns.

    Attributes:
        func: the first function of the batch, for what a pool learns about functions.
    """

    def __init__(self, calls: Callable[[], Any], scope: object = None) -> None:
        self.calls = calls
        self._scope = scope
        items = getattr(calls, "items", None)
        self.func = items[0][0] if items else calls

    def __call__(self) -> Results:
        """Make the calls."""
        return Results(self.calls())

    def __repr__(self) -> str:
        return f"a batch of calls of {self.func!r}"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        outer = buffers.current()
        if outer is not None:
            outer.scope = self._scope
        try:
            return _load_batch, _by_value(self.calls, self.func)
        except transfer.TransferError as error:
            msg = f"could not pickle the task to send to a worker: {error}"
            raise transfer.TransferError(msg) from None


class Results:
    """The results of a batch, which go back by value; unpickling gives the list."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return buffers.rebuild, _by_value(self.values, "a result")


def _by_value(message: object, function: object) -> tuple[Any, ...]:
    """The arguments of `buffers.rebuild` for a message that is pickled by value.

    Raises:
        TransferError: the message cannot be pickled.
    """
    outer = buffers.current()
    apart = None if outer is None else Apart(outer.least)
    content = transfer.dump_within(
        message, function, sys.maxsize, by_value=True, apart=apart
    )
    assert content is not None
    return apart.parts(content) if apart else (content, ())


def _load_batch(*parts: Any) -> Batch:
    return Batch(buffers.rebuild(*parts))


def _backend(**options: Any) -> object:
    from coresize.adapters.joblib import CoresizeBackend

    return CoresizeBackend(**options)


register_parallel_backend(NAME, _backend)
