"""What one call of available_cores() costs, as ratios measured in one run.

Beside loky.cpu_count(), and beside the same reads and system calls in a bare loop; then
once more with hundreds of environment variables, as in a Kubernetes pod, and with
thousands of mounts, as on a busy node (needs root, for a mount namespace).

    python benchmarks/calls.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

import loky
from turns import least_in_turns

from coresize import available_cores, detect
from coresize.host import Live
from coresize.testing import use_host


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOUNTS = 5000
VARIABLES = 300

MANY = "--in-many-mounts"

#: A tmpfs of 70 mounts, and as many copies of it as are needed.
SCRIPT = """\
set -e
mount -t tmpfs tmpfs {folder}
cd {folder}
mkdir one
mount -t tmpfs tmpfs one
for i in $(seq 70); do mkdir one/$i; mount -t tmpfs tmpfs one/$i; done
for i in $(seq {copies}); do mkdir copy$i; mount --rbind one copy$i; done
cd /
exec "$@"
"""


class Noting(Live):
    """This machine, with a note of the files that are asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def read(self, path: str) -> str:
        """See `Host.read`."""
        self.paths.append(path)
        return super().read(path)


def main() -> None:
    """Print the table, again with many variables, and again below many mounts."""
    _measure()
    if MANY in sys.argv:
        return
    os.environ.update({f"SERVICE_{number}_PORT": "80" for number in range(VARIABLES)})
    _measure()
    _again_below_many_mounts()


def _measure() -> None:
    lines = len(Path("/proc/self/mountinfo").read_text().splitlines())
    python = sys.version.split()[0]
    print(f"\nPython {python}, {lines} lines of mountinfo, {len(os.environ)} variables")
    paths = _paths_read()
    functions = {
        "loky.cpu_count()": loky.cpu_count,
        "the same reads in a bare loop": lambda: _bare(paths),
        "available_cores()": available_cores,
        "detect()": detect,
    }
    measures = {name: _seconds(function) for name, function in functions.items()}
    costs = least_in_turns(measures, rounds=200)
    ours = costs["available_cores()"]
    for name, cost in costs.items():
        print(
            f"{name:32}{cost * 1e6:10.1f} us   {cost / ours:6.2f} of available_cores()"
        )
    bare = costs["the same reads in a bare loop"]
    if lines < 100:
        _judge("available_cores() / loky", ours / costs["loky.cpu_count()"], 1.5)
    else:
        _judge("available_cores(), ms", ours * 1e3, 15)
    _judge("available_cores() / bare reads", ours / bare, 1.5)


def _judge(what: str, value: float, most: float) -> None:
    print(
        f"{what:32}{value:10.2f}      at most {most}: {'ok' if value <= most else 'NO'}"
    )


def _paths_read() -> list[str]:
    """The files that available_cores() asks for here, those that are missing too."""
    host = Noting()
    with use_host(host):
        available_cores()
    return host.paths


def _bare(paths: list[str]) -> None:
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        while os.read(file, 16384):
            pass
        os.close(file)
    os.sched_getaffinity(0)


def _seconds(function: Callable[[], object]) -> Callable[[], float]:
    """A measure of the seconds that one call takes, short enough for a quiet moment."""
    number = max(1, int(0.002 / timeit.timeit(function, number=20) * 20))
    return lambda: timeit.timeit(function, number=number) / number


def _again_below_many_mounts() -> None:
    if os.geteuid() != 0:
        print("\nNot measured with many mounts: that needs root.")
        return
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, __file__, MANY]
        script = SCRIPT.format(folder=folder, copies=MOUNTS // 71)
        subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", *program], check=True
        )


if __name__ == "__main__":
    main()
