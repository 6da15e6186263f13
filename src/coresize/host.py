"""The only door to the machine: files, environment, affinity, counts.

Rule 1: nothing else in the package opens a file of the system, reads ``os.environ`` or
asks for the affinity, so a recorded host replays exactly.
Rule 2: a host reads and never interprets; texts leave here as they are.
"""

from __future__ import annotations

import errno
import os
import stat
import sys


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet
    from typing import Any, Protocol, TypeVar

    _Answer = TypeVar("_Answer")

    class Host(Protocol):
        """A machine as seen by one process. What is not known is None."""

        @property
        def platform(self) -> str:
            """The platform's name as in ``sys.platform``."""

        def read(self, path: str) -> str:
            """The whole text of a file; bytes that are no UTF-8 become surrogates.

            Raises:
                OSError: the file cannot be read.
            """

        def variables(self, names: frozenset[str]) -> dict[str, str]:
            """Those of the named environment variables that are set and say anything.

            An empty one says nothing, but of `EMPTY_IS_NONE`.
            """

        def names(self, prefix: str) -> list[str]:
            """The names of all variables that begin so."""

        def affinity(self) -> AbstractSet[int] | None:
            """The CPUs that this process may run on.

            Raises:
                OSError: the kernel refuses to tell.
            """

        def cpu_count(self) -> int | None:
            """The number of CPUs online."""

        def physical_cores(self) -> int | None:
            """The number of physical cores, where no file tells it."""

        def memory(self) -> tuple[int | None, int | None]:
            """Total and available memory in bytes, where no file tells it."""

        def hostname(self) -> str | None:
            """The name of the machine."""

        def find_upward(self, names: tuple[str, ...]) -> list[str]:
            """The files of these names in the working directory and all above it.

            Nearest folder first, and in each the names in their order.
            """

        def doubt(self, path: str) -> str | None:
            """Why a file that was found, and not named, is not to be obeyed, if so."""


#: A file of the system that is longer than this is not what it should be.
_LONGEST = 64 * 1024 * 1024
_CHUNK = 16 * 1024

CPU_COUNT_OPTION = "-X cpu_count"

#: Variables that speak of one batch of one program: which part is to be done, a second
#: place for the status, and (set by coresize itself) which process has taken them. They
#: say nothing to what that program starts.
SHARD, STATUS, CLAIMED = "CORESIZE_SHARD", "CORESIZE_STATUS", "CORESIZE_CLAIMED"

#: The variable with the marks of `coresize.processes.orphans`, the outermost first:
#: "/PROGRAM/1/PROGRAM/2/".
MARK = "CORESIZE_STARTED_BY"

#: Empty these say "none of them"; of all others an empty one says nothing.
EMPTY_IS_NONE = frozenset({"CUDA_VISIBLE_DEVICES"})


def says(name: str, value: str) -> bool:
    """Whether a variable that is there says anything."""
    return bool(value) or name in EMPTY_IS_NONE


#: A pipe in a file's place must not be waited for.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)


def _read_rest(file: int, chunks: list[bytes], path: str) -> bytes:
    """All of a file of which the first chunks are read."""
    size = 0
    while chunk := os.read(file, _CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > _LONGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return b"".join(chunks)


def _names_present(names: frozenset[str]) -> Iterable[str]:
    """Those of the names that are set, empty or not.

    ``os.environ`` raises two exceptions for each name that it lacks, and a pass over it
    decodes every name. Either costs a third of what `available_cores` reads, or more,
    and no public call costs less. This function therefore looks each name up in the
    dictionary behind ``os.environ``, as ``os.environ[name]`` does. Where a program or
    another Python has a mapping without that dictionary, it makes the pass.
    """
    environ = os.environ
    encode = getattr(environ, "encodekey", None)
    encoded = getattr(environ, "_data", None)
    if encode is None or encoded is None:
        return names.intersection(environ)
    return [name for name in names if encode(name) in encoded]


def _psutil(ask: Callable[[Any], _Answer]) -> _Answer | None:
    """What psutil answers; None where it cannot tell, in whatever way it says so."""
    import psutil

    try:
        return ask(psutil)
    except (psutil.Error, AttributeError, NotImplementedError, OSError, RuntimeError):
        return None


class Live:
    """The machine that this process runs on; asked anew at every call."""

    platform = sys.platform

    def read(self, path: str) -> str:
        """See `Host.read`. Uses plain system calls: ``open()`` costs twice as much."""
        try:
            file = os.open(path, _READ)
        except ValueError as error:  # a NUL character in the path
            raise OSError(errno.EINVAL, str(error), path) from None
        try:
            content = os.read(file, _CHUNK)
            # A short read is not the end: mountinfo comes in pieces.
            if more := os.read(file, _CHUNK):
                content = _read_rest(file, [content, more], path)
        finally:
            os.close(file)
        return content.decode("utf-8", "surrogateescape")

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        """See `Host.variables`.

        Python's option ``-X cpu_count=N`` goes before its variable PYTHON_CPU_COUNT
        (using/cmdline), and is given under its own name.
        """
        # get(): another thread may unset one in between.
        found = {
            name: value
            for name in _names_present(names)
            if (value := os.environ.get(name)) is not None and says(name, value)
        }
        option = sys._xoptions.get("cpu_count")
        if option and CPU_COUNT_OPTION in names:
            found.pop("PYTHON_CPU_COUNT", None)
            found[CPU_COUNT_OPTION] = str(option)
        return found

    def names(self, prefix: str) -> list[str]:
        """See `Host.names`."""
        return [name for name in os.environ if name.startswith(prefix)]

    def affinity(self) -> AbstractSet[int] | None:
        """See `Host.affinity`. Linux, Windows and FreeBSD have one, macOS has none."""
        if hasattr(os, "sched_getaffinity"):
            return os.sched_getaffinity(0)
        return _psutil(lambda psutil: frozenset(psutil.Process().cpu_affinity()))

    def cpu_count(self) -> int | None:
        """See `Host.cpu_count`. ``os.cpu_count()`` says what PYTHON_CPU_COUNT says."""
        if self.platform != "linux":
            return _psutil(lambda psutil: psutil.cpu_count())
        try:
            count = os.sysconf("SC_NPROCESSORS_ONLN")
        except (OSError, ValueError):
            return None
        return count if count > 0 else None

    def physical_cores(self) -> int | None:
        """See `Host.physical_cores`. On Linux the topology files tell."""
        if self.platform == "linux":
            return None
        return _psutil(lambda psutil: psutil.cpu_count(logical=False))

    def memory(self) -> tuple[int | None, int | None]:
        """See `Host.memory`. On Linux /proc/meminfo tells."""
        memory = None
        if self.platform != "linux":
            memory = _psutil(lambda psutil: psutil.virtual_memory())
        return (memory.total, memory.available) if memory else (None, None)

    def hostname(self) -> str | None:
        """See `Host.hostname`."""
        import platform

        return platform.node() or None

    def find_upward(self, names: tuple[str, ...]) -> list[str]:
        """See `Host.find_upward`. Asks by access(2): a miss costs no exception."""
        try:
            folder = os.getcwd()  # noqa: PTH109
        except OSError:  # it has been removed
            return []
        found = []
        access = os.access
        while True:
            for name in names:
                path = f"{folder.rstrip(os.sep)}{os.sep}{name}"
                if access(path, os.F_OK):
                    found.append(path)
            above = os.path.dirname(folder)  # noqa: PTH120
            if above == folder:
                return found
            folder = above

    def doubt(self, path: str) -> str | None:
        """See `Host.doubt`. As git has it: it must be this user's own, or root's.

        Else whoever may write to a folder above, such as /tmp, decides here. Of a link
        both ends count: it may lead to a file of this user's that is meant for another
        folder. To root what the user of sudo owns is its own, too (git-config(1),
        "safe.directory").
        """
        if not hasattr(os, "geteuid"):
            return None
        trusted = {0, os.geteuid()}
        sudo = os.environ.get("SUDO_UID", "")
        if os.geteuid() == 0 and sudo.isdecimal():
            trusted.add(int(sudo))
        target = os.stat(path)  # noqa: PTH116 - as cheap as access(2)
        for status in (os.lstat(path), target):
            if status.st_uid not in trusted:
                return f"it belongs to another user, {_user(status.st_uid)}"
        return "everybody may write to it" if target.st_mode & stat.S_IWOTH else None


def _user(number: int) -> str:
    """A user by name, where it has one."""
    import pwd

    try:
        return f"{pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return str(number)


class LiveFor(Live):
    """This machine as it limits another process: by its cgroups and its affinity.

    Paths are those of the process that asks; of the environment nothing counts.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def read(self, path: str) -> str:
        """See `Host.read`."""
        own = path == "/proc/self/cgroup"
        return super().read(f"/proc/{self._pid}/cgroup" if own else path)

    def variables(self, names: frozenset[str]) -> dict[str, str]:
        """See `Host.variables`."""
        del names
        return {}

    def names(self, prefix: str) -> list[str]:
        """See `Host.names`."""
        del prefix
        return []

    def affinity(self) -> AbstractSet[int] | None:
        """See `Host.affinity`."""
        if hasattr(os, "sched_getaffinity"):
            return os.sched_getaffinity(self._pid)
        return super().affinity()


_current: Host = Live()


def current() -> Host:
    """The host that is asked where none is given: this machine, but in a test."""
    return _current


def swap_current(host: Host) -> Host:
    """Let another host answer from now on; returns the one that did so far."""
    global _current
    previous, _current = _current, host
    return previous
