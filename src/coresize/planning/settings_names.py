"""Other names of settings: those that users' files, programs and variables have.

Each is read as the setting that it means, with a note, so that a file which was written
for another program, or for an older coresize, goes on working.
"""

from __future__ import annotations

import contextlib

from coresize.errors import ConfigError
from coresize.model import Notice


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Other names, each with the setting that it means.
OTHER_NAMES = {
    "parallel_execution": "parallel",
    "run_parallel": "parallel",
    "multiprocessing": "parallel",
    **dict.fromkeys(
        (
            *("num_workers", "n_workers", "nworkers", "max_workers"),
            *("n_jobs", "num_jobs", "njobs", "jobs"),
            *("n_processes", "num_processes", "nprocesses", "processes"),
            *("n_procs", "num_procs", "nprocs", "nproc"),
        ),
        "workers",
    ),
}

#: Other names for what a task needs.
NEEDS = {"cpu": "cpus", "ram": "memory", "gpu": "gpus"}

#: Other names for the fields of a profile.
OF_PROFILES = {"most_workers": "max_workers"}


def known_name(name: str, others: Mapping[str, str] = OTHER_NAMES) -> str:
    """The setting that a name means; the name itself if it means none.

    >>> known_name("n-jobs"), known_name("reserve-cores"), known_name("cases")
    ('workers', 'reserve_cores', 'cases')
    """
    plain = name.replace("-", "_")
    return others.get(plain, plain)


def renamed(
    table: Mapping[str, object], where: str, others: Mapping[str, str] = OTHER_NAMES
) -> tuple[dict[str, object], dict[str, str]]:
    """A table with the names of settings, and the user's own name of each.

    Args:
        table: values by name.
        where: the file, function or level that holds the table, for messages.
        others: other names, each with the setting that it means.

    Raises:
        ConfigError: two names mean the same setting.
    """
    named: dict[str, object] = {}
    written: dict[str, str] = {}
    for name, value in table.items():
        known = known_name(name, others)
        if known in named:
            setting = f"{where}: {name}"
            allowed = f"one name of {known} alone: {written[known]} is there as well"
            raise ConfigError(setting, value, allowed)
        named[known], written[known] = value, name
    return named, written


@contextlib.contextmanager
def own_names(written: Mapping[str, str], where: str) -> Iterator[None]:
    """Give an error of the block the name that the user has written.

    Args:
        written: the user's own name of each setting.
        where: what errors of the block say of the place.
    """
    try:
        yield
    except ConfigError as error:
        name = error.setting.removeprefix(f"{where}: ")
        own = f"{where}: {written.get(name, name)}"
        raise ConfigError(own, error.value, error.allowed) from None


def notes(written: Mapping[str, str], where: str) -> list[Notice]:
    """A sentence about each name that is read as another."""
    return [
        Notice("other-name", f"{where}: {name} is read as {known}")
        for known, name in written.items()
        if name != known
    ]
