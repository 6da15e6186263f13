"""Recorded machines, and a host that records the answers of another host.

Rule: an answer that a recorded host lacks is unknown, never the live machine's.
"""

from __future__ import annotations

import errno
import os

from coresize.host import Host, says
from coresize.model import override


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet


class Recorded(Host):
    """A recorded machine, built by a test or read from a host file."""

    platform: str

    def __init__(
        self,
        *,
        files: Mapping[str, str] | None = None,
        unreadable: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        affinity: AbstractSet[int] | None = None,
        cpu_count: int | None = None,
        physical_cores: int | None = None,
        memory: tuple[int | None, int | None] = (None, None),
        hostname: str | None = None,
        bound_nodes: AbstractSet[int] | None = None,
        open_files: int | None = None,
        user_tasks: int | None = None,
        calls: Mapping[str, str] | None = None,
        platform: str = "linux",
    ) -> None:
        self.files = dict(files or {})
        self.unreadable = dict(unreadable or {})
        self.env = dict(env or {})
        self.platform = platform
        self._affinity = affinity
        self._cpu_count = cpu_count
        self._physical_cores = physical_cores
        self._memory = memory
        self._hostname = hostname
        self._bound_nodes = bound_nodes
        self._open_files = open_files
        self._user_tasks = user_tasks
        self._calls = dict(calls or {})

    @override
    def read(self, path: str) -> str:
        if path in self.unreadable:
            number = getattr(errno, self.unreadable[path], errno.EIO)
            raise OSError(number, os.strerror(number), path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.files[path]

    @override
    def folders(self, path: str) -> list[str]:
        """The names of the folders in a folder, as far as their files are recorded."""
        start = f"{path.rstrip('/')}/"
        below = (
            file.removeprefix(start).partition("/")
            for file in (*self.files, *self.unreadable)
            if file.startswith(start)
        )
        return list(dict.fromkeys(name for name, slash, _ in below if slash))

    @override
    def variables(self, names: frozenset[str]) -> dict[str, str]:
        return {
            name: self.env[name]
            for name in names
            if name in self.env and says(name, self.env[name])
        }

    @override
    def names(self, prefix: str) -> list[str]:
        return [name for name in self.env if name.startswith(prefix)]

    @override
    def affinity(self) -> AbstractSet[int] | None:
        return self._affinity

    @override
    def cpu_count(self) -> int | None:
        return self._cpu_count

    @override
    def physical_cores(self) -> int | None:
        return self._physical_cores

    @override
    def memory(self) -> tuple[int | None, int | None]:
        return self._memory

    @override
    def hostname(self) -> str | None:
        return self._hostname

    @override
    def bound_nodes(self) -> AbstractSet[int] | None:
        return self._bound_nodes

    @override
    def open_files(self) -> int | None:
        return self._open_files

    @override
    def user_tasks(self) -> int | None:
        return self._user_tasks

    @override
    def calls(self) -> dict[str, str]:
        return self._calls

    @override
    def find_upward(self, names: tuple[str, ...]) -> list[str]:
        del names  # a recorded machine has no working directory
        return []

    @override
    def doubt(self, path: str) -> str | None:
        del path  # a recorded machine has no users
        return None


class Recording(Host):
    """A host that passes questions on to another host and notes every answer."""

    platform: str

    def __init__(self, host: Host) -> None:
        self.host = host
        self.platform = host.platform
        self.noted = Recorded(platform=host.platform)

    @override
    def read(self, path: str) -> str:
        try:
            text = self.host.read(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                name = errno.errorcode.get(error.errno or 0, "EIO")
                self.noted.unreadable[path] = name
            raise
        self.noted.files[path] = text
        return text

    @override
    def folders(self, path: str) -> list[str]:
        return self.host.folders(path)  # the files that are read below are noted

    @override
    def variables(self, names: frozenset[str]) -> dict[str, str]:
        values = self.host.variables(names)
        self.noted.env.update(values)
        return values

    @override
    def names(self, prefix: str) -> list[str]:
        return self.host.names(prefix)

    @override
    def affinity(self) -> AbstractSet[int] | None:
        self.noted._affinity = self.host.affinity()
        return self.noted._affinity

    @override
    def cpu_count(self) -> int | None:
        self.noted._cpu_count = self.host.cpu_count()
        return self.noted._cpu_count

    @override
    def physical_cores(self) -> int | None:
        self.noted._physical_cores = self.host.physical_cores()
        return self.noted._physical_cores

    @override
    def memory(self) -> tuple[int | None, int | None]:
        self.noted._memory = self.host.memory()
        return self.noted._memory

    @override
    def hostname(self) -> str | None:
        self.noted._hostname = self.host.hostname()
        return self.noted._hostname

    @override
    def bound_nodes(self) -> AbstractSet[int] | None:
        self.noted._bound_nodes = self.host.bound_nodes()
        return self.noted._bound_nodes

    @override
    def open_files(self) -> int | None:
        self.noted._open_files = self.host.open_files()
        return self.noted._open_files

    @override
    def user_tasks(self) -> int | None:
        self.noted._user_tasks = self.host.user_tasks()
        return self.noted._user_tasks

    @override
    def calls(self) -> dict[str, str]:
        self.noted._calls = self.host.calls()
        return self.noted._calls

    @override
    def find_upward(self, names: tuple[str, ...]) -> list[str]:
        # Not noted: the user's files are not part of the machine.
        return self.host.find_upward(names)

    @override
    def doubt(self, path: str) -> str | None:
        return self.host.doubt(path)
