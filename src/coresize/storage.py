"""The files that coresize keeps for a user: where they are, and writing them whole."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from coresize.host import Live
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


def is_file(path: str) -> bool:
    """Whether there is such a file."""
    return Path(path).is_file()


def read(path: str) -> str:
    """The text of a file.

    Raises:
        OSError: it cannot be read.
    """
    return Path(path).read_text(encoding="utf-8")


def replace(path: str, text: str) -> None:
    """Write a file whole or not at all.

    What is there and is no plain file, such as a pipe, is written as it is.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    with replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[TextIO]:
    """A file beside another, which takes its place when it is whole.

    Raises:
        OSError: it cannot be written; the other is as it was.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        # Names of files that are no UTF-8 are written with escapes.
        with beside.open(
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as file:
            yield file
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


class Space(Value):
    """The space of a file system in bytes.

    Attributes:
        total: all of it.
        free: what this user may still fill.
    """

    __slots__ = ("total", "free")  # noqa: RUF023

    total: int
    free: int


def space(path: str) -> Space | None:
    """The space where a folder is; None where there is no such folder."""
    import shutil

    try:
        if not Path(path).is_dir():  # of a file the disk would be told
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
    return Path(path).open("a", encoding="utf-8")


def real_path(path: str) -> str:
    """Where a path leads, through every link on the way."""
    return str(Path(path).resolve())


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
        OSError: the user has no home.
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
    except RuntimeError as error:  # a user without a home
        raise OSError(errno.ENOENT, str(error)) from None
    return str(folder.joinpath("coresize", *names))


def make_folder_of(path: str) -> None:
    """Make the folder that a file is to be in, and those above it.

    Raises:
        OSError: it cannot be made.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
