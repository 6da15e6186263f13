"""The files that coresize keeps for a user: where they are, and writing them whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path

from coresize.errors import ConfigError
from coresize.host import Live
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
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


def is_file(path: str) -> bool:
    """Whether there is such a file."""
    return Path(path).is_file()


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
        UnicodeDecodeError: the file is not UTF-8.
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
    return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


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


def read_input(path: str) -> str:
    """The text of an input of the user's, however long; a pipe as well.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    return Path(path).read_text(encoding="utf-8")


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


def temporary_folder() -> str:
    """Where temporary files go, by the rules of Python's tempfile.

    Raises:
        FileNotFoundError: no folder can be written to.
    """
    import tempfile

    return tempfile.gettempdir()


def write_scratch(folder: str, content: bytes) -> None:
    """Write a file that nobody needs, to the disk, and remove it.

    Raises:
        OSError: it cannot be written.
    """
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(content)


def suffix(path: str) -> str:
    """What the name of a file ends in, after its last dot."""
    return Path(path).suffix.removeprefix(".")


def has_folder(path: str) -> bool:
    """Whether the folder is there that a file is to be in."""
    return Path(path).parent.is_dir()


def size(path: str) -> int:
    """The bytes in a file; 0 where there is none."""
    file = Path(path)
    return file.stat().st_size if file.exists() else 0


def first_line(path: str) -> str:
    """How a file begins, as text."""
    with Path(path).open("rb") as file:
        return file.readline(4096).decode("utf-8", "replace")


def sqlite_code(error: Exception) -> int:
    """What kind of error SQLite tells of; 0 where it does not.

    The primary code is in the lower byte (SQLite, "Result and Error Codes").
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def append(path: str) -> TextIO:
    """A file to add text to; made, with its folder, where it is not there.

    Raises:
        OSError: it cannot be written.
    """
    make_folder_of(path)
    return Path(path).open("a", encoding="utf-8", errors="backslashreplace")


def real_path(path: str) -> str:
    """The path with all symbolic links resolved.

    Raises:
        OSError: the links form a loop.
    """
    try:
        return str(Path(path).resolve())
    except RuntimeError:  # Python 3.11 and 3.12
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None


def is_same(path: str, other: str) -> bool:
    """Whether two paths lead to one place, whatever they are called."""
    return real_path(path) == real_path(other)


def remove(path: str) -> None:
    """Remove a file, if it is there.

    Raises:
        OSError: it cannot be removed.
    """
    Path(path).unlink(missing_ok=True)


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


def make_folder_of(path: str) -> None:
    """Make the folder that a file is to be in, and those above it.

    Raises:
        OSError: it cannot be made.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
