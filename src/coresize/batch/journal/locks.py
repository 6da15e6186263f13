"""The lock of a journal: it allows one writer for one file, under all its names.

A file has many names: relative paths, symbolic links, bind mounts, hard links. So a
writer holds two locks. Both belong to the system, which ends them with the process,
even if the process is killed:

1. Beside the real path, a second SQLite file is locked, since SQLite can lock files on
   every system, and on the network disks of clusters. `is_locked` looks at this lock. A
   lock of SQLite on the journal itself would keep readers out.
2. On Linux, the file itself (its inode) is locked by a lock of the open file (fcntl(2),
   F_OFD_SETLK): one byte far behind all that SQLite reads, writes or locks (its lock
   bytes are at 1 GiB, "File Locking And Concurrency In SQLite Version 3"). This lock
   covers hard links and bind mounts, which the real path does not reveal. On a file
   system without such locks, only the first lock is held.

A file system without any locks cannot hold a journal: two runs would write to it at the
same time. SQLite may tell that as a lock of another process; `storage.lock_refusal`
tells them apart.

The delicate part: when a process closes *any* descriptor of a file, the system drops
*all* POSIX locks that the process has on that file, even those of SQLite in the middle
of a commit. So this module never opens a file twice that this process has locked (it
looks in `_held`), and closes its descriptor after the connection that writes. A lock of
an open file also lives as long as any forked child that has inherited it. So a child
closes the descriptors that it inherits, which does not end the locks of its parent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import struct
import weakref
from pathlib import Path
from urllib.parse import quote

from coresize import storage
from coresize.batch.journal import schema
from coresize.errors import JournalError


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    #: The device and the inode, which identify a file under all its names.
    Inode: TypeAlias = tuple[int, int]

SUFFIX = ".lock"

#: Behind the end of any database: SQLite's largest has 2**48 bytes.
_BYTE = 2**62

#: Files that this process has locked, with the descriptor of each.
_held: dict[Inode, int] = {}

_HERE = "a run of this very program has it: read that to its end, or close()"
_ELSEWHERE = "another process is writing to it; wait, or take another file"


class Lock:
    """The right to write to a journal, until it is closed or the process ends.

    Args:
        path: the journal; it is created if it does not exist.

    Raises:
        JournalError: another run holds the lock, or the file system has no locks.
        sqlite3.Error: the file beside the journal cannot be locked.
        OSError: the journal cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        inode = _inode(path)
        if inode in _held:
            raise JournalError(path, _HERE)
        self._beside = _lock_beside(path)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o644)
            self._inode = _inode_of(os.fstat(self._file))
            if not _lock_file(self._file):
                os.close(self._file)
                raise JournalError(path, _ELSEWHERE)  # noqa: TRY301 - as of the other
        except BaseException:
            self._beside.close()
            raise
        _held[self._inode] = self._file
        # A journal that is dropped without being closed must not keep other runs out.
        self._release = weakref.finalize(self, _release, self._inode, self._file)
        self._release.atexit = False

    def is_removed(self) -> bool:
        """Whether the journal has no name left, so that no process can open it."""
        return (
            _held.get(self._inode) == self._file and not os.fstat(self._file).st_nlink
        )

    def close(self) -> None:
        """Unlock the journal. Call this after the journal itself is closed."""
        self._release()
        self._beside.close()


def _release(inode: Inode, file: int) -> None:
    """Close the descriptor, unless this is a forked child, which has closed it."""
    if _held.get(inode) == file:
        del _held[inode]
        os.close(file)


_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


def _inode(path: str) -> Inode | None:
    with contextlib.suppress(OSError):
        return _inode_of(Path(path).stat())
    return None


def _inode_of(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


def _lock_beside(path: str) -> sqlite3.Connection:
    """Lock the file beside the real path.

    Raises:
        JournalError: another process has it, or the file system has no locks.
    """
    lock = sqlite3.connect(
        storage.real_path(path) + SUFFIX,
        isolation_level=None,
        timeout=0,
        check_same_thread=False,
    )
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if why := schema.without_locks(path, error):
            raise JournalError(path, why) from None
        if storage.sqlite_code(error) != sqlite3.SQLITE_BUSY:
            raise
        raise JournalError(path, _ELSEWHERE) from None
    return lock


#: The errors of a lock that another process holds; others mean "not supported".
_TAKEN = (errno.EAGAIN, errno.EACCES)


def _lock_file(file: int) -> bool:
    """Lock the inode of an open file; returns False if another process locks it."""
    try:
        import fcntl

        command = fcntl.F_OFD_SETLK
    except (ImportError, AttributeError):  # no POSIX, or no Linux
        return True
    # struct flock: l_type, l_whence, l_start, l_len, l_pid, which must be 0.
    wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)
    try:
        fcntl.fcntl(file, command, wanted)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def _forget_inherited() -> None:
    """In a forked child, close the descriptors that the parent has locked."""
    for file in _held.values():
        with contextlib.suppress(OSError):
            os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)


def is_locked(path: str) -> bool:
    """Whether a run has a journal open for writing; this leaves no file or lock behind.

    Args:
        path: the journal.
    """
    lock = storage.real_path(path) + SUFFIX
    if not Path(lock).is_file():
        return False
    # mode=rw: a file that has been removed meanwhile is not created again.
    uri = f"file:{quote(os.fsencode(lock))}?mode=rw"
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
        ) as file:
            file.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        is_busy = storage.sqlite_code(error) == sqlite3.SQLITE_BUSY
        return is_busy and not storage.lock_refusal(lock, error)
    return False
