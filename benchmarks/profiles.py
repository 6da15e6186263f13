"""How near measured peaks are to what the kernel charged a cgroup, and a plan's cost.

The reference is the high water mark of a cgroup that the task is moved into, ready to
begin, as it stands: memory.peak of v2 or memory.max_usage_in_bytes of v1. It needs root
and a cgroup hierarchy that may be written.

    python benchmarks/profiles.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import timeit
from functools import partial
from pathlib import Path

from turns import least_in_turns

from coresize import (
    TaskProfile,
    detect,
    load_settings,
    plan_workers,
    profile_task,
    units,
)
from coresize.measuring.meters import make_meter
from coresize.testing import container


TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import tasks  # noqa: E402 - found by the line above


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MIB = 1024**2

#: Runs a task when told so, and stays until told to end.
RUNNER = """\
import sys
sys.path.insert(0, sys.argv[1])
import tasks
task, words = getattr(tasks, sys.argv[2]), eval(sys.argv[3])
print("ready", flush=True); input()
kept = task(*words)
print("done", flush=True); input()
"""


def main() -> None:
    """Print both tables."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(b"x" * (200 * MIB))
        file.flush()
        cases: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
            "300 MiB numpy array": (tasks.hold, (300, 0.1)),
            "the same for 5 ms": (tasks.array_for_a_moment, (300,)),
            "2 forks of a 500 MiB parent": (tasks.fork_readers, (500, 2)),
            "fork writes 200 of 500 MiB": (tasks.fork_writer, (500, 200)),
            "tree of 3 subprocesses": (tasks.children, (100, 3)),
            "200 MiB mmap'd file read": (tasks.read_a_file, (file.name,)),
        }
        print(f"{'MiB':30}{'kernel':>8}{'proc':>9}{'cgroup':>9}{'psutil':>9}")
        for name, (task, words) in cases.items():
            print(f"{name:30}" + _row(task, words))
    _plans()


def _row(task: Callable[..., Any], words: tuple[Any, ...]) -> str:
    charged = _charged(task.__name__, words)
    row = f"{charged / MIB:8.1f}"
    for method in ("proc", "cgroup", "psutil"):
        peak = profile_task(task, *words, method=method).peak_memory or 0
        near = abs(peak - charged) <= max(0.05 * charged, 2 * MIB)
        row += f"{peak / MIB:8.1f}{' ' if near else '*'}"
    return row


def _charged(task: str, words: tuple[Any, ...]) -> int:
    """What the kernel charged at most, in bytes."""
    meter = make_meter()
    if meter is None:
        sys.exit("no cgroup may be made here")
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(TESTS), task, repr(words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    process.stdout.readline()
    meter.join(process.pid)
    process.stdin.write("go\n")
    process.stdin.flush()
    process.stdout.readline()
    mark = units.whole(Path(meter.mark).read_text())
    process.communicate("end\n")
    meter.close()
    return mark


def _plans() -> None:
    limits = detect(container(cpus=16, memory="16GiB"))
    settings = load_settings()
    profile = TaskProfile(peak_memory="1GiB", cpu=1.0, wall=4.0)
    functions: dict[str, Callable[[], object]] = {
        "limits, settings given": lambda: plan_workers(
            memory=2**31, limits=limits, settings=settings
        ),
        "and a profile": lambda: plan_workers(
            profile=profile, limits=limits, settings=settings
        ),
        "limits given": lambda: plan_workers(memory=2**31, limits=limits),
        "nothing given": lambda: plan_workers(memory=2**31),
    }
    calls = 1000
    timers = {name: timeit.Timer(call) for name, call in functions.items()}
    measures = {name: partial(timer.timeit, calls) for name, timer in timers.items()}
    least = least_in_turns(measures, rounds=10)
    print("\nplan_workers(), us a call")
    for name, seconds in least.items():
        print(f"{name:30}{seconds / calls * 1e6:8.1f}")


if __name__ == "__main__":
    main()
