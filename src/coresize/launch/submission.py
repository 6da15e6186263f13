"""A job of a cluster, handed to its scheduler, and kept for another start."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from coresize import storage
from coresize.errors import CoresizeError
from coresize.host import current
from coresize.texts import one_line


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

#: The file in the folder of the logs that holds the options of the job.
_FILE = "job.json"


def submit(words: Sequence[str], text: str) -> str:
    """Hand a job to a command on standard input; returns what the command prints.

    Args:
        words: the command line, such as ``sbatch --parsable``.
        text: the script or manifest.

    Raises:
        CoresizeError: the command is not here, or refuses the job.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the scheduler's own command
            words, input=os.fsencode(text), capture_output=True, check=False
        )
    except OSError as error:
        msg = (
            f"{words[0]} cannot be started: {error.strerror}; submit where the "
            "commands of the scheduler are installed, or leave --submit out"
        )
        raise CoresizeError(msg) from None
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace").strip())
        msg = f"{words[0]} refuses the job ({done.returncode}): {said}"
        raise CoresizeError(msg)
    return done.stdout.decode(errors="replace").strip()


def ask(words: Sequence[str]) -> str:
    """What a command of a scheduler prints; empty if it fails, or is not here."""
    try:
        done = subprocess.run(  # noqa: S603 - the scheduler's own command
            words, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.decode(errors="replace")


def make_folder(folder: str) -> None:
    """Create the folder of the logs.

    Slurm does not create it, and a job whose log cannot be opened fails without a word.

    Raises:
        CoresizeError: the folder cannot be created.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the folder of the logs, {folder}, cannot be created: {error.strerror}"
        raise CoresizeError(msg) from None


def keep(folder: str, options: Mapping[str, object]) -> None:
    """Keep the options of a job for ``--again``.

    Raises:
        CoresizeError: the file cannot be written.
    """
    path = f"{folder}/{_FILE}"
    try:
        storage.replace(path, json.dumps({**options}, indent=2) + "\n")
    except OSError as error:
        msg = f"the job cannot be kept in {path}: {error.strerror}"
        raise CoresizeError(msg) from None


def kept(folder: str) -> dict[str, Any]:
    """The options of a job that was kept; empty if there is none.

    Its command line is run, so the file must be of this user.

    Raises:
        CoresizeError: the file cannot be read, or has another content or owner.
    """
    path = f"{folder}/{_FILE}"
    try:
        content = json.loads(storage.read(path))
        doubt = current().doubt(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        msg = f"the job in {path} cannot be read: {error}"
        raise CoresizeError(msg) from None
    if doubt:
        msg = f"the job in {path} is not obeyed: {doubt}; --logs names another folder"
        raise CoresizeError(msg)
    if not isinstance(content, dict):
        msg = f"{path} holds no job of coresize shards: remove the file"
        raise CoresizeError(msg)
    return content
