"""A real Debian kernel under QEMU, for what this machine's kernel does not offer.

cgroup v2 alone, v1 and v2 side by side, and more CPUs than there are here, in
software emulation: seconds to boot, and no hardware support is needed. The disk is
built once and kept in the user's cache.
"""

from __future__ import annotations

import compileall
import contextlib
import functools
import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
SUITE = "bookworm"
PYTHON = (3, 11)  # that of the suite

#: What a pool imports in the guest.
LIBRARIES = (
    "psutil",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_inspection",
    "typing_extensions",
)

#: What the second disk is: one of 1 MiB a second, as some that are rented.
SLOW = "throttling.bps-total=1048576"

#: The file system on it is whole at once: nothing of it is written when it is mounted.
NO_LATER = ("-E", "lazy_itable_init=0,lazy_journal_init=0")

#: A boot with its scenarios takes 15 to 160 seconds here, and building the disk two
#: minutes; on a machine that others use as well many times that. These end what hangs.
SECONDS = 1800
BUILD_SECONDS = 3600
TRIES = 2
PROGRAMS = (
    "qemu-system-x86_64",
    "debootstrap",
    "cpio",
    "mke2fs",
    "busybox",
)
#: In the order of their dependence.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
)
#: What the guest loads when it needs them, with all that they depend on.
LATER = ("nfsd", "nfsv4")
PACKAGES = ("python3", "kmod", "nfs-kernel-server")

INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /disk
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox mount -t ext4 /dev/vda /disk
/bin/busybox ip link set lo up
/bin/busybox mkdir -p /disk/payload
/bin/busybox mount -t tmpfs tmpfs /disk/payload
/bin/busybox cp -r /payload/. /disk/payload/
/bin/busybox mount -t proc proc /disk/proc
/bin/busybox mount -t sysfs sys /disk/sys
/bin/busybox mount -o move /dev /disk/dev
exec /bin/busybox switch_root /disk /usr/bin/python3 -B /payload/in_guest.py
"""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One process in one place, as the guest sets it up.

    Attributes:
        write: text by file below /sys/fs/cgroup, written in this order; directories
            are made as they are needed.
        join: the directories below /sys/fs/cgroup whose cgroups the process joins.
        view: "host": the host's paths and directories; "private": a cgroup namespace
            of its own with a fresh mount; "unmounted": a namespace without a fresh
            mount; "bound": the host's paths, the own directory mounted; "hidden": an
            empty file system in place of the cgroups.
        cpus: the CPU list that the process is bound to; empty for all.
        env: environment variables.
        later: text by file, written while the process runs; it is asked again then.
        program: of guest_payload with its arguments, what to run in place of asking for
            a report; what it prints as JSON and its exit status are the answer.
    """

    write: dict[str, str]
    join: list[str]
    view: str = "host"
    cpus: str = ""
    env: dict[str, str] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    program: str = ""


def missing() -> str | None:
    """Why no guest can run here; None where one can."""
    if os.geteuid() != 0:
        return "building the guest needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if not _kernels():
        return "no Debian kernel in /boot (linux-image-cloud-amd64)"
    absent = [module for module in MODULES if not _module(module)]
    return f"the kernel lacks modules: {', '.join(absent)}" if absent else None


def run(
    scenarios: dict[str, Scenario], folder: Path, *, cpus: int = 8, hybrid: bool = False
) -> dict[str, list[dict]]:
    """Boot a guest, play the scenarios, and return each one's reports by its name."""
    home = _home()
    if isinstance(home, str):
        pytest.skip(home)
    results = folder / "results.json"
    base = (home / "initramfs").read_bytes()
    (folder / "initramfs").write_bytes(base + _payload(scenarios, hybrid, folder))
    command = [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", str(cpus), "-m", "3G", "-nodefaults", "-display", "none"),
        *_nodes(cpus),
        *("-no-reboot", "-kernel", str(_kernels()[-1])),
        *("-initrd", str(folder / "initramfs")),
        *("-append", _command_line(hybrid)),
        *("-drive", f"file={home / 'disk'},format=raw,if=virtio,snapshot=on"),
        *("-drive", f"file={_slow_disk(folder)},format=raw,if=virtio,{SLOW}"),
        *("-serial", f"file:{folder / 'console'}", "-serial", f"file:{results}"),
    ]
    _boot(command)
    text = results.read_text()
    assert text.rstrip().endswith("}"), (folder / "console").read_text()[-4000:]
    answers: dict[str, list[dict]] = json.loads(text)
    for name, reports in answers.items():
        for report in reports:
            assert "error" not in report, f"{name}: {report['error']}"
    return answers


#: What each of the guest's memory nodes has.
NODES = ("2688M", "384M")


def _nodes(cpus: int) -> Iterator[str]:
    """QEMU's words for two memory nodes, the first one with all CPUs."""
    for number, size in enumerate(NODES):
        yield from ("-object", f"memory-backend-ram,id=m{number},size={size}")
        own = "" if number else f",cpus=0-{cpus - 1}"
        yield from ("-numa", f"node,nodeid={number},memdev=m{number}{own}")


def _slow_disk(folder: Path) -> Path:
    """An empty one, of which nobody cares what becomes."""
    path = folder / "slow"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *NO_LATER, path, "256M"], check=True)
    return path


def _boot(command: list[str]) -> None:
    """Run the guest to its end; an emulator of many CPUs on few hangs now and then."""
    for attempt in range(1, TRIES + 1):
        try:
            subprocess.run(command, check=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            if attempt == TRIES:
                raise
        else:
            return


def _command_line(hybrid: bool) -> str:  # noqa: FBT001
    alone = "" if hybrid else "cgroup_no_v1=all"
    return f"console=ttyS0 panic=-1 quiet no_timer_check {alone}"


def _release() -> str:
    return _kernels()[-1].name.removeprefix("vmlinuz-")


def _module(name: str) -> list[Path]:
    return list(Path("/lib/modules", _release()).rglob(f"{name}.ko"))


def _kernels() -> list[Path]:
    return sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))


@functools.cache
def _home() -> Path | str:
    """Where the guest is built, or why it cannot be; tried once."""
    try:
        return _built()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return f"the guest cannot be built: {error}"


def _built() -> Path:
    """The folder with the disk and the first part of the initramfs, made if need be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    home = cache / "coresize-guest" / f"{SUITE}-{_release()}-6"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Built beside and moved when whole: another run may be at it, too.
        making = Path(tempfile.mkdtemp(dir=cache, prefix="coresize-guest-"))
        try:
            _build_disk(making)
            _build_initramfs(making)
            home.parent.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):
                making.rename(home)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return home


def _build_disk(home: Path) -> None:
    root = home / "root"
    subprocess.run(
        [
            *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            *(SUITE, root),
        ],
        check=True,
        capture_output=True,
        timeout=BUILD_SECONDS,
    )
    _copy_modules(root)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-d", root, home / "disk", "900M"], check=True
    )
    shutil.rmtree(root)


def _copy_modules(root: Path) -> None:
    """What ``modprobe`` may be asked for in the guest."""
    source, target = Path("/lib/modules", _release()), root / "lib/modules" / _release()
    needed = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        needed[Path(path).stem] = (path, *needs.split())
    for name in LATER:
        for path in needed[name]:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, target / path)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(source / name, target)
    subprocess.run(["depmod", "--basedir", root, _release()], check=True)


def _build_initramfs(home: Path) -> None:
    tree = home / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    shutil.copy(str(shutil.which("busybox")), tree / "bin" / "busybox")
    for module in MODULES:
        shutil.copy(_module(module)[0], tree / "modules")
    init = tree / "init"
    init.write_text(INIT.format(modules=" ".join(MODULES)))
    init.chmod(0o755)
    archive = _cpio(tree)
    shutil.rmtree(tree)
    (home / "initramfs").write_bytes(archive)


def _payload(scenarios: dict[str, Scenario], hybrid: bool, folder: Path) -> bytes:  # noqa: FBT001
    tree = folder / "tree"
    payload = tree / "payload"
    shutil.copytree(
        SOURCE, payload / "src", ignore=shutil.ignore_patterns("__pycache__")
    )
    for program in (HERE / "guest_payload").glob("*.py"):
        shutil.copy(program, payload)
    if any(scenario.program for scenario in scenarios.values()):
        _copy_libraries(payload / "libraries")
    plan = {
        "hybrid": hybrid,
        "scenarios": {name: asdict(scenario) for name, scenario in scenarios.items()},
    }
    (payload / "plan.json").write_text(json.dumps(plan))
    if other_python() is None:
        _compile(payload)
    return _cpio(tree)


def _compile(folder: Path) -> None:
    """Compile what the guest imports: emulated, each process would take seconds.

    The guest's copies have other times, so the compiled files are not compared to them.
    """
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=1, invalidation_mode=unchecked)


def other_python() -> str | None:
    """Why libraries of this Python do not load in the guest; None where they do."""
    if sys.version_info[:2] == PYTHON:
        return None
    return f"the guest has Python {PYTHON[0]}.{PYTHON[1]}, whose libraries are compiled"


def _copy_libraries(folder: Path) -> None:
    """What coresize depends on, as it is installed here."""
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin)
        if source.name == "__init__.py":
            shutil.copytree(
                source.parent,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder)


def _cpio(tree: Path) -> bytes:
    names = b"\0".join(
        str(path.relative_to(tree)).encode()
        for path in [tree, *sorted(tree.rglob("*"))]
    )
    return subprocess.run(
        ["cpio", "--quiet", "-0", "-o", "-H", "newc"],
        cwd=tree,
        input=names,
        capture_output=True,
        check=True,
    ).stdout
