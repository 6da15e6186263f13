"""Segments: memory that several processes share, without a name in any folder.

A segment is a file in memory (memfd_create(2)). It is written once, sealed against
further changes, and then passed on as a descriptor. The kernel frees its memory when no
process has the descriptor open or the memory mapped, however the processes end; so a
kill leaves nothing behind, and the size of /dev/shm does not matter.

The memory is charged to the cgroup once, to the process that has written it first.
Ending another process does not free it. Resident sizes count it in each process that
has it mapped, as RssShmem.

**Private mappings.** Segments are mapped with MAP_PRIVATE. The pages are still shared
as long as nobody writes to them. The kernel before 6.7 refuses a shared mapping of a
sealed file, even one that is read only; and where writing is allowed, a process gets
its own copy of each page to which it writes.

**No mmap.mmap of the file.** Python's object keeps the descriptor open for as long as
the memory is mapped (before 3.13), so that a thousand results would take a thousand
descriptors. So the object is made of anonymous memory, and libc maps the file in its
place (MAP_FIXED). The mapping ends when the object is freed, with the last view of it;
a finalizer would end it too early, since the garbage collector calls those of weakref
before each `__del__` in a reference cycle, which may read the memory.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import weakref
from typing import TYPE_CHECKING

from coresize.processes import lines


try:
    import fcntl
    import mmap
except ImportError:  # Windows, a WebAssembly Python
    fcntl = mmap = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: The segments of this process.
_alive: weakref.WeakSet[Segment] = weakref.WeakSet()

#: The number of each segment that this process has made, and of each mapping.
_numbers = itertools.count(1)

#: The mappings of segments in this process, by numbers of their own: the size, and
#: whether it is memory.
_mapped: dict[int, tuple[int, bool]] = {}

#: Memory in which no segment could be mapped. It must not be unmapped: another thread
#: may have mapped something in its place.
_failed: list[mmap.mmap] = []

#: The flag MFD_NOEXEC_SEAL of memfd_create(2), which Python does not know yet. A kernel
#: with vm.memfd_noexec=2 refuses memory without it, others note its absence in the log.
_NOEXEC = 0x8

#: The flag MAP_FIXED of mmap(2), which Python does not know.
_FIXED = 0x10

#: Buffers begin at multiples of this number of bytes, as arrays like it.
ALIGNMENT = 64


class Segment:
    """Sealed memory, with the descriptor by which other processes map it.

    Args:
        end: the descriptor, which belongs to this object from now on.
        size: the bytes of the segment.
        is_memory: see below.

    Attributes:
        number: no other segment of this process has the same number.
        size: the bytes of the segment.
        is_memory: it is no file in a folder.
    """

    __slots__ = ("__weakref__", "_end", "_view", "is_memory", "number", "size")

    def __init__(self, end: lines.End, size: int, *, is_memory: bool) -> None:
        self.number = next(_numbers)
        self.size = size
        self.is_memory = is_memory
        self._end = end
        self._view: memoryview | None = None
        weakref.finalize(self, end.close).atexit = False
        _alive.add(self)

    @property
    def descriptor(self) -> int:
        """The descriptor; -1 in a fork of the process that has made the segment."""
        return self._end.number

    def view(self) -> memoryview:
        """The bytes, read only, mapped into this process at the first call.

        Raises:
            OSError: the segment cannot be mapped.
        """
        if self._view is None:
            self._view = attach(self.descriptor, self.size, writable=False)
        return self._view

    def copy(self) -> memoryview:
        """The bytes, for this process to write to: it gets pages of its own.

        Raises:
            OSError: the segment cannot be mapped.
        """
        if self.descriptor < 0:
            return memoryview(bytearray(self.view()))
        return attach(self.descriptor, self.size, writable=True)

    @property
    def mapped(self) -> memoryview | None:
        """The view, if the segment is mapped into this process."""
        return self._view


def count() -> int:
    """The number of segments of this process, each of which takes a descriptor."""
    return len(_alive)


def most_descriptors() -> int:
    """The most descriptors that this process may have open (ulimit -n)."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@functools.cache
def is_available() -> bool:
    """Whether this system has segments: Linux has, unless a sandbox refuses them."""
    if not hasattr(os, "memfd_create"):
        return False
    try:
        _libc()
        os.close(_open(None))
    except (AttributeError, ImportError):
        return False
    except OSError as error:  # descriptors or memory may be free again later
        return error.errno in _SCARCE
    return True


#: The errors of memfd_create(2) that say nothing about the system.
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def create(
    buffers: Sequence[memoryview], folder: str | os.PathLike[str] | None = None
) -> tuple[Segment, list[int]]:
    """Copy buffers into a new segment.

    Args:
        buffers: the buffers, each of contiguous bytes.
        folder: make an unnamed file in this folder instead of memory.

    Returns:
        The segment, and the offset of each buffer in it.

    Raises:
        OSError: the segment cannot be made: no descriptor is free, the kernel promises
            no more memory, or a limit holds for the size of files (``ulimit -f``).
    """
    offsets, size = [], 0
    for buffer in buffers:
        offsets.append(size)
        size += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
    with lines.lock:  # a process that is forked meanwhile must close its copy
        end = lines.keep(_open(folder))
    descriptor = end.number
    try:
        os.ftruncate(descriptor, size)
        for buffer, offset in zip(buffers, offsets, strict=True):
            _write(descriptor, buffer, offset)
        if folder is None:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
    except OSError as error:
        end.close()
        raise _advised(error.errno) from None
    except BaseException:
        end.close()
        raise
    return Segment(end, size, is_memory=folder is None), offsets


#: What to do about an error.
_ADVICE = {
    errno.EFBIG: "the limit for files holds for shared memory, too: raise it (ulimit "
    "-f), or remove it",
    errno.ENOMEM: "use less memory, or raise the limit of the address space (ulimit "
    "-v), if there is one",
    errno.ENOSPC: "the file system is full or, with vm.overcommit_memory=2, the kernel "
    "promises no more memory",
}


def _advised(number: int | None) -> OSError:
    """The error of a system call, with what to do about it."""
    text = os.strerror(number or 0)
    advice = _ADVICE.get(number or 0)
    return OSError(number, f"{text}: {advice}" if advice else text)


def _open(folder: str | os.PathLike[str] | None) -> int:
    if folder is not None:
        return _open_unnamed(folder)
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("coresize", flags | _NOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the kernel before 6.3
            raise
    return os.memfd_create("coresize", flags)


def _open_unnamed(folder: str | os.PathLike[str]) -> int:
    """Open a file without a name; where the file system has none, remove the name."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
    import tempfile  # few programs need it

    descriptor, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)  # noqa: PTH108 - no other process may open it
    return descriptor


def _write(descriptor: int, buffer: memoryview, offset: int) -> None:
    # write(2) is faster than copying into a mapping: the kernel neither clears the
    # pages first, nor has to handle a page fault for each of them.
    written = 0
    while written < buffer.nbytes:
        written += os.pwrite(descriptor, buffer[written:], offset + written)


def attach(
    descriptor: int, size: int, *, writable: bool, resident: bool = False
) -> memoryview:
    """Map a segment into this process; the mapping ends with the last view of it.

    Args:
        descriptor: the descriptor, which may be closed afterwards.
        size: the bytes of the segment.
        writable: this process may write; its changes are its own.
        resident: all pages are resident from the start, if the segment is memory: so
            what grows later in this process is its own.

    Raises:
        OSError: the segment cannot be mapped.
    """
    import ctypes

    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    is_memory, libc = _is_sealed(descriptor), _libc()
    place = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        mapping = mmap.mmap(-1, size, place, protection)
    except OSError as error:
        raise _advised(error.errno) from None
    view = memoryview(mapping)
    address, flags = address_of(view), mmap.MAP_PRIVATE | _FIXED
    if resident and is_memory:
        flags |= mmap.MAP_POPULATE
    # A mapping that may be written to would be populated by copies.
    found = libc.mmap(address, size, mmap.PROT_READ, flags, descriptor, 0)
    if found != address or (writable and libc.mprotect(address, size, protection)):
        _failed.append(mapping)
        raise _advised(ctypes.get_errno())
    number = next(_numbers)
    _mapped[number] = size, is_memory
    weakref.finalize(mapping, _mapped.pop, number).atexit = False
    return view if writable else view.toreadonly()


def _is_sealed(descriptor: int) -> bool:
    """Whether a descriptor is a sealed segment, and no file in a folder."""
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False


def view_at(address: int, size: int, owner: object) -> memoryview:
    """The bytes at an address.

    Args:
        address: the address of the first byte.
        size: the number of bytes, at least 1.
        owner: the object that they belong to, which lives as long as the view.
    """
    array = _array_at(address, size)
    array.owner = owner
    return memoryview(array).cast("B")[:size]


def _array_at(address: int, size: int) -> Any:
    return _array_type((size - 1).bit_length()).from_address(address)


@functools.cache
def _array_type(bits: int) -> Any:
    """The type of an array of bytes: few types, since a type takes 1 KiB."""
    import ctypes

    return ctypes.c_char * 2**bits


def read(descriptor: int, size: int, *, writable: bool) -> memoryview:
    """A copy of a segment, where it cannot be mapped.

    Raises:
        OSError: the segment cannot be read, or there is no memory.
    """
    try:
        view = memoryview(bytearray(size))
    except MemoryError:
        raise _advised(errno.ENOMEM) from None
    done = 0
    while done < size:
        step = os.preadv(descriptor, [view[done:]], done)
        if not step:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        done += step
    return view if writable else view.toreadonly()


def mapped() -> int:
    """The bytes of all segments of memory that are mapped into this process."""
    return sum(size for size, is_memory in list(_mapped.values()) if is_memory)


def address_of(view: memoryview) -> int:
    """The address of the first byte of a buffer."""
    import ctypes

    buffer = _buffer_type()()
    api = ctypes.pythonapi
    api.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    address: int = buffer.buf or 0
    api.PyBuffer_Release(ctypes.byref(buffer))
    return address


def equal(first: memoryview, second: memoryview) -> bool:
    """Whether two buffers of the same length hold the same bytes."""
    libc = _libc()  # memoryviews compare themselves item by item
    return not libc.memcmp(address_of(first), address_of(second), first.nbytes)


@functools.cache
def _libc() -> Any:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    number = ctypes.c_int
    libc.mmap.argtypes = [pointer, size, number, number, number, ctypes.c_long]
    libc.mmap.restype = pointer
    libc.mprotect.argtypes = [pointer, size, number]
    libc.memcmp.argtypes = [pointer, pointer, size]
    return libc


@functools.cache
def _buffer_type() -> Any:
    """The Py_buffer of Python's C API."""
    import ctypes

    pointer, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    fields = [
        ("buf", pointer),
        ("obj", pointer),
        ("len", size),
        ("itemsize", size),
        ("readonly", number),
        ("ndim", number),
        *((name, pointer) for name in ("format", "shape", "strides")),
        *((name, pointer) for name in ("suboffsets", "internal")),
    ]
    return type("Buffer", (ctypes.Structure,), {"_fields_": fields})


def _forget() -> None:
    """Forget the segments of the parent after a fork: their descriptors are closed."""
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
