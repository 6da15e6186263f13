"""Saving profiles to files and loading them, by name or by path."""

from __future__ import annotations

import json
import logging
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from coresize import storage
from coresize.errors import ConfigError
from coresize.planning.profiles import from_table
from coresize.planning.values import OF_HISTORY


if TYPE_CHECKING:
    from coresize.model import Notice
    from coresize.planning.profiles import TaskProfile

_log = logging.getLogger("coresize")


def save_profile(profile: TaskProfile, name: str | os.PathLike[str]) -> str:
    """Write a profile under a name, and return the path of the file.

    Args:
        profile: the profile to write.
        name: a name, for a file in the user's state folder; or the path of a file
            that ends in ``.toml`` or ``.json``.

    Raises:
        ConfigError: the name is not valid, or the file cannot be written.

    >>> import os, tempfile
    >>> from coresize import TaskProfile, load_profile, save_profile
    >>> path = os.path.join(tempfile.mkdtemp(), "align.toml")
    >>> save_profile(TaskProfile(peak_memory="1.5G"), path) == path
    True
    >>> load_profile(path).peak_memory
    1500000000
    """
    check_name(name)
    try:
        path = _path(name)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _unusable(name, error) from None
    fields = {k: v for k, v in profile.as_dict().items() if v is not None}
    if path.endswith(".json"):
        text = json.dumps(fields, indent=2)
    else:
        # TOML writes numbers, texts and lists of numbers as JSON does.
        lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
        text = "\n".join(["# What one task needs: coresize, TaskProfile", *lines])
    try:
        storage.replace(path, text + "\n")
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise _unusable(name, error) from None
    return path


def check_name(name: str | os.PathLike[str], where: str = "profile") -> None:
    """Check that a profile can be saved under a name, and found again.

    Args:
        name: the name or path, as for `save_profile`.
        where: the argument that holds the name, for messages.

    Raises:
        ConfigError: the name is not valid.

    >>> check_name("align-2"), check_name("profiles/align.toml")
    (None, None)
    """
    text = os.fspath(name)
    if _is_path(text):
        good = Path(text).suffix in _SUFFIXES and not text.startswith(OF_HISTORY)
    else:
        good = text[:1].isalnum() and ":" not in text
    # A surrogate stands for a byte of the file name that is not UTF-8.
    shown = os.fsencode(text).decode("utf-8", "replace") if good else ""
    if not (good and shown.isprintable()):
        raise ConfigError(where, text, _NAMES)


_SUFFIXES = (".toml", ".json")
_NAMES = (
    "a name that begins with a letter or a digit and has no colon, such as align-2, or "
    "the path of a .toml or .json file"
)


def load_profile(name: str | os.PathLike[str]) -> TaskProfile:
    """The profile that was saved under a name, or that a TOML or JSON file holds.

    Raises:
        ConfigError: there is no such profile, or the file is not valid.
    """
    path = str(name)
    try:
        path = _path(name)
        text = storage.read(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        if isinstance(error, UnicodeError):
            raise ConfigError("profile", path, str(error)) from None
        allowed = f"the name of a profile, in a file or the settings ({error})"
        raise ConfigError("profile", name, allowed) from None
    try:
        table = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("profile", path, f"valid TOML or JSON ({error})") from None
    if not isinstance(table, dict):
        raise ConfigError("profile", path, "a table of keys and values")
    notes: list[Notice] = []
    profile = from_table(table, path, notes)
    for note in notes:
        _log.warning("%s", note)
    return profile


def _path(name: str | os.PathLike[str]) -> str:
    text = os.fspath(name)
    if not text:
        raise ConfigError("profile", text, "a name or a path")
    if _is_path(text):
        return text
    return storage.state_path("profiles", f"{text}.toml")


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).suffix in _SUFFIXES


def _unusable(name: object, error: Exception) -> ConfigError:
    if isinstance(error, ConfigError):
        return error
    return ConfigError("profile", name, f"a file to write ({error})")


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
