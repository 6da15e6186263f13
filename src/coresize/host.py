"""The only access to the machine: files, environment, affinity, counts.

Rule 1: no other module of the package opens a system file, reads ``os.environ`` or
queries the affinity, so a recorded host replays exactly.
Rule 2: a host reads and never interprets; it returns texts unchanged.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from coresize.model import override


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet
    from typing import Any, Protocol, TypeVar

    _Answer = TypeVar("_Answer")

    class Host(Protocol):
        """A machine as one process sees it. An unknown answer is None."""

        @property
        def platform(self) -> str:
            """The platform's name as in ``sys.platform``."""

        def read(self, path: str) -> str:
            """The whole text of a file; bytes that are not UTF-8 become surrogates.

            Raises:
                OSError: the file cannot be read.
            """

        def folders(self, path: str) -> list[str]:
            """The names of the folders in a folder.

            Raises:
                OSError: the folder cannot be read.
            """

        def variables(self, names: frozenset[str]) -> dict[str, str]:
            """The named environment variables that are set and not empty.

            Only the variables in `EMPTY_IS_NONE` may be empty.
            """

        def names(self, prefix: str) -> list[str]:
            """The names of all environment variables that begin with the prefix."""

        def affinity(self) -> AbstractSet[int] | None:
            """The CPUs that this process may run on.

            Raises:
                OSError: the kernel refuses the query.
            """

        def cpu_count(self) -> int | None:
            """The number of CPUs online."""

        def physical_cores(self) -> int | None:
            """The number of physical cores, on platforms where no file has it."""

        def memory(self) -> tuple[int | None, int | None]:
            """Total and available memory in bytes, on platforms without such files."""

        def hostname(self) -> str | None:
            """The name of the machine."""

        def bound_nodes(self) -> AbstractSet[int] | None:
            """The memory nodes that this process is bound to by its own policy."""

        def open_files(self) -> int | None:
            """The number of files that this process has open."""

        def user_tasks(self) -> int | None:
            """The number of processes and threads that the user of this process has.

            Only those of visible processes count.
            """

        def calls(self) -> dict[str, str]:
            """Answers of system calls that Windows or macOS has, by name.

            Each is the memory that the call has filled, in hexadecimal. The names are
            those of `coresize.detection.platforms`.
            """

        def find_upward(self, names: tuple[str, ...]) -> list[str]:
            """The files with these names in the working directory and its parents.

            The nearest folder comes first, and within a folder the names in their
            order.
            """

        def doubt(self, path: str) -> str | None:
            """Why a file that coresize found itself must be ignored; None if not."""

else:
    Host = object


#: The most bytes that a system file may have; a longer one is not a system file.
_LONGEST = 64 * 1024 * 1024
_CHUNK = 16 * 1024

CPU_COUNT_OPTION = "-X cpu_count"

#: Variables about one batch of one program: which shard it runs, a second place for its
#: status, and which tasks of an earlier start run again. They do not apply to programs
#: that this program starts: CORESIZE_CLAIMED, which coresize itself sets, tells these
#: which process has taken them.
SHARD, STATUS, RETRY = "CORESIZE_SHARD", "CORESIZE_STATUS", "CORESIZE_RETRY"
CLAIMED = "CORESIZE_CLAIMED"

#: The variable that holds the marks of `coresize.processes.orphans`, outermost first:
#: "/PROGRAM/1/PROGRAM/2/".
MARK = "CORESIZE_STARTED_BY"

#: Variables whose empty value means "none of them"; any other empty variable counts as
#: unset.
EMPTY_IS_NONE = frozenset({"CUDA_VISIBLE_DEVICES"})


def says(name: str, value: str) -> bool:
    """Whether a variable with this value counts as set."""
    return bool(value) or name in EMPTY_IS_NONE


#: Non-blocking, so that a pipe in place of a file does not make the reader wait.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)


def _read_rest(file: int, chunks: list[bytes], path: str) -> bytes:
    """The whole content of an open file whose first chunks have been read."""
    size = 0
    while chunk := os.read(file, _CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > _LONGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return b"".join(chunks)


#: The names that functions ask for, and each name as the environment encodes it. There
#: are a few constant sets of names.
_keys: dict[tuple[object, frozenset[str]], list[tuple[str, object]]] = {}
_MOST_KEYS = 64


def _names_present(names: frozenset[str]) -> Iterable[str]:
    """Those of the names that are set, empty or not.

    ``os.environ`` raises two exceptions for each name that it lacks, and a pass over it
    decodes every name. Either costs a third of what `available_cores` reads, or more,
    and no public call costs less. This function therefore looks each name up in the
    dictionary behind ``os.environ``, as ``os.environ[name]`` does, and keeps the names
    as they are encoded there. Where a program or another Python has a mapping without
    that dictionary, it makes the pass.
    """
    environ = os.environ
    encode = getattr(environ, "encodekey", None)
    encoded = getattr(environ, "_data", None)
    if encode is None or encoded is None:
        return names.intersection(environ)
    asked = encode, frozenset(names)
    keys = _keys.get(asked)
    if keys is None:
        if len(_keys) >= _MOST_KEYS:
            _keys.clear()
        keys = _keys[asked] = [(name, encode(name)) for name in names]
    return [name for name, key in keys if key in encoded]


def _psutil(ask: Callable[[Any], _Answer]) -> _Answer | None:
    """The answer of psutil; None where psutil fails, whichever way it fails."""
    import psutil

    try:
        return ask(psutil)
    except (psutil.Error, AttributeError, NotImplementedError, OSError, RuntimeError):
        return None


#: What to ask of the job object of this process: the number of each question of
#: QueryInformationJobObject (winnt.h, JOBOBJECTINFOCLASS), and the bytes of its answer
#: in a process of 64 bits.
_JOB_OBJECT = {
    "job_accounting": (1, 48),
    "job_limits": (9, 144),
    "job_cpu_rate": (15, 8),
    "job_memory_usage": (28, 16),
}
_MEMORY_STATUS = 64

#: The names of kernel variables of macOS (sysctlbyname(3)), four bytes each.
_SYSCTLS = {"vm_pressure_level": b"kern.memorystatus_vm_pressure_level"}


def _windows_calls() -> dict[str, str]:
    """The answers of QueryInformationJobObject and GlobalMemoryStatusEx."""
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    answers = {}
    inside = ctypes.c_int()
    process = ctypes.c_void_p(-1)  # the pseudo handle of GetCurrentProcess()
    kernel.IsProcessInJob(process, None, ctypes.byref(inside))
    for name, (number, size) in _JOB_OBJECT.items() if inside.value else ():
        answer = ctypes.create_string_buffer(size)
        if kernel.QueryInformationJobObject(None, number, answer, size, None):
            answers[name] = answer.raw.hex()
    status = ctypes.create_string_buffer(_MEMORY_STATUS)
    status[0] = bytes([_MEMORY_STATUS])  # the structure begins with its own length
    if kernel.GlobalMemoryStatusEx(status):
        answers["memory_status"] = status.raw.hex()
    return answers


def _macos_calls() -> dict[str, str]:
    """The answers of sysctlbyname(3)."""
    import ctypes

    library = ctypes.CDLL(None)
    answers = {}
    for name, variable in _SYSCTLS.items():
        answer, size = ctypes.create_string_buffer(4), ctypes.c_size_t(4)
        if not library.sysctlbyname(variable, answer, ctypes.byref(size), None, 0):
            answers[name] = answer.raw.hex()
    return answers


#: The numbers of the system call get_mempolicy(2), which the C library does not wrap,
#: and its constants (linux/mempolicy.h). No kernel has more nodes (NODES_SHIFT).
_GET_MEMPOLICY = {"x86_64": 239, "aarch64": 236, "riscv64": 236, "ppc64le": 260}
_MPOL_BIND, _MPOL_FLAGS, _MOST_NODES = 2, 0xE000, 1024


class Live(Host):
    """The machine that this process runs on; every call reads it anew."""

    platform = sys.platform

    @override
    def read(self, path: str) -> str:
        # Plain system calls, because open() costs twice as much.
        try:
            file = os.open(path, _READ)
        except ValueError as error:  # a NUL character in the path
            raise OSError(errno.EINVAL, str(error), path) from None
        try:
            content = os.read(file, _CHUNK)
            # A short read is not the end of the file: mountinfo comes in pieces.
            if more := os.read(file, _CHUNK):
                content = _read_rest(file, [content, more], path)
        finally:
            os.close(file)
        return content.decode("utf-8", "surrogateescape")

    @override
    def folders(self, path: str) -> list[str]:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir()]

    @override
    def variables(self, names: frozenset[str]) -> dict[str, str]:
        """The named environment variables that are set and not empty.

        Python's option ``-X cpu_count=N`` overrides its variable PYTHON_CPU_COUNT
        (using/cmdline), and is returned under its own name.
        """
        # get(), because another thread may unset a variable in between.
        values = {
            name: value
            for name in _names_present(names)
            if (value := os.environ.get(name)) is not None and says(name, value)
        }
        option = sys._xoptions.get("cpu_count")
        if option and CPU_COUNT_OPTION in names:
            values.pop("PYTHON_CPU_COUNT", None)
            values[CPU_COUNT_OPTION] = str(option)
        return values

    @override
    def names(self, prefix: str) -> list[str]:
        return [name for name in os.environ if name.startswith(prefix)]

    @override
    def affinity(self) -> AbstractSet[int] | None:
        """The CPUs that this process may run on; macOS has no affinity."""
        if hasattr(os, "sched_getaffinity"):
            return os.sched_getaffinity(0)
        return _psutil(lambda psutil: frozenset(psutil.Process().cpu_affinity()))

    @override
    def cpu_count(self) -> int | None:
        # os.cpu_count() would return the value of PYTHON_CPU_COUNT.
        if self.platform != "linux":
            return _psutil(lambda psutil: psutil.cpu_count())
        try:
            count = os.sysconf("SC_NPROCESSORS_ONLN")
        except (OSError, ValueError):
            return None
        return count if count > 0 else None

    @override
    def physical_cores(self) -> int | None:
        if self.platform == "linux":  # the topology files have it
            return None
        return _psutil(lambda psutil: psutil.cpu_count(logical=False))

    @override
    def memory(self) -> tuple[int | None, int | None]:
        memory = None  # on Linux, /proc/meminfo has it
        if self.platform != "linux":
            memory = _psutil(lambda psutil: psutil.virtual_memory())
        return (memory.total, memory.available) if memory else (None, None)

    @override
    def hostname(self) -> str | None:
        import platform

        return platform.node() or None

    @override
    def bound_nodes(self) -> AbstractSet[int] | None:
        """The nodes of the policy MPOL_BIND, which numactl --membind sets."""
        if self.platform != "linux":
            return None
        number = _GET_MEMPOLICY.get(os.uname().machine)
        if number is None:
            return None
        import ctypes

        mode, words = ctypes.c_int(), (ctypes.c_uint64 * (_MOST_NODES // 64))()
        call = ctypes.CDLL(None).syscall
        arguments = (ctypes.byref(mode), words, ctypes.c_ulong(_MOST_NODES), None)
        if call(ctypes.c_long(number), *arguments, ctypes.c_ulong(0)):
            return None  # a sandbox may refuse the call
        if mode.value & ~_MPOL_FLAGS != _MPOL_BIND:
            return None
        mask = sum(word << 64 * place for place, word in enumerate(words))
        return frozenset(node for node in range(_MOST_NODES) if mask >> node & 1)

    @override
    def open_files(self) -> int | None:
        try:
            return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - quicker
        except OSError:
            return None

    @override
    def user_tasks(self) -> int | None:
        """The sum of the threads of each process in /proc that has our real user."""
        try:
            numbers = [name for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
        except OSError:
            return None
        mine = f"\nUid:\t{os.getuid()}\t"
        tasks = 0
        for number in numbers:
            try:
                status = self.read(f"/proc/{number}/status")
            except OSError:  # the process has ended
                continue
            if mine in status:
                threads = status.partition("\nThreads:\t")[2].partition("\n")[0]
                tasks += int(threads) if threads.isdecimal() else 1
        return tasks

    @override
    def calls(self) -> dict[str, str]:
        asked = {"win32": _windows_calls, "darwin": _macos_calls}.get(self.platform)
        if asked is None:
            return {}
        try:
            return asked()
        except (ImportError, OSError, AttributeError):  # a system without the calls
            return {}

    @override
    def find_upward(self, names: tuple[str, ...]) -> list[str]:
        # access(2) rather than stat(2): a missing file costs no exception.
        try:
            folder = os.getcwd()  # noqa: PTH109
        except OSError:  # it has been removed
            return []
        paths = []
        access = os.access
        while True:
            for name in names:
                path = f"{folder.rstrip(os.sep)}{os.sep}{name}"
                if access(path, os.F_OK):
                    paths.append(path)
            above = os.path.dirname(folder)  # noqa: PTH120
            if above == folder:
                return paths
            folder = above

    @override
    def doubt(self, path: str) -> str | None:
        """Why the file must be ignored: it belongs neither to this user nor to root.

        This is git's rule. Otherwise anyone who may write to a parent folder, such as
        /tmp, could change the settings. For a symbolic link, the owners of the link
        and of its target both count, because a link may lead to a file of this user
        that is meant for another folder. For root, a file of the user who called sudo
        counts as root's own (git-config(1), "safe.directory").
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
    """The user's name and number; only the number where the user has no name."""
    import pwd

    try:
        return f"{pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return str(number)


class LiveFor(Live):
    """This machine as it limits another process: through its cgroups and affinity.

    Paths are those of the calling process; environment variables do not count.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @override
    def read(self, path: str) -> str:
        name = path.removeprefix("/proc/self/")
        own = name in ("cgroup", "limits", "status")
        return super().read(f"/proc/{self._pid}/{name}" if own else path)

    @override
    def variables(self, names: frozenset[str]) -> dict[str, str]:
        del names
        return {}

    @override
    def names(self, prefix: str) -> list[str]:
        del prefix
        return []

    @override
    def affinity(self) -> AbstractSet[int] | None:
        if hasattr(os, "sched_getaffinity"):
            return os.sched_getaffinity(self._pid)
        return super().affinity()

    @override
    def bound_nodes(self) -> AbstractSet[int] | None:
        """The nodes of this process's policy; that of another cannot be asked."""
        return super().bound_nodes() if self._pid == os.getpid() else None

    @override
    def open_files(self) -> int | None:
        return super().open_files() if self._pid == os.getpid() else None


_current: Host = Live()


def current() -> Host:
    """The default host: this machine, or the host that a test has set."""
    return _current


def swap_current(host: Host) -> Host:
    """Make another host the default, and return the previous default."""
    global _current
    previous, _current = _current, host
    return previous
