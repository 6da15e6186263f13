"""A program whose temporary folder is on NFS, served from here; what is diagnosed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


sys.path[:0] = ["/payload/src", "/payload/libraries"]

SERVED, MOUNTED = Path("/srv/temporary"), Path("/mnt/temporary")


def run(*command: str) -> None:
    """A step of an administrator's."""
    subprocess.run(command, check=True, stdout=sys.stderr)


def serve() -> None:
    """NFS version 4 over the loopback, and the mount of it."""
    SERVED.mkdir(parents=True)
    MOUNTED.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "tmpfs", str(SERVED))
    run("modprobe", "nfsd")
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    run("exportfs", "-o", "rw,no_root_squash,fsid=0", f"127.0.0.1:{SERVED}")
    run("rpc.nfsd", "--no-nfs-version", "3", "--no-udp", "1")
    Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")  # none to wait for
    run("rpc.mountd", "--no-nfs-version", "3")
    run("mount", "-t", "nfs4", "127.0.0.1:/", str(MOUNTED))


def main() -> None:
    """Print what is diagnosed."""
    from coresize import diagnose

    serve()
    os.environ["TMPDIR"] = str(MOUNTED)
    sys.stdout.write(diagnose(measure=False).as_json())


if __name__ == "__main__":
    main()
