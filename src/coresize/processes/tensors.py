"""How tensors of PyTorch are pickled: with their memory as a buffer of its own.

torch pickles the memory of a tensor, its *storage*, as a file within the pickle: with
several copies, and without a buffer that could travel apart. For multiprocessing it has
other reducers, which move the caller's own tensor into shared memory, where the caller
and all workers see what any of them writes. Here, storages on the CPU are buffers
(PEP 574). All else of a tensor, its view of the storage as well as its type and its
gradient, is pickled as torch does. Tensors that share a storage share it afterwards.

No tensor is read only. So the reader gets memory to which it may write, and which is
copied page by page when it does.

torch is not imported here: there are no tensors in a program that has not imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from coresize.processes import buffers, segments


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: The reducers by type, once torch is imported.
_reducers: dict[type, Callable[[Any], Any]] = {}


def reducers() -> dict[type, Callable[[Any], Any]]:
    """The reducers by type: one object, which is empty as long as torch is missing."""
    if not _reducers and "torch" in sys.modules:
        _reducers.update(_of(sys.modules["torch"]))
    return _reducers


def _of(torch: Any) -> dict[type, Callable[[Any], Any]]:
    """The reducers of the types of torch; none while it is still being imported."""
    try:
        return {
            torch.storage.UntypedStorage: _reduce_storage,
            torch.storage.TypedStorage: _reduce_typed,
            # In place of those that torch has registered for multiprocessing.
            torch.nn.Parameter: _reduce_plainly,
            torch.Tensor: _reduce_plainly,
        }
    except AttributeError:
        return {}


def _reduce_plainly(value: Any) -> Any:
    return value.__reduce_ex__(2)


def _reduce_storage(storage: Any) -> Any:
    if not _has_memory(storage):
        return storage.__reduce__()
    view = segments.view_at(storage.data_ptr(), storage.nbytes(), storage)
    return _storage, (buffers.for_writing(view),)


def _has_memory(storage: Any) -> Any:
    """Whether a storage has memory that a process can read: not that of a GPU."""
    return storage.device.type == "cpu" and storage.nbytes() > 0


def _storage(buffer: Any) -> Any:
    import torch

    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


def _reduce_typed(storage: Any) -> Any:
    untyped = storage._untyped_storage  # noqa: SLF001 - the public names warn
    if not _has_memory(untyped):
        return storage.__reduce__()
    return _typed, (untyped, storage.dtype)


def _typed(untyped: Any, dtype: Any) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)
