"""A slow disk and few cores, with tasks that want more of both; what is diagnosed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path


sys.path[:0] = ["/payload/src", "/payload/libraries"]

DISK, SLOW = "/dev/vdb", Path("/mnt/slow")
OWN = Path("/sys/fs/cgroup/p/own")

#: Percent of the last minute that tasks of the cgroup are to wait, and seconds for it.
WAITED = {"cpu": 55.0, "io": 30.0}
LONGEST = 300.0


def compute() -> None:
    """All of a core, which another wants as well."""
    while True:
        pass


def read() -> None:
    """What no memory keeps."""
    with (SLOW / "data").open("rb", buffering=0) as file:
        while True:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            file.read()


def strain() -> None:
    """Have tasks wait, until that has been so for a part of a minute."""
    cores = len(os.sched_getaffinity(0))
    works = [compute] * 2 * cores + [read] * cores
    busy = [multiprocessing.Process(target=work, daemon=True) for work in works]
    for process in busy:
        process.start()
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        time.sleep(1.0)
        if all(waited(name) > least for name, least in WAITED.items()):
            break
    for process in busy:
        process.kill()
        process.join()


def waited(resource: str) -> float:
    """Percent of the last minute."""
    text = (OWN / f"{resource}.pressure").read_text()
    return float(text.partition("avg60=")[2].split()[0])


def main() -> None:
    """Print what is diagnosed."""
    from coresize import diagnose

    SLOW.mkdir()
    subprocess.run(["mount", "-o", "sync", DISK, SLOW], check=True)
    (SLOW / "data").write_bytes(bytes(2 * 1024**2))
    strain()
    os.environ["TMPDIR"] = str(SLOW)
    sys.stdout.write(diagnose().as_json())


if __name__ == "__main__":
    main()
