"""Folders that pools use: shared memory, and temporary files."""

from __future__ import annotations

import math
import os
import tempfile
import time
from functools import partial

from coresize import storage
from coresize.detection.cgroup import MOUNTINFO
from coresize.detection.parse_cgroup import mounts
from coresize.diagnosis.findings import Finding, Skipped
from coresize.processes import segments
from coresize.units import format_bytes


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.diagnosis.context import Context

_SHM = "/dev/shm"

#: Sizes of /dev/shm: Docker's default is 64 MiB; joblib uses the folder from 2 GB free
#: space (joblib/_memmapping_reducer.py, SYSTEM_SHARED_MEM_FS_MIN_SIZE).
_SMALL, _OF_JOBLIB = 128 * 1024**2, 2 * 10**9

#: The free part, and the free bytes, of a disk that counts as nearly full.
_FULL, _LITTLE = 0.02, 256 * 1024**2

#: Types of file systems whose files are on another machine.
_REMOTE = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.blobfuse",
        "fuse.blobfuse2",
        "fuse.ceph-fuse",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "smb3",
    ]
)
#: Types of a container's own layer; rootless Podman uses the second.
_LAYERS = ("overlay", "fuse.fuse-overlayfs")
_TEMPORARY = ("JOBLIB_TEMP_FOLDER", "LOKY_TEMP", "TMPDIR", "TEMP", "TMP")


def shared_memory(context: Context) -> Iterator[Finding]:
    """The size of /dev/shm."""
    space = storage.space(_SHM)
    if space is not None:
        yield from compare(context, space)


def compare(context: Context, space: storage.Space) -> Iterator[Finding]:
    """The space of /dev/shm, compared with Docker's default and joblib's minimum."""
    title = "joblib does not use /dev/shm for large arrays"
    joblib = "joblib maps large arrays from files in the temporary folder instead"
    for name, folder in context.variable("JOBLIB_TEMP_FOLDER").items():
        if f"{folder}/".startswith(f"{_SHM}/"):
            title = f"joblib has {format_bytes(space.free)} in {_SHM} for large arrays"
            joblib = f"{name}={folder} makes joblib use it, and fail when it is full"
    if space.total < _SMALL:
        yield Finding(
            severity="warning",
            code="shm-small",
            check="/dev/shm",
            title=f"/dev/shm has only {format_bytes(space.total)}",
            seen=f"size {format_bytes(space.total)}, free {format_bytes(space.free)}",
            where=_SHM,
            why="shared memory that does not fit is created without an error, and "
            f"writing to it kills the process by SIGBUS; {joblib}",
            advice=_larger(context),
        )
    elif space.free < _OF_JOBLIB:
        yield Finding(
            severity="note",
            code="shm-small-for-joblib",
            check="/dev/shm",
            title=title,
            seen=f"free {format_bytes(space.free)}, and joblib wants 2 GB",
            where=_SHM,
            why=joblib,
            advice="make /dev/shm larger if workers share arrays",
        )


def _larger(context: Context) -> str:
    """The advice for a larger /dev/shm that fits into memory, in which it counts."""
    limit = context.limits.memory.limit
    if limit is None or limit // 2 >= _OF_JOBLIB:
        return (
            "docker run --shm-size=2g; in Kubernetes an emptyDir with medium: Memory "
            "at /dev/shm"
        )
    return (
        f"share less data, or raise the memory limit ({format_bytes(limit)}), which "
        "includes shared memory, before you use docker run --shm-size"
    )


def segments_refused(_context: Context) -> Iterator[Finding]:
    """Whether this system gives pools memory that processes share."""
    if not segments.is_available():
        yield Finding(
            severity="warning" if hasattr(os, "memfd_create") else "note",
            code="memory-not-shared",
            check="memfd_create",
            title="pools copy large data for each task",
            seen="memfd_create(2) is refused, or does not exist",
            where="this process",
            why="an argument that several tasks share takes memory once for each of "
            "them that runs",
            advice="allow memfd_create in the sandbox (seccomp), or pass the path of a "
            "file that tasks map",
        )


def temporary(context: Context) -> Iterator[Finding]:
    """Folders for temporary files: full, on another machine, on an overlay."""
    named = context.variable(*_TEMPORARY)
    try:
        default = tempfile.gettempdir()
    except FileNotFoundError as error:
        yield _nowhere(error)
    else:
        if default not in named.values():
            named["the default"] = default
    for name, folder in named.items():
        space = storage.space(folder)
        if space is None:
            yield _missing(name, folder)
            continue
        where = f"{name}: {folder}"
        if space.free < max(_FULL * space.total, min(_LITTLE, 0.1 * space.total)):
            yield _full(where, folder, space)
        kind = _kind(context, storage.real_path(folder))
        if kind in _REMOTE:
            yield _remote(where, folder, kind)
        elif kind in _LAYERS:
            yield _overlay(where, folder, kind)
        elif kind == "fuse" or kind.startswith("fuse."):
            yield _served(where, folder, kind)


def _nowhere(error: FileNotFoundError) -> Finding:
    return Finding(
        severity="error",
        code="temporary-folder-none",
        check="temporary folder",
        title="there is no folder for temporary files",
        seen=str(error.strerror),
        where="tempfile.gettempdir()",
        why="their disks are full, or they are not writable: pools and other programs "
        "that create temporary files fail",
        advice="free disk space, or set TMPDIR to a writable folder",
    )


def _missing(name: str, folder: str) -> Finding:
    return Finding(
        severity="warning",
        code="temporary-folder-missing",
        check="temporary folder",
        title=f"{name}={folder} is not a folder",
        seen=f"{folder} is a file, does not exist, or cannot be accessed",
        where=name,
        why="programs that write temporary files there fail, or use another folder",
        advice=f"create the folder, or set {name} to an existing folder",
    )


def _full(where: str, folder: str, space: storage.Space) -> Finding:
    return Finding(
        severity="warning",
        code="temporary-folder-full",
        check="temporary folder",
        title=f"the disk of {folder} is nearly full",
        seen=f"free {format_bytes(space.free)} of {format_bytes(space.total)}",
        where=where,
        why="joblib, loky and other libraries write data for workers there, and fail",
        advice="free disk space, or set JOBLIB_TEMP_FOLDER, LOKY_TEMP and TMPDIR to "
        "another disk",
    )


def _remote(where: str, folder: str, kind: str) -> Finding:
    return Finding(
        severity="warning",
        code="temporary-folder-remote",
        check="temporary folder",
        title=f"temporary files in {folder} are on another machine ({kind})",
        seen=f"file system {kind}",
        where=where,
        why="each write goes over the network, and mapped arrays are slow or wrong",
        advice="set TMPDIR, JOBLIB_TEMP_FOLDER and LOKY_TEMP to a local disk",
    )


def _overlay(where: str, folder: str, kind: str) -> Finding:
    return Finding(
        severity="note",
        code="temporary-folder-overlay",
        check="temporary folder",
        title=f"temporary files in {folder} go to the container's own layer",
        seen=f"file system {kind}",
        where=where,
        why="this layer is slower than a volume, and counts as the container's disk",
        advice="mount a volume or a tmpfs there if much is written",
    )


def _served(where: str, folder: str, kind: str) -> Finding:
    return Finding(
        severity="note",
        code="temporary-folder-fuse",
        check="temporary folder",
        title=f"temporary files in {folder} go through a program ({kind})",
        seen=f"file system {kind}",
        where=where,
        why="every read and write waits for that program, and possibly for a network",
        advice="set TMPDIR to a local disk if much is written",
    )


# -----------------------------------------------------------------------------
# The speed of the folder for temporary files, beside memory.


#: Bytes and number of the files that are written, and the seconds that they may take.
_SIZE, _FILES, _PATIENCE = 1024**2, 8, 1.0

#: How many times as long as memory a slow folder takes, and the seconds of one file
#: that are worth a finding.
_SLOWER, _LONG = 30, 0.02


def speed(_context: Context) -> Iterator[Finding]:
    """The seconds to write and read a small temporary file, beside a file in memory.

    Raises:
        Skipped: no file can be written, or this platform has no files in memory.
    """
    if not hasattr(os, "memfd_create"):
        reason = "this platform has no files in memory to compare with"
        raise Skipped(reason)
    folder = tempfile.gettempdir()
    in_memory = _fastest(lambda: os.memfd_create("coresize"))
    in_folder = _fastest(partial(_create, folder))
    yield from compare_speeds(folder, in_folder, in_memory)


def _create(folder: str) -> int:
    """The descriptor of a new file, which is removed when it is closed."""
    file, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)  # noqa: PTH108 - a text already
    return file


def _fastest(create: Callable[[], int]) -> float:
    """The seconds of the fastest file: created, written, read and removed."""
    content, best = bytes(_SIZE), math.inf
    end = time.perf_counter() + _PATIENCE
    for _ in range(_FILES):
        start = time.perf_counter()
        file = create()
        try:
            os.write(file, content)
            os.pread(file, _SIZE, 0)
        finally:
            os.close(file)
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return best


def compare_speeds(
    folder: str, in_folder: float, in_memory: float
) -> Iterator[Finding]:
    """A finding if a file in the folder takes much longer than a file in memory.

    Args:
        folder: the folder for temporary files.
        in_folder: the seconds of one file there.
        in_memory: the seconds of one file in memory.
    """
    times = in_folder / in_memory
    if times < _SLOWER or in_folder < _LONG:
        return
    yield Finding(
        severity="warning",
        code="temporary-folder-slow",
        check="temporary files",
        title=f"temporary files in {folder} are {times:.0f} times slower than memory",
        seen=f"{in_folder * 1000:.0f} ms to write and read {format_bytes(_SIZE)}, in "
        f"memory {in_memory * 1000:.1f} ms",
        where=folder,
        why="pools of other libraries put the data of workers there, and programs "
        "their temporary files",
        advice="set TMPDIR, JOBLIB_TEMP_FOLDER and LOKY_TEMP to a local disk, or to a "
        "tmpfs (which counts as memory)",
    )


def _kind(context: Context, folder: str) -> str:
    """The file system of a folder, by /proc/self/mountinfo (proc(5)); "" if unknown."""
    longest, kind = "", ""
    for mount_kind, point, _, _ in mounts(context.read(MOUNTINFO)):
        inside = point in ("/", folder) or folder.startswith(f"{point}/")
        if inside and len(point) >= len(longest):
            longest, kind = point, mount_kind
    return kind
