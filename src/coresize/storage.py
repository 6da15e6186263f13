"""The files that coresize keeps for a user: where they are, and writing them whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def state_path(*names: str) -> str:
    """A path in the user's folder for state, by the rules of the platform.

    ``$XDG_STATE_HOME`` or ``~/.local/state`` (XDG Base Directory Specification),
    ``~/Library/Application Support`` on macOS, ``%LOCALAPPDATA%`` on Windows.
    """
    home = Path("~").expanduser()
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return str(folder.joinpath("coresize", *names))


def make_folder_of(path: str) -> None:
    """Make the folder that a file of coresize's own is to be in.

    Raises:
        OSError: it cannot be made.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
