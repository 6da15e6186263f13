"""Machines written down: host files read, and this machine recorded."""

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
    """The machine in a host file, as ``coresize record FILE`` writes it.

    Raises:
        HostFileError: the file cannot be read or is no host file.
    """
    return read_host_file(path).host


def read_host_file(path: str | os.PathLike[str]) -> HostFile:
    """A host file with its note and the answers that it expects.

    Raises:
        HostFileError: the file cannot be read or is no host file.
    """
    name = str(path)
    try:
        text = storage.read_named(name)
    except OSError as error:
        raise HostFileError(name, str(error.strerror)) from None
    return hostfile.loads(text, name)


def record_host(host: Host | None = None) -> Recorded:
    """This machine, or another, as far as detection looks at it.

    Of mountinfo only the lines of cgroups; physical cores included.

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
