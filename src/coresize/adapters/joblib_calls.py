"""joblib's batches of calls, on their way to a worker.

joblib's own workers import no main module, and what a program defines there is sent by
value; programs for joblib rely on it, and some have no guard. So it is here.

Unpickling a batch imports this module, which registers the backend in the worker: tasks
may name it.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from joblib import register_parallel_backend

from coresize.processes import transfer


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAME = "coresize"


class Batch:
    """A batch of calls, which is pickled by value.

    Args:
        calls: joblib's batch.

    Attributes:
        func: the first function of the batch, for what a pool learns about functions.
    """

    def __init__(self, calls: Callable[[], Any]) -> None:
        self.calls = calls
        items = getattr(calls, "items", None)
        self.func = items[0][0] if items else calls

    def __call__(self) -> Results:
        """Make the calls."""
        return Results(self.calls())

    def __repr__(self) -> str:
        return f"a batch of calls of {self.func!r}"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        try:
            content = transfer.dump(self.calls, self.func, by_value=True)
        except transfer.TransferError as error:
            msg = f"could not pickle the task to send to a worker: {error}"
            raise transfer.TransferError(msg) from None
        return _load_batch, (content,)


class Results:
    """The results of a batch, which go back by value; unpickling gives the list."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        return _load, (transfer.dump(self.values, "a result", by_value=True),)


def _load_batch(content: bytes) -> Batch:
    return Batch(pickle.loads(content))  # noqa: S301 - the parent's own


def _load(content: bytes) -> object:
    return pickle.loads(content)  # noqa: S301 - of our own worker


def _backend(**options: Any) -> object:
    from coresize.adapters.joblib import CoresizeBackend

    return CoresizeBackend(**options)


register_parallel_backend(NAME, _backend)
