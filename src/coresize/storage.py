"""The files that coresize keeps for a user, as far as pathlib does not suffice.

This module knows where the files are, writes them whole or not at all, refuses paths
that are not plain files, and has the common parts of all SQLite files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path

from coresize import texts
from coresize.errors import ConfigError, CoresizeError
from coresize.host import Live
from coresize.model import Value


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from typing import TextIO


def check_path(name: str, path: str | bytes | os.PathLike[str]) -> str:
    """Check a path that a caller passed, and return it as text.

    Args:
        name: the name of the argument, option or setting.
        path: the path.

    Raises:
        ConfigError: the path is empty, perhaps from an unset variable, or no file can
            have that name.

    >>> check_path("journal", "out.sqlite")
    'out.sqlite'
    >>> check_path("journal", "")
    Traceback (most recent call last):
    ...
    coresize.errors.ConfigError: journal='' is not valid: use a path; it is empty: is \
a variable not set?
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise ConfigError(name, path, "a path") from None
    if not text:
        allowed = "a path; it is empty: is a variable not set?"
        raise ConfigError(name, text, allowed)
    if "\0" in text:
        raise ConfigError(name, text, "a path without NUL characters")
    return text


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda _mode: True, "a device"),
)


def oddity(path: str) -> str | None:
    """The kind of an existing path that is not a plain file, such as "a pipe"; or None.

    Raises:
        OSError: the path cannot be examined.
    """
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISREG(mode) else _kind(mode)


def _kind(mode: int) -> str:
    return next(name for is_kind, name in _KINDS if is_kind(mode))


#: The most bytes of a settings, profile or status file.
_LONGEST = 64 * 1024**2


def read(path: str) -> str:
    """The text of a plain file; does not wait for a pipe.

    Raises:
        OSError: the file cannot be read, is not a plain file, or is far too long.
        UnicodeError: the file is not UTF-8, or has NUL characters.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(file, "rb") as content:  # noqa: PTH123 - it is open already
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            text = f"it is {_kind(status.st_mode)}, and no plain file"
            raise OSError(errno.EINVAL, text, path)
        data = content.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return texts.decode(data).replace("\r\n", "\n").replace("\r", "\n")


def read_named(path: str) -> str:
    """The text of a file that a user has named; non-UTF-8 bytes become surrogates.

    Raises:
        OSError: the file cannot be read, or is a pipe or a socket.
    """
    with contextlib.suppress(ValueError):  # a NUL character: reading reports it
        kind = oddity(path)
        if kind in ("a pipe", "a socket"):
            raise OSError(errno.EINVAL, f"it is {kind}, and no plain file", path)
    return Live().read(path)


def replace(path: str, text: str) -> None:
    """Write a file whole or not at all.

    An existing path that is not a plain file, such as a pipe, is written directly.

    Raises:
        OSError: the file cannot be written.
    """
    if oddity(path):
        Path(path).write_text(text, encoding="utf-8")
        return
    with replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[TextIO]:
    """A new file that replaces the file at the path after the block has succeeded.

    It gets the mode of the old file, so that private files stay private; without an old
    file, the umask applies. If the path is a link, its target is replaced.

    Raises:
        OSError: the file cannot be written, or the path is not a plain file; the old
            file is unchanged.
    """
    target = Path(real_path(path))
    kind = oddity(path)
    if kind:
        raise OSError(errno.EINVAL, f"it is {kind}, and no plain file", path)
    beside = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        # File names in the text that are not UTF-8 are written with escapes.
        with open(
            beside,
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            newline="",
            opener=_opener_like(target),
        ) as file:
            yield file
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _opener_like(target: Path) -> Callable[[str, int], int]:
    """An opener that makes a file with the mode and, if possible, owner of another."""
    try:
        like = target.stat()
    except FileNotFoundError:
        return lambda path, flags: os.open(path, flags | os.O_EXCL, 0o666)

    def opener(path: str, flags: int) -> int:
        file = os.open(path, flags | os.O_EXCL, 0o600)
        if hasattr(os, "fchown"):
            with contextlib.suppress(OSError):  # only root may give files away
                os.fchown(file, like.st_uid, like.st_gid)
            os.fchmod(file, stat.S_IMODE(like.st_mode))
        return file

    return opener


class Space(Value):
    """The space of a file system in bytes.

    Attributes:
        total: the whole space.
        free: the space that this user may still fill.
    """

    total: int
    free: int


def space(path: str) -> Space | None:
    """The space of the file system of a folder; None if there is no such folder."""
    import shutil

    try:
        if not Path(path).is_dir():  # disk_usage() also accepts a file
            return None
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return Space(total=usage.total, free=usage.free)


def real_path(path: str) -> str:
    """The path with all symbolic links resolved.

    Raises:
        OSError: the links form a loop.
    """
    try:
        return str(Path(path).resolve())
    except RuntimeError:  # Python 3.11 and 3.12
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None


def state_path(*names: str) -> str:
    """A path in the user's folder for state, by the rules of the platform.

    ``$XDG_STATE_HOME`` or ``~/.local/state`` (XDG Base Directory Specification),
    ``~/Library/Application Support`` on macOS, ``%LOCALAPPDATA%`` on Windows.

    Raises:
        OSError: the user has no home folder.
    """
    if sys.platform == "win32":
        variable, default = "LOCALAPPDATA", "~/AppData/Local"
    elif sys.platform == "darwin":
        variable, default = "", "~/Library/Application Support"
    else:
        variable, default = "XDG_STATE_HOME", "~/.local/state"
    named = Live().variables(frozenset({variable})).get(variable)
    try:
        folder = Path(named) if named else Path(default).expanduser()
    except RuntimeError as error:  # a user without a home folder
        raise OSError(errno.ENOENT, str(error)) from None
    return str(folder.joinpath("coresize", *names))


# -----------------------------------------------------------------------------
# SQLite, which is imported where it is used: programs without such a file may lack it.


def sqlite_code(error: Exception) -> int:
    """The primary SQLite code of an error; 0 if the error is not SQLite's.

    The primary code is in the lower byte (SQLite, "Result and Error Codes").
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextlib.contextmanager
def sqlite_errors(
    explain: Callable[[Exception, int], CoresizeError],
) -> Iterator[None]:
    """Replace the errors of an SQLite file by errors of our own.

    The replaced errors are those of SQLite, of the operating system, and those that
    damaged content leads to.

    Args:
        explain: a function that makes the error to raise, from the original error and
            its `sqlite_code`.
    """
    import sqlite3

    try:
        yield
    except CoresizeError:
        raise
    except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
        raise explain(error, sqlite_code(error)) from error


#: The primary codes of SQLite's errors about locks. SQLite reports some refusals of a
#: file system as if another process held the lock (os_unix.c,
#: sqliteErrorFromPosixError: ENOLCK becomes SQLITE_BUSY), others as an error of the
#: disk (ENOSYS and EOPNOTSUPP: SQLITE_IOERR_LOCK), and EPERM as SQLITE_PERM.
_OF_LOCKS = ("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_PERM", "SQLITE_PROTOCOL")

#: The most milliseconds to wait for a process that has an SQLite file.
_BUSY = 60_000


def connect(path: str) -> sqlite3.Connection:
    """Open an SQLite file whose locks may be waited for, for 60 s at most.

    Where the file system has no locks, the error comes at once.

    Raises:
        sqlite3.Error: the file cannot be used.
    """
    import sqlite3

    file = sqlite3.connect(path, timeout=0)
    try:
        try:
            file.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError as error:
            if lock_refusal(path, error):
                raise
        file.execute(f"PRAGMA busy_timeout = {_BUSY}")
    except BaseException:
        file.close()
        raise
    return file


def lock_refusal(path: str, error: Exception) -> str:
    """A sentence that says that the file system has no locks, if an error tells so.

    Network file systems without a lock service, and some of containers, virtual
    machines and FUSE, refuse locks. To tell that from a lock that another process
    holds, a new file beside is locked, which no other process knows.

    Args:
        path: the SQLite file.
        error: an error about that file.

    Returns:
        The sentence; empty if the error tells of something else, or if no new file can
        be made.
    """
    import sqlite3

    codes = [getattr(sqlite3, name) for name in _OF_LOCKS]
    if sqlite_code(error) not in codes:
        return ""
    beside = Path(f"{path}.{os.urandom(4).hex()}")
    try:
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return ""
    try:
        if hasattr(fcntl, "lockf"):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as refused:
        folder = Path(path).parent
        return (
            f"the file system of {folder} does not support locks ({refused.strerror})"
        )
    finally:
        os.close(file)
        beside.unlink(missing_ok=True)
    return ""


#: The most keys to keep in memory; with more, all keys are kept in a file.
_KEPT = 50_000


class SeenKeys:
    """The keys seen so far, each with the place where it was first seen.

    Many keys are kept in a file that SQLite removes by itself, so that even a million
    keys take little memory.
    """

    def __init__(self) -> None:
        self._few: dict[str, int] = {}
        self._file: sqlite3.Connection | None = None

    def add(self, key: str, place: int) -> int | None:
        """Add a key; returns the place where it was first seen, or None if it is new.

        >>> seen = SeenKeys()
        >>> seen.add("a", 0), seen.add("b", 1), seen.add("a", 2)
        (None, None, 0)
        """
        if self._file is None:
            if key in self._few:
                return self._few[key]
            if len(self._few) < _KEPT:
                self._few[key] = place
                return None
            self._file = self._move_to_file()
        if self._file.execute(_ADD_KEY, (key, place)).rowcount:
            return None
        row: tuple[int] = self._file.execute(_FIND_KEY, (key,)).fetchone()
        return row[0]

    def _move_to_file(self) -> sqlite3.Connection:
        import sqlite3

        file = sqlite3.connect("", check_same_thread=False)
        file.execute(
            "CREATE TABLE seen (key TEXT PRIMARY KEY, place INTEGER) WITHOUT ROWID"
        )
        file.executemany(_ADD_KEY, self._few.items())
        self._few.clear()
        return file

    def close(self) -> None:
        """Forget the keys."""
        if self._file is not None:
            self._file.close()


_ADD_KEY = "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING"
_FIND_KEY = "SELECT place FROM seen WHERE key = ?"
