"""Measures one state of a cgroup: what coresize says is left, and what can be taken.

The program runs in a cgroup with a memory limit, on cgroup v1 or v2. It brings the
cgroup into a state, asks coresize, and lets a child take memory until the kernel kills
the child or slows it down. It needs root, the standard library and coresize.

    taken.py STATE FOLDER [DEVICE]

The files of a state are in the folder, on the device if there is one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path


sys.path[:0] = ["/payload/src"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    Ready: TypeAlias = Callable[[], None]
    State: TypeAlias = Callable[["Cgroup", Path], AbstractContextManager[None]]

MIB = 1024**2
PAGE = 4096
BLOCK = bytes(range(256)) * (MIB // 256)
MOUNT = Path("/sys/fs/cgroup")

#: A child that gets less than a MiB in so many seconds is slowed down, not killed.
CRAWLS = 30.0

#: prctl(2): the child ends with its parent.
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


class Cgroup:
    """The own cgroup, and the one with the limit: the same, or the parent."""

    def __init__(self) -> None:
        self.own = self.limited = _own()
        self.version = 1 if (self.own / "memory.usage_in_bytes").exists() else 2
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        if (self.own / name).read_text().strip() == "max":
            self.limited = self.own.parent
        self.limit = int((self.limited / name).read_text())

    def used(self) -> int:
        """Bytes in use below the limit."""
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return int((self.limited / name).read_text())

    def kernel(self) -> int:
        """Bytes of the kernel's own objects in the own cgroup."""
        if self.version == 2:
            return self.stat()["kernel"]
        return int((self.own / "memory.kmem.usage_in_bytes").read_text())

    def stat(self) -> dict[str, int]:
        """The kinds of memory below the limit."""
        lines = (self.limited / "memory.stat").read_text().splitlines()
        return {name: int(number) for name, number in map(str.split, lines)}

    def part(self, share: float) -> int:
        """Whole MiB of the limit, in bytes."""
        return int(share * self.limit) // MIB * MIB

    @contextlib.contextmanager
    def neighbour(self) -> Iterator[Path]:
        """Another cgroup below the same limit."""
        if self.version == 1:
            self.own = self.limited / "own"
            self.own.mkdir()
            join(self.own)
        other = self.limited / "other"
        other.mkdir()
        yield other
        if self.version == 1:
            join(self.limited)
            self.own.rmdir()
        _remove(other)


def _own() -> Path:
    path = ""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path(f"{MOUNT}/memory{path}")
    return Path(f"{MOUNT}{path}")


def join(folder: Path) -> None:
    """Move this process into a cgroup."""
    (folder / "cgroup.procs").write_text("0")


def _remove(folder: Path) -> None:
    for _attempt in range(100):  # the last process may still be on its way out
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)


# -----------------------------------------------------------------------------
# What fills memory.


def write_file(path: Path, size: int, *, sync: bool = True) -> Path:
    """A file whose pages are in the cache, clean if it is synced."""
    with path.open("wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(BLOCK)
        if sync:
            os.fsync(file.fileno())
    return path


def read_often(path: Path) -> None:
    """Have all pages of a file on the list of active ones."""
    for _ in range(3):
        with path.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass


def map_file(path: Path) -> mmap.mmap:
    """A mapping that may be written."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED)


@contextlib.contextmanager
def helper(work: Callable[[Ready], None]) -> Iterator[None]:
    """A process that has done its work and stays until the state is over."""
    ready, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            work(lambda: os.write(say, b"1"))
            signal.pause()
        except BaseException:  # noqa: BLE001 - it must not go on as its parent would
            traceback.print_exc()
        os._exit(1)
    os.close(say)
    try:
        assert os.read(ready, 1) == b"1"
        yield
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[Path]:
    """A file system in memory, with room for many names."""
    point = folder / "tmpfs"
    point.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "nr_inodes=0", "tmpfs", point]
    subprocess.run(words, check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


# -----------------------------------------------------------------------------
# The states.


@contextlib.contextmanager
def empty(_cgroup: Cgroup, _folder: Path) -> Iterator[None]:
    """Nothing but this program."""
    yield


@contextlib.contextmanager
def inactive(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """A file that was written once."""
    write_file(folder / "data", cgroup.part(0.8))
    yield


@contextlib.contextmanager
def active(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """A file that was read three times."""
    read_often(write_file(folder / "data", cgroup.part(0.8)))
    yield


@contextlib.contextmanager
def dirty(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """A file that is not on the disk; how slow that is depends on the device."""
    write_file(folder / "data", cgroup.part(0.3), sync=False)
    yield


@contextlib.contextmanager
def very_dirty(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """Half of the limit is dirty, where the kernel lets most of memory be dirty."""
    device = folder.stat().st_dev
    share = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/min_ratio")
    Path("/proc/sys/vm/dirty_ratio").write_text("90")
    Path("/proc/sys/vm/dirty_background_ratio").write_text("80")
    share.write_text("90")  # of the dirty pages that are permitted; small on a new disk
    try:
        write_file(folder / "data", cgroup.part(0.5), sync=False)
        yield
    finally:
        share.write_text("0")


@contextlib.contextmanager
def mapped(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """A file that a process has mapped and reads all the time."""
    path = write_file(folder / "data", cgroup.part(0.8))

    def read(ready: Ready) -> None:
        view = map_file(path)
        sum(view[::PAGE])
        ready()
        while True:
            sum(view[::PAGE])

    with helper(read):
        yield


@contextlib.contextmanager
def locked(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """A file that a process has mapped and locked (mlock(2))."""
    path = write_file(folder / "data", cgroup.part(0.5))

    def lock(ready: Ready) -> None:
        view = map_file(path)
        place = ctypes.addressof(ctypes.c_char.from_buffer(view))
        size = ctypes.c_size_t(len(view))
        assert libc.mlock(ctypes.c_void_p(place), size) == 0, ctypes.get_errno()
        ready()
        signal.pause()  # the mapping ends with this function

    with helper(lock):
        yield


@contextlib.contextmanager
def shared(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """A file in a tmpfs: counted as a file, and given up by nobody."""
    with tmpfs(folder) as point:
        write_file(point / "data", cgroup.part(0.5))
        yield


@contextlib.contextmanager
def names(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """Names that were looked up in vain: reclaimable slab."""
    for number in range(cgroup.part(0.4) // 512):
        (folder / f"{'absent' * 3}{number}").exists()
    yield


@contextlib.contextmanager
def inodes(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """Many small files: reclaimable slab."""
    for number in range(cgroup.part(0.5) // 8192):
        (folder / f"file{number}").touch()
    os.sync()
    yield


@contextlib.contextmanager
def opened(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """Many open files, which hold slab that is called reclaimable."""
    count = min(18_000, cgroup.part(0.4) // 4096)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, max(count + 100, most)))
    with contextlib.ExitStack() as files:
        for number in range(count):
            path = folder / f"file{number}"
            files.callback(os.close, os.open(path, os.O_CREAT | os.O_RDWR))
        yield


@contextlib.contextmanager
def tmpfs_names(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """Many small files in a tmpfs: the same, held by the tmpfs."""
    with tmpfs(folder) as point:
        for number in range(cgroup.part(0.3) // 1024):
            (point / f"file{number}").touch()
        yield


def fill_kernel(cgroup: Cgroup, make: Callable[[int], object]) -> None:
    """Make objects, by number, until the kernel's objects take half of the limit."""
    for number in itertools.count():
        if number % 256 == 0 and cgroup.kernel() >= cgroup.part(0.5):
            return
        make(number)


@contextlib.contextmanager
def half_names(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """Half of the limit is slab that the kernel gives up."""
    fill_kernel(cgroup, lambda n: (folder / f"{'absent' * 3}{n}").exists())
    yield


@contextlib.contextmanager
def half_tmpfs_names(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """Half of the limit is slab that a tmpfs holds."""
    with tmpfs(folder) as point:
        fill_kernel(cgroup, lambda n: (point / f"file{n}").touch())
        yield


@contextlib.contextmanager
def sockets(cgroup: Cgroup, _folder: Path) -> Iterator[None]:
    """What waits in sockets: unreclaimable slab and pages."""
    pairs = []
    for _ in range(cgroup.part(0.25) // (128 * 1024)):
        pair = socket.socketpair()
        pair[0].settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                pair[0].send(BLOCK[:PAGE])
        pairs.append(pair)
    yield
    del pairs


@contextlib.contextmanager
def neighbour(cgroup: Cgroup, folder: Path, **protection: float) -> Iterator[None]:
    """Another cgroup below the same limit has cache, protected to a part or not."""
    with cgroup.neighbour() as other:
        for name, share in protection.items():
            (other / f"memory.{name}").write_text(str(cgroup.part(share)))

        def fill(ready: Ready) -> None:
            join(other)
            read_often(write_file(folder / "data", cgroup.part(0.5)))
            ready()

        with helper(fill):
            yield
        (folder / "data").unlink()


@contextlib.contextmanager
def neighbour_anonymous(cgroup: Cgroup, _folder: Path) -> Iterator[None]:
    """Another cgroup below the same limit has memory of programs."""
    with cgroup.neighbour() as other:

        def fill(ready: Ready) -> None:
            join(other)
            kept = bytearray(BLOCK) * (cgroup.part(0.4) // MIB)
            ready()
            signal.pause()
            del kept

        with helper(fill):
            yield


def neighbour_min(cgroup: Cgroup, folder: Path) -> AbstractContextManager[None]:
    """Most of a neighbour's cache is protected."""
    return neighbour(cgroup, folder, min=0.4)


def neighbour_low(cgroup: Cgroup, folder: Path) -> AbstractContextManager[None]:
    """Most of a neighbour's cache is protected as long as there is other memory."""
    return neighbour(cgroup, folder, low=0.4)


@contextlib.contextmanager
def own_min(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """The limit is the parent's, and the own cache is protected."""
    (cgroup.own / "memory.min").write_text(str(cgroup.part(0.5)))
    with active(cgroup, folder):
        yield


@contextlib.contextmanager
def high(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """A limit that throttles, with cache below it."""
    (cgroup.own / "memory.high").write_text(str(cgroup.part(0.5)))
    read_often(write_file(folder / "data", cgroup.part(0.3)))
    yield


@contextlib.contextmanager
def swap(cgroup: Cgroup, folder: Path) -> Iterator[None]:
    """There is swap."""
    path = write_file(Path("/swap"), 200 * MIB)
    path.chmod(0o600)
    subprocess.run(["mkswap", "-q", path], check=True, stdout=sys.stderr)
    subprocess.run(["swapon", path], check=True)
    try:
        read_often(write_file(folder / "data", cgroup.part(0.5)))
        yield
    finally:
        subprocess.run(["swapoff", path], check=True)
        path.unlink()


STATES: dict[str, State] = {
    state.__name__: state
    for state in (
        *(empty, inactive, active, dirty, very_dirty, mapped, locked, shared),
        *(names, inodes, opened, tmpfs_names, half_names, half_tmpfs_names, sockets),
        *(neighbour, neighbour_anonymous, neighbour_min, neighbour_low, own_min),
        *(high, swap),
    )
}


# -----------------------------------------------------------------------------
# What can be taken.


def take(most: int) -> tuple[int, str]:
    """The bytes that a child had in memory at once, and how that ended."""
    counter = mmap.mmap(-1, PAGE)
    counter[:8] = bytes(8)
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")
        _grow(most, counter)
    seen, since = -MIB, time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        taken = int.from_bytes(counter[:8], "little")
        if ended:
            return taken, "killed" if os.WIFSIGNALED(status) else "had all"
        if taken - seen >= MIB:
            seen, since = taken, time.monotonic()
        elif time.monotonic() - since > CRAWLS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return taken, "crawls"
        time.sleep(0.01)


def _grow(most: int, counter: mmap.mmap) -> None:
    kept = mmap.mmap(-1, most, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    statm = os.open("/proc/self/statm", os.O_RDONLY)

    def resident() -> int:
        return int(os.pread(statm, 100, 0).split()[1]) * PAGE

    base, taken, step = resident(), 0, 16 * PAGE
    for place in range(0, most - step + 1, step):
        kept[place : place + step] = BLOCK[:step]
        taken = max(taken, min(place + step, resident() - base))
        counter[:8] = taken.to_bytes(8, "little")
    os._exit(0)


def measure(state: str, folder: Path) -> dict[str, object]:
    """What is said, what is taken, and what the kernel's files said before."""
    from coresize import detect

    detect()  # with all that it imports
    cgroup = Cgroup()
    with STATES[state](cgroup, folder):
        memory = detect().memory
        answer = {
            "state": state,
            "version": cgroup.version,
            "told": memory.available,
            "soft": memory.soft_available,
            "limit": cgroup.limit,
            "usage": cgroup.used(),
            "kernel": cgroup.kernel(),
            "stat": cgroup.stat(),
        }
        taken, end = take(2 * cgroup.limit)
    return {**answer, "taken": taken, "end": end}


def main(state: str, name: str, *device: str) -> None:
    """Print the answer."""
    folder = Path(name)
    folder.mkdir(parents=True)
    if device:
        subprocess.run(["mount", *device, folder], check=True)
    try:
        answer = measure(state, folder)
    finally:
        if device:
            subprocess.run(["umount", "-l", folder], check=True)
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
