"""A program where much is wrong, and what is diagnosed then."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


sys.path[:0] = ["/payload/src", "/payload/libraries"]

OWN = Path("/sys/fs/cgroup/p/own")
#: Beside the own one, where a kill takes all that is in it.
CHILD = OWN.parent / "child"
GROW = 'echo $$ > "$1/cgroup.procs" && exec "$0" -c "kept = b\'x\' * (256 << 20)"'
MIB = 1024**2


def lose_a_child() -> None:
    """Let the kernel kill one for memory."""
    CHILD.mkdir()
    (CHILD / "memory.max").write_text(str(64 * MIB))
    done = subprocess.run(["sh", "-c", GROW, sys.executable, CHILD], check=False)
    assert done.returncode == -9, done.returncode
    CHILD.rmdir()


def fill(part: float) -> bytearray:
    """Take so much of what is below memory.high."""
    high = int((OWN / "memory.high").read_text())
    current = int((OWN / "memory.current").read_text())
    return bytearray(b"x") * int(part * high - current)


def main() -> None:
    """Print what is diagnosed."""
    from coresize import diagnose

    lose_a_child()
    diagnose(measure=False)  # with all that it imports
    loads = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)
    ]
    time.sleep(3)
    kept = fill(0.94)
    sys.stdout.write(diagnose(measure=False).as_json())
    for load in loads:
        load.kill()
        load.wait()
    del kept


if __name__ == "__main__":
    main()
