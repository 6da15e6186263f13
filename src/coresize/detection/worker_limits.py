"""What bounds the number of a pool's workers: processes, threads and open files.

A worker is a process, and costs the process that starts it a few open files. The
kernel counts processes and threads together: in the pids controller of each cgroup,
for each user, and on the whole machine. Each bound is a fact of what is left now.
"""

from __future__ import annotations

from coresize import units
from coresize.detection import parse
from coresize.detection.reading import read_fact, read_text
from coresize.detection.rlimits import LIMITS, STATUS, soft_limit
from coresize.errors import ParseError
from coresize.model import Fact, Gap


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.detection.reading import FactOrGap
    from coresize.host import Host
    from coresize.model import Resource

_LOADAVG = "/proc/loadavg"
_UID_MAP = "/proc/self/uid_map"

#: WaitForMultipleObjects waits for 64 handles, and a pool itself needs three of them
#: (learn.microsoft.com, and CPython's concurrent.futures.process).
_WINDOWS_WORKERS = 61


def platform(host: Host) -> Iterator[FactOrGap]:
    """The most processes that one pool can have; only Windows has a bound."""
    if host.platform == "win32":
        yield Fact(
            resource="workers",
            amount=_WINDOWS_WORKERS,
            role="limit",
            source="system:WaitForMultipleObjects",
            where="the platform",
            raw=str(_WINDOWS_WORKERS),
        )


def pids(host: Host, version: int, directories: tuple[str, ...]) -> Iterator[FactOrGap]:
    """Yield what pids.max leaves in the own cgroup and in every ancestor.

    Kernel Documentation/admin-guide/cgroup-v2.rst, "PID", and cgroup-v1/pids.rst. A
    cgroup without a limit has no fact.
    """
    for directory in directories:
        source = f"cgroup{version}:pids.max"
        limit = _read(host, f"{directory}/pids.max", parse.count_limit, source)
        if isinstance(limit, Gap):
            yield limit
        if not isinstance(limit, Fact) or limit.amount is None:
            continue
        current = f"{directory}/pids.current"
        used = _read(host, current, units.whole, source)
        if isinstance(used, Gap):
            yield used
        yield _left(limit, int(used.amount or 0) if isinstance(used, Fact) else 0)


def rlimits(host: Host) -> Iterator[FactOrGap]:
    """Yield what RLIMIT_NOFILE and RLIMIT_NPROC leave (getrlimit(2)).

    RLIMIT_NOFILE counts the files that one process has open: here, the one that starts
    the workers. RLIMIT_NPROC counts all processes and threads of the real user, and
    does not bind root or a process with CAP_SYS_RESOURCE or CAP_SYS_ADMIN.
    """
    text = read_text(host, LIMITS, "files", "rlimit:RLIMIT_NOFILE")
    if not isinstance(text, str):
        yield from filter(None, (text,))
        return
    asked: tuple[tuple[str, Resource, str, Callable[[Host, int], int | None]], ...] = (
        ("Max open files", "files", "rlimit:RLIMIT_NOFILE", _open_files),
        ("Max processes", "processes", "rlimit:RLIMIT_NPROC", _tasks_of_user),
    )
    for line, resource, source, count in asked:
        if line in text:
            limit = soft_limit(text, line, resource, "available", source)
            if isinstance(limit, Gap):
                yield limit
            elif limit.amount is not None:
                used = count(host, int(limit.amount))
                if used is not None:
                    yield _left(limit, used)


def _open_files(host: Host, _limit: int) -> int:
    """The files that this process has open; 0 if unknown, for at most all are left."""
    return host.open_files() or 0


#: If a user could start this many processes even if all processes of the machine were
#: the user's, they are not counted: that reads a file for each process.
_PLENTY = 1024


def _tasks_of_user(host: Host, limit: int) -> int | None:
    """The tasks of the user, or more than these; None if the limit does not bind."""
    if _is_exempt(host):
        return None
    every = _tasks(host)
    if every is not None and limit - every >= _PLENTY:
        return every
    own = host.user_tasks()
    return min((count for count in (own, every) if count is not None), default=0)


#: The bits of CapEff in /proc/self/status (linux/capability.h).
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 1 << 21, 1 << 24

#: The identity: the user namespace is that of the machine. In another one, being root
#: exempts from nothing (user_namespaces(7)).
_ALL_USERS = ["0", "0", "4294967295"]


def _is_exempt(host: Host) -> bool:
    """Whether RLIMIT_NPROC does not bind this process (kernel/fork.c, copy_process)."""
    try:
        if host.read(_UID_MAP).split() != _ALL_USERS:
            return False
    except OSError:
        pass  # a kernel without user namespaces
    try:
        status = host.read(STATUS)
        user = parse.line(status, "Uid:").split()[1:2]
        held = int(parse.line(status, "CapEff:").split()[1], 16)
    except (OSError, ParseError, ValueError, IndexError):
        return False
    return user == ["0"] or bool(held & (_CAP_SYS_ADMIN | _CAP_SYS_RESOURCE))


def kernel(host: Host) -> Iterator[FactOrGap]:
    """Yield what kernel.threads-max and kernel.pid_max leave (proc(5))."""
    for name in ("threads-max", "pid_max"):
        source = f"sysctl:kernel.{name}"
        most = _read(host, f"/proc/sys/kernel/{name}", units.whole, source)
        if isinstance(most, Gap):
            yield most
        elif most:
            yield _left(most, _tasks(host) or 0)


def _tasks(host: Host) -> int | None:
    """The processes and threads of the machine; None if it does not tell."""
    found = _read(host, _LOADAVG, parse.all_tasks, "system:loadavg")
    return int(found.amount or 0) if isinstance(found, Fact) else None


def _read(
    host: Host, where: str, parser: Callable[[str], float | None], source: str
) -> FactOrGap | None:
    """A number of processes and threads, in a file of its own."""
    return read_fact(
        host, where, parser, resource="processes", role="available", source=source
    )


def _left(limit: Fact, used: int) -> Fact:
    """What is left of a limit."""
    return Fact(
        resource=limit.resource,
        amount=max(0, int(limit.amount or 0) - used),
        role="available",
        source=limit.source,
        where=limit.where,
        raw=f"{limit.amount:.0f} - {used}",
    )
