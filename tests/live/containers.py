"""Real containers on the cgroup v1 hierarchies of this machine, by runc.

The root file system is this machine's own, read-only, so the interpreter and the
package under test are there as they are here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

CGROUPS = Path("/sys/fs/cgroup")
SOURCE = Path(__file__).parents[2] / "src"
PARENT = f"coresize-live-{os.getpid()}"


@dataclass(frozen=True, kw_only=True)
class Container:
    """What is set on the container's own cgroup, on its parent, and what it sees."""

    quota: float | None = None
    memory: int | None = None
    cpuset: str | None = None
    parent_quota: float | None = None
    parent_memory: int | None = None
    #: Of the CPUs when others want them, too: each of the others has 1024.
    shares: int | None = None
    #: "private": own namespace, own directories; "host": the host's paths, own
    #: directories; "shared": the host's paths and all directories; "hidden": none.
    view: str = "private"
    env: dict[str, str] = field(default_factory=dict)
    #: What else is to be changed in runc's configuration.
    change: Callable[[dict[str, Any]], None] | None = None


def missing() -> str | None:
    """Why containers cannot run here; None where they can."""
    if os.geteuid() != 0:
        return "containers need root"
    for program in ("runc", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    for controller in ("cpu", "memory", "cpuset"):
        if not os.access(CGROUPS / controller / "cgroup.procs", os.W_OK):
            return f"no writable cgroup v1 {controller} hierarchy"
    probe = subprocess.run(
        ["unshare", "--mount", "true"], capture_output=True, check=False
    )
    return "mount namespaces are not permitted" if probe.returncode else None


#: The container's root is mounted in a mount namespace that ends with the container, so
#: that no clean-up of folders here can ever reach through it.
IN_NAMESPACE = """\
mount --rbind / rootfs && mount --make-rslave rootfs && exec runc run "$1"
"""


@contextlib.contextmanager
def started(
    container: Container, arguments: list[str], folder: Path
) -> Iterator[subprocess.Popen[str]]:
    """A program in a container, its input and output as pipes."""
    (folder / "rootfs").mkdir()
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(_configured(config, container, arguments)))
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(_remove_cgroups)
        _make_parent(container)
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", IN_NAMESPACE, "sh", PARENT],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        cleanup.enter_context(process)
        cleanup.callback(_delete)  # first of all, so that the process can be waited for
        yield process


def _delete() -> None:
    subprocess.run(["runc", "delete", "-f", PARENT], capture_output=True, check=False)


def _remove_cgroups() -> None:
    """The parent groups; a process may take a moment to leave one."""
    for directory in CGROUPS.glob(f"*/{PARENT}"):
        for _attempt in range(100):
            with contextlib.suppress(OSError):
                directory.rmdir()
                break
            time.sleep(0.02)


def run(container: Container, arguments: list[str], folder: Path) -> str:
    """What a Python program with these arguments prints in the container."""
    with started(container, arguments, folder) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def report(container: Container, folder: Path) -> dict[str, dict[str, object]]:
    """What ``coresize report --json`` answers in the container."""
    answer: dict[str, dict[str, object]] = json.loads(
        run(container, ["-m", "coresize", "report", "--json"], folder)
    )
    return answer


def write_quota(cores: float) -> None:
    """Change the quota of the container's own cgroup while it runs."""
    quota = CGROUPS / "cpu" / PARENT / "leaf" / "cpu.cfs_quota_us"
    quota.write_text(str(round(cores * 100_000)))


def _make_parent(container: Container) -> None:
    for controller in ("cpu", "memory"):
        (CGROUPS / controller / PARENT).mkdir()
    if container.parent_quota is not None:
        quota = CGROUPS / "cpu" / PARENT / "cpu.cfs_quota_us"
        quota.write_text(str(round(container.parent_quota * 100_000)))
    if container.shares is not None:
        shares = CGROUPS / "cpu" / PARENT / "cpu.shares"
        shares.write_text(str(container.shares))
    if container.parent_memory is not None:
        limit = CGROUPS / "memory" / PARENT / "memory.limit_in_bytes"
        limit.write_text(str(container.parent_memory))


def _configured(
    config: dict[str, Any], container: Container, arguments: list[str]
) -> dict[str, Any]:
    environ = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(SOURCE),
        "PYTHONDONTWRITEBYTECODE": "1",
        **container.env,
    }
    config["process"].update(
        terminal=False,
        args=[sys.executable, *arguments],
        env=[f"{name}={value}" for name, value in environ.items()],
        cwd="/",
    )
    config["root"]["readonly"] = True
    linux = config["linux"]
    linux["cgroupsPath"] = f"/{PARENT}/leaf"
    cpu: dict[str, object] = {}
    if container.quota is not None:
        cpu.update(quota=round(container.quota * 100_000), period=100_000)
    if container.cpuset is not None:
        cpu["cpus"] = container.cpuset
    linux["resources"]["cpu"] = cpu
    if container.memory is not None:
        linux["resources"]["memory"] = {"limit": container.memory}
    kinds = [space for space in linux["namespaces"] if space["type"] != "cgroup"]
    if container.view == "private":
        kinds.append({"type": "cgroup"})
    linux["namespaces"] = kinds
    config["mounts"] = [
        mount for mount in config["mounts"] if mount["destination"] != str(CGROUPS)
    ] + _cgroup_mounts(container.view)
    if container.change is not None:
        container.change(config)
    return config


def _cgroup_mounts(view: str) -> list[dict[str, object]]:
    if view == "hidden":
        kind, source, options = "tmpfs", "tmpfs", ["ro"]
    elif view == "shared":
        kind, source, options = "bind", str(CGROUPS), ["rbind", "ro"]
    else:
        kind, source, options = "cgroup", "cgroup", ["ro", "nosuid", "nodev", "noexec"]
    return [
        {
            "destination": str(CGROUPS),
            "type": kind,
            "source": source,
            "options": options,
        }
    ]
