"""Other machines, for the tests of programs that use coresize.

>>> from coresize import available_cores
>>> from coresize.testing import container, use_host
>>> with use_host(container(cpus=64, quota=1.5, memory="512MiB")):
...     available_cores()
2
"""

from __future__ import annotations

from contextlib import contextmanager

from coresize.errors import ConfigError
from coresize.host import swap_current
from coresize.recording import load_host, record_host
from coresize.recording.recorded import Recorded
from coresize.units import to_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from coresize.host import Host

__all__ = ["Recorded", "container", "load_host", "record_host", "use_host"]

_CGROUP = "/sys/fs/cgroup"


@contextmanager
def use_host(host: Host) -> Iterator[Host]:
    """Let another host answer `available_cores` and the rest, in every thread.

    The real machine's environment is not looked at meanwhile: give the host its own.
    Processes that are spawned meanwhile see the real machine (forked ones do not); set
    CORESIZE_OVERRIDE_CORES for them.

    Raises:
        TypeError: it is no host; of a file, `load_host` makes one.
    """
    if not hasattr(host, "variables"):
        msg = f"use_host() takes a host, as load_host() gives, not {host!r}"
        raise TypeError(msg)
    previous = swap_current(host)
    try:
        yield host
    finally:
        swap_current(previous)


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
        ConfigError: a count is not a whole number above 0, the quota not above 0, or a
            size malformed.
    """
    if type(cpus) is not int or cpus < 1:
        raise ConfigError("cpus", cpus, "a whole number above 0")
    if quota is not None and not 0 < quota < 1e9:
        raise ConfigError("quota", quota, "a number of cores above 0, or None")
    total = to_bytes("machine_memory", machine_memory)
    taken = to_bytes("used", used)
    limit = "max" if memory is None else to_bytes("memory", memory)
    files = {
        "/sys/devices/system/cpu/online": f"0-{cpus - 1}\n",
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": (
            f"30 23 0:26 / {_CGROUP} ro,nosuid,nodev,noexec - cgroup2 cgroup rw\n"
        ),
        "/proc/meminfo": (
            f"MemTotal: {total // 1024} kB\n"
            f"MemAvailable: {max(0, total - taken) // 1024} kB\n"
        ),
        f"{_CGROUP}/cpu.max": (
            "max 100000\n"
            if quota is None
            else f"{max(1, round(quota * 100_000))} 100000\n"
        ),
        f"{_CGROUP}/memory.max": f"{limit}\n",
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
