"""Objects that are put into shared memory once, for many pools and batches.

**Two ways to a worker.** A pool of coresize passes the segments of the share with each
call that uses it, as it does with any large buffer. Every other pickler writes a
reference: the process that has made the share, and its descriptors. The reader opens
/proc/PID/fd/N, and compares the identity of the file with that in the reference, since
the process may be gone, and its number may belong to another one. So a reference needs
no name in any folder, and nothing is left behind.

**Lifetime.** A share ends with its `with` block: then no new reader can open it. Tasks
that are under way, and arrays that somebody holds, keep the memory until they are gone.
"""

from __future__ import annotations

import os
import secrets
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from coresize import processes
from coresize.errors import ConfigError
from coresize.executor.sharing import SHARE_FROM, check, fits, sharing
from coresize.processes import buffers, segments
from coresize.processes.transfer import TransferError


if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self, TypeAlias

    from coresize.processes.buffers import Packed
    from coresize.processes.copies import Folder

    #: The device, the inode and the size of a file.
    Identity: TypeAlias = tuple[int, int, int]
    #: What a reference holds: see `_reference`.
    Reference: TypeAlias = tuple[Any, ...]

T = TypeVar("T")

#: The number of the running kernel; another host has another one (random(4)).
_BOOT = "/proc/sys/kernel/random/boot_id"

#: The shares that are open in this process, by their keys.
_open: weakref.WeakValueDictionary[str, Shared[Any]] = weakref.WeakValueDictionary()


class Shared(Generic[T]):
    """An object in memory that processes share; `coresize.share` makes it.

    Attributes:
        nbytes: the bytes of the object, as it is pickled.
    """

    __slots__ = (
        *("__weakref__", "_key", "_load", "_packed", "_reference", "_value"),
        "nbytes",
    )

    def __init__(self, key: str, nbytes: int, load: Callable[[], T]) -> None:
        self._key = key
        self.nbytes = nbytes
        self._load: Callable[[], T] | None = load
        self._packed: Packed | None = None
        self._reference: Reference | None = None
        self._value: list[T] = []
        _open[key] = self

    @property
    def value(self) -> T:
        """The object; its arrays lie in the shared memory, and are read only.

        Raises:
            ValueError: the share is closed.
        """
        if self._load is None:
            msg = "the share is closed: use its value inside of the with block"
            raise ValueError(msg)
        if not self._value:
            self._value.append(self._load())
        return self._value[0]

    def close(self) -> None:
        """End the share: the memory is freed when the last task has ended."""
        self._load = self._packed = self._reference = None
        self._value = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._load is None else f"{self.nbytes} bytes"
        return f"<share: {state}>"

    def __reduce__(self) -> tuple[Callable[..., Shared[Any]], tuple[Any, ...]]:
        if self._reference is None:
            return _held, (self._key, self.nbytes, self.value)
        is_owner = self._reference[1] == processes.own()
        if is_owner and self._packed is not None and buffers.current():
            return _received, (self._reference, *self._packed.parts())
        return _opened, (self._reference,)


def share(obj: T, spill: str | os.PathLike[str] | None = None) -> Shared[T]:
    """Put an object into shared memory once, for many tasks, pools and batches.

    The result can be an argument of a task, or a part of one. In the worker, its
    attribute ``value`` is the object. Arrays in it are read only, and no worker has a
    copy of its own. It works in the pools of coresize, and in those of other libraries
    whose workers run on this host.

    Args:
        obj: the object.
        spill: an existing folder, for an unnamed file that takes the object if it does
            not fit into memory.

    Raises:
        ConfigError: ``spill`` is no folder.
        InsufficientMemoryError: the object does not fit into the memory that is left.
        OSError: the memory or the file cannot be made.
        TransferError: the object cannot be pickled.

    >>> from functools import partial
    >>> from coresize import ProcessPoolExecutor, share
    >>> with share(bytes(1_000_000)) as shared, ProcessPoolExecutor(2) as pool:
    ...     pool.submit(len, shared.value).result(), shared.nbytes > 1_000_000
    (1000000, True)
    """
    if spill is not None and not os.path.isdir(spill):  # noqa: PTH112 - one question
        raise ConfigError("spill", spill, "a folder that exists")

    def bound(fresh: int) -> Folder:
        if spill is None:
            check(fresh, "the share does not fit into memory")
            return None
        return None if fits(fresh) else spill

    packed, nbytes = sharing(SHARE_FROM, None).pack_whole(obj, bound)
    key = secrets.token_hex(8)
    if packed is None:
        return _held(key, nbytes, obj)
    packed.know()
    shared: Shared[T] = Shared(key, nbytes, packed.load)
    shared._packed = packed  # noqa: SLF001 - of this module
    shared._reference = _reference(key, nbytes, packed)  # noqa: SLF001 - likewise
    return shared


def _reference(key: str, nbytes: int, packed: Packed) -> Reference:
    """How another process finds a share: its key, the process, bytes and segments.

    Each segment has its descriptor and the identity of its file; each piece has the
    number of its segment, its offset and its size.
    """
    numbers = {segment: number for number, segment in enumerate(packed.segments)}
    files = tuple((each, _identity(each)) for each in packed.descriptors)
    pieces = tuple(
        (numbers[piece.segment], piece.offset, piece.size, piece.place)
        for piece in packed.pieces
    )
    return key, processes.own(), _boot(), nbytes, files, packed.content, pieces


def _identity(descriptor: int) -> Identity:
    told = os.fstat(descriptor)
    return told.st_dev, told.st_ino, told.st_size


def _boot() -> str:
    try:
        with open(_BOOT, encoding="ascii") as file:  # noqa: PTH123 - one line
            return file.read().strip()
    except OSError:
        return ""


def _held(key: str, nbytes: int, value: T) -> Shared[T]:
    """A share that holds the object itself: it is small, or there are no segments."""
    return _open.get(key) or Shared(key, nbytes, lambda: value)


def _received(
    reference: Reference, content: Any, places: tuple[int, ...], *found: Any
) -> Shared[Any]:
    """A share whose segments have come with the call."""
    return _of_reader(reference, lambda: buffers.rebuild(content, places, *found))


def _opened(reference: Reference) -> Shared[Any]:
    """A share of a reference, whose segments are opened.

    Raises:
        TransferError: the process that has made it is gone, or cannot be reached.
    """
    key, pid, boot, _, files, content, pieces = reference
    known = _open.get(key)
    if known is not None:
        return known
    written = buffers.written(pieces)
    try:
        views = [
            _map(pid, *file, writable=number in written)
            for number, file in enumerate(files)
        ]
    except OSError as error:
        where = "" if boot == _boot() else ", which runs on another host"
        msg = (
            f"the share of process {pid}{where} cannot be opened ({error}): use it "
            "inside of its with block, and on the host and in the container of that "
            "process"
        )
        raise TransferError(msg) from None
    rows = buffers.cut(pieces, views)
    return _of_reader(reference, lambda: buffers.load(content, rows))


def _map(pid: int, number: int, identity: Identity, *, writable: bool) -> memoryview:
    """Map a file that another process has open; changes are those of this process.

    Raises:
        OSError: the process is gone, or has closed the file.
    """
    path = f"/proc/{pid}/fd/{number}"
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _identity(descriptor) != identity:
            msg = f"{path} is another file"
            raise FileNotFoundError(msg)
        return segments.attach(descriptor, identity[2], writable=writable)
    finally:
        os.close(descriptor)


def _of_reader(reference: Reference, load: Callable[[], T]) -> Shared[T]:
    key, _, _, nbytes, *_ = reference
    known = _open.get(key)
    if known is not None:
        return known
    shared = Shared(key, nbytes, load)
    shared._reference = reference  # noqa: SLF001 - of this module
    return shared
