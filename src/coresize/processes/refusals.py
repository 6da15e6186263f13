"""Explaining why the kernel refuses a process, thread or file: which limit is met."""

from __future__ import annotations

import errno

from coresize.detection import cgroup, sources
from coresize.host import Live


try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: A limit of processes counts as met if at most this many are left: the refused process
#: no longer counts by the time we look.
_LEFT = 2


def explain(error: BaseException) -> str:
    """The text of an error, with the limits that are met.

    >>> explain(OSError(2, "No such file or directory"))
    '[Errno 2] No such file or directory'
    """
    number = getattr(error, "errno", None)
    text = str(error) or type(error).__name__
    limits: list[str] = []
    if number == errno.EMFILE:
        limits = [f"RLIMIT_NOFILE is {_soft('RLIMIT_NOFILE')}"]
    elif number == errno.ENFILE:
        limits = [f"fs.file-max is {_read('/proc/sys/fs/file-max')}"]
    elif number == errno.EAGAIN or isinstance(error, RuntimeError):
        limits = list(_of_processes()) or [f"RLIMIT_NPROC is {_soft('RLIMIT_NPROC')}"]
    elif isinstance(error, (EOFError, ConnectionError)):
        text = f"the process that was to start it has ended ({text})"
        limits = list(_of_processes())
    return f"{text}: {', '.join(limits)}" if limits else text


def _of_processes() -> Iterator[str]:
    """The limits of processes and threads that are met in our cgroups."""
    membership = sources.read_membership(Live())
    chains, _ = cgroup.locate(membership, "pids", "cpu")
    for _, directories in chains:
        for directory in directories:
            most = _read(f"{directory}/pids.max")
            now = _read(f"{directory}/pids.current")
            if most.isdigit() and now.isdigit() and int(now) + _LEFT >= int(most):
                yield f"pids.max is {most} in {directory}"


def _soft(name: str) -> str:
    """A soft limit of this process (getrlimit(2)), as text."""
    number = getattr(resource, name, None)
    if number is None:
        return "not known"
    soft, _ = resource.getrlimit(number)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def _read(path: str) -> str:
    try:
        return Live().read(path).strip()
    except OSError:
        return ""
