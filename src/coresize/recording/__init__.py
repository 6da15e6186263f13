"""Recorded machines: reading host files, and recording this machine."""

from __future__ import annotations

from coresize import storage
from coresize.detection import available, parse_cgroup
from coresize.detection.cgroup import MOUNTINFO
from coresize.errors import HostFileError
from coresize.host import current
from coresize.recording import hostfile
from coresize.recording.recorded import Recording


TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from coresize.host import Host
    from coresize.recording.hostfile import HostFile
    from coresize.recording.recorded import Recorded


def load_host(path: str | os.PathLike[str]) -> Recorded:
    """The machine in a host file, as written by ``coresize record FILE``.

    Raises:
        HostFileError: the file cannot be read or is not a host file.
    """
    return read_host_file(path).host


def read_host_file(path: str | os.PathLike[str]) -> HostFile:
    """The content of a host file: the host, a note and the expected answers.

    Raises:
        HostFileError: the file cannot be read or is not a host file.
    """
    name = str(path)
    try:
        text = storage.read_named(name)
    except OSError as error:
        raise HostFileError(name, str(error.strerror)) from None
    return hostfile.loads(text, name)


def record_host(host: Host | None = None) -> Recorded:
    """Record everything that detection reads of this machine or of another host.

    Physical cores are included; of mountinfo, only the lines of cgroups are kept.

    >>> from coresize import detect
    >>> from coresize.testing import container, record_host
    >>> detect(record_host(container(quota=2.5))).cpu.limit
    2.5
    """
    recording = Recording(host or current())
    available.detect(recording)
    available.cores_of(recording, reserve=None, rounding="nearest", physical=True)
    files = recording.noted.files
    if MOUNTINFO in files:
        files[MOUNTINFO] = parse_cgroup.cgroup_lines(files[MOUNTINFO])
    return recording.noted
