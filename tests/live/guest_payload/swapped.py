"""A program that has more than fits, with swap to put it in, and what is diagnosed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


sys.path[:0] = ["/payload/src", "/payload/libraries"]

SWAP = Path("/swap")
MIB = 1024**2
PAGE = 4096

#: Percent of the last minute, an average that needs a while to rise, and seconds.
WAITED, LONGEST = 12.0, 60.0


def add_swap(size: int) -> None:
    """A swap file, as somebody adds one."""
    with SWAP.open("wb") as file:
        file.truncate(0)
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    SWAP.chmod(0o600)
    subprocess.run(["mkswap", "-q", SWAP], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["swapon", SWAP], check=True)


def wait_for_pages(kept: bytearray) -> None:
    """Touch one page after the other, until that has taken part of a minute."""
    pressure = Path("/sys/fs/cgroup/p/own/memory.pressure")
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        for place in range(0, len(kept), PAGE):
            kept[place] = 1
        waited = pressure.read_text().partition("avg60=")[2].split()[0]
        if float(waited) > WAITED:
            break


def main() -> None:
    """Print what is diagnosed."""
    from coresize import diagnose

    add_swap(256 * MIB)
    diagnose(measure=False)  # with all that it imports
    kept = bytearray(b"x") * (128 * MIB)
    wait_for_pages(kept)
    sys.stdout.write(diagnose(measure=False).as_json())
    del kept


if __name__ == "__main__":
    main()
