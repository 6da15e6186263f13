"""Other machines, for the tests of programs that use coresize.

>>> from coresize import available_cores
>>> from coresize.testing import container, use_host
>>> with use_host(container(cpus=64, quota=1.5, memory="512MiB")):
...     available_cores()
2
"""

from __future__ import annotations

from contextlib import contextmanager

from coresize import hostfile
from coresize.detection import parse
from coresize.errors import HostFileError
from coresize.host import Live, Recorded, Recording, swap_current


TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from coresize.host import Host

__all__ = ["Recorded", "container", "load_host", "record_host", "use_host"]

_CGROUP = "/sys/fs/cgroup"


@contextmanager
def use_host(host: Host) -> Iterator[Host]:
    """Let another host answer `available_cores` and the rest, in every thread.

    Processes that are started meanwhile see the real machine; set
    CORESIZE_OVERRIDE_CORES for them.
    """
    previous = swap_current(host)
    try:
        yield host
    finally:
        swap_current(previous)


def load_host(path: str | os.PathLike[str]) -> Recorded:
    """The machine in a host file, as ``coresize record FILE`` writes it.

    Raises:
        HostFileError: the file cannot be read or is no host file.
    """
    return read_host_file(path).host


def read_host_file(path: str | os.PathLike[str]) -> hostfile.HostFile:
    """A host file with its note and the answers that it expects.

    Raises:
        HostFileError: the file cannot be read or is no host file.
    """
    name = str(path)
    try:
        text = Live().read(name)
    except OSError as error:
        raise HostFileError(name, str(error.strerror)) from None
    return hostfile.loads(text, name)


def record_host(host: Host | None = None) -> Recorded:
    """This machine, or another, as far as detection looks at it.

    >>> from coresize import detect
    >>> limits = detect(record_host(container(quota=2.5)))
    >>> limits.cpu.limit
    2.5
    """
    from coresize.available import detect

    recording = Recording(host or Live())
    detect(recording)
    return recording.noted


def container(
    *,
    cpus: int = 8,
    affinity: Iterable[int] | None = None,
    quota: float | None = None,
    memory: str | int | None = None,
    used: str | int = "1MiB",
    machine_memory: str | int = "64GiB",
    env: Mapping[str, str] | None = None,
    hostname: str = "container",
) -> Recorded:
    """A container with cgroup v2, seen from inside.

    Args:
        cpus: the CPUs of the machine, which the container sees all of.
        affinity: the CPUs that it may run on; None for all.
        quota: the CPU limit in cores; None for none.
        memory: the memory limit in bytes or as "512MiB"; None for none.
        used: the memory in use, of the container and of the machine.
        machine_memory: the memory of the machine.
        env: environment variables.
        hostname: the name of the machine.

    Raises:
        ParseError: a size is malformed.
    """
    total, taken = _bytes(machine_memory), _bytes(used)
    files = {
        "/sys/devices/system/cpu/online": f"0-{cpus - 1}\n",
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": (
            f"30 23 0:26 / {_CGROUP} ro,nosuid,nodev,noexec - cgroup2 cgroup rw\n"
        ),
        "/proc/meminfo": (
            f"MemTotal: {total // 1024} kB\n"
            f"MemAvailable: {(total - taken) // 1024} kB\n"
        ),
        f"{_CGROUP}/cpu.max": (
            "max 100000\n" if quota is None else f"{round(quota * 100_000)} 100000\n"
        ),
        f"{_CGROUP}/memory.max": "max\n" if memory is None else f"{_bytes(memory)}\n",
        f"{_CGROUP}/memory.high": "max\n",
        f"{_CGROUP}/memory.current": f"{taken}\n",
        f"{_CGROUP}/memory.stat": "inactive_file 0\n",
    }
    return Recorded(
        files=files,
        env=env,
        cpu_count=cpus,
        affinity=frozenset(range(cpus) if affinity is None else affinity),
        hostname=hostname,
    )


def _bytes(amount: str | int) -> int:
    return parse.size(amount) if isinstance(amount, str) else amount
