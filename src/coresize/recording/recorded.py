"""Machines that are no live ones: written down, or asked with a note of every answer.

Rule: what a recorded host does not give is unknown, never the live machine's.
"""

from __future__ import annotations

import errno
import os

from coresize.host import says


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from coresize.host import Host


class Recorded:
    """A machine written down: as a test builds it, or a file gives it."""

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

    def read(self, path: str) -> str:
        """See `Host.read`. A file that is not given does not exist."""
        if path in self.unreadable:
            number = getattr(errno, self.unreadable[path], errno.EIO)
            raise OSError(number, os.strerror(number), path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.files[path]

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        """See `Host.variables`."""
        return {
            name: self.env[name]
            for name in names
            if name in self.env and says(name, self.env[name])
        }

    def names(self, prefix: str) -> list[str]:
        """See `Host.names`."""
        return [name for name in self.env if name.startswith(prefix)]

    def affinity(self) -> AbstractSet[int] | None:
        """See `Host.affinity`."""
        return self._affinity

    def cpu_count(self) -> int | None:
        """See `Host.cpu_count`."""
        return self._cpu_count

    def physical_cores(self) -> int | None:
        """See `Host.physical_cores`."""
        return self._physical_cores

    def memory(self) -> tuple[int | None, int | None]:
        """See `Host.memory`."""
        return self._memory

    def hostname(self) -> str | None:
        """See `Host.hostname`."""
        return self._hostname

    def find_upward(self, names: tuple[str, ...]) -> list[str]:
        """See `Host.find_upward`. A recorded machine has no working directory."""
        del names
        return []

    def doubt(self, path: str) -> str | None:
        """See `Host.doubt`. A recorded machine has no users."""
        del path
        return None


class Recording:
    """Another host, with a note of every answer it gave."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.platform = host.platform
        self.noted = Recorded(platform=host.platform)

    def read(self, path: str) -> str:
        """See `Host.read`. Notes the text, or why there is none."""
        try:
            text = self.host.read(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                name = errno.errorcode.get(error.errno or 0, "EIO")
                self.noted.unreadable[path] = name
            raise
        self.noted.files[path] = text
        return text

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        """See `Host.variables`."""
        found = self.host.variables(names)
        self.noted.env.update(found)
        return found

    def names(self, prefix: str) -> list[str]:
        """See `Host.names`."""
        return self.host.names(prefix)

    def affinity(self) -> AbstractSet[int] | None:
        """See `Host.affinity`."""
        self.noted._affinity = self.host.affinity()
        return self.noted._affinity

    def cpu_count(self) -> int | None:
        """See `Host.cpu_count`."""
        self.noted._cpu_count = self.host.cpu_count()
        return self.noted._cpu_count

    def physical_cores(self) -> int | None:
        """See `Host.physical_cores`."""
        self.noted._physical_cores = self.host.physical_cores()
        return self.noted._physical_cores

    def memory(self) -> tuple[int | None, int | None]:
        """See `Host.memory`."""
        self.noted._memory = self.host.memory()
        return self.noted._memory

    def hostname(self) -> str | None:
        """See `Host.hostname`."""
        self.noted._hostname = self.host.hostname()
        return self.noted._hostname

    def find_upward(self, names: tuple[str, ...]) -> list[str]:
        """See `Host.find_upward`. Nothing of it is noted: it is not the machine's."""
        return self.host.find_upward(names)

    def doubt(self, path: str) -> str | None:
        """See `Host.doubt`."""
        return self.host.doubt(path)
