"""Simulated machines, for the tests of programs that use coresize.

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
    """Make `available_cores` and the rest read another host, in every thread.

    Inside the block, the real machine's environment is not read: give the host its own
    variables. Processes spawned inside the block see the real machine (forked ones do
    not); set CORESIZE_OVERRIDE_CORES for them.

    Raises:
        TypeError: the argument is not a host; `load_host` makes a host from a file.
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
        cpus: the number of CPUs of the machine; the container sees them all.
        affinity: the CPUs that the container may run on; None for all.
        quota: the CPU limit in cores; None for no limit.
        memory: the memory limit in bytes or as "512MiB"; None for no limit.
        used: the memory in use, both in the container and on the machine.
        machine_memory: the memory of the machine.
        env: the environment variables.
        hostname: the name of the machine.

    Raises:
        ConfigError: ``cpus`` is not a whole number above 0, the quota is not above 0,
            or a size is malformed.
    """
    if type(cpus) is not int or cpus < 1:
        raise ConfigError("cpus", cpus, "a whole number above 0")
    if quota is not None and not 0 < quota < 1e9:
        raise ConfigError("quota", quota, "a number of cores above 0, or None")
    total = to_bytes("machine_memory", machine_memory)
    used_bytes = to_bytes("used", used)
    limit = "max" if memory is None else to_bytes("memory", memory)
    files = {
        "/sys/devices/system/cpu/online": f"0-{cpus - 1}\n",
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": (
            f"30 23 0:26 / {_CGROUP} ro,nosuid,nodev,noexec - cgroup2 cgroup rw\n"
        ),
        "/proc/meminfo": (
            f"MemTotal: {total // 1024} kB\n"
            f"MemAvailable: {max(0, total - used_bytes) // 1024} kB\n"
        ),
        f"{_CGROUP}/cpu.max": (
            "max 100000\n"
            if quota is None
            else f"{max(1, round(quota * 100_000))} 100000\n"
        ),
        f"{_CGROUP}/memory.max": f"{limit}\n",
        f"{_CGROUP}/memory.high": "max\n",
        f"{_CGROUP}/memory.current": f"{used_bytes}\n",
        f"{_CGROUP}/memory.stat": "inactive_file 0\n",
    }
    return Recorded(
        files=files,
        env=env,
        cpu_count=cpus,
        affinity=frozenset(range(cpus) if affinity is None else affinity),
        hostname=hostname,
    )
