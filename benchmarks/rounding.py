"""What rounding a fractional quota up or down costs, measured in real containers.

Pure-CPU tasks in a process pool under a quota, by number of workers: tasks per second,
and the longest single task, which throttling stretches. Needs root and runc.

    python benchmarks/rounding.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from live import containers
from live.containers import Container


SECONDS = 3
PROGRAM = f"""
import sys, time
from concurrent.futures import ProcessPoolExecutor

def task(_):
    start = time.perf_counter()
    total = 0
    for number in range(200_000):
        total += number * number
    return time.perf_counter() - start

workers = int(sys.argv[1])
with ProcessPoolExecutor(workers) as pool:
    list(pool.map(task, range(workers * 4)))
    start, times = time.perf_counter(), []
    while time.perf_counter() - start < {SECONDS}:
        times += pool.map(task, range(workers * 8))
    seconds = time.perf_counter() - start
print(len(times) / seconds, sorted(times)[len(times) * 99 // 100] * 1e3)
"""


def main() -> None:
    """Print the table."""
    print("quota  workers  tasks/s  99 % of tasks within, ms")
    for quota in (0.5, 1.0, 1.2, 1.34, 1.5, 1.8, 2.0):
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                # The pool's semaphores need a writable /dev/shm, which runc gives.
                out = containers.run(
                    Container(quota=quota), ["-c", PROGRAM, str(workers)], Path(folder)
                )
            rate, slowest = map(float, out.split())
            print(f"{quota:5}  {workers:7}  {rate:7.1f}  {slowest:8.1f}")


if __name__ == "__main__":
    main()
