"""120 tasks of 10 to 300 MiB that wait half a second, in a cgroup of 800 MiB.

Our pool with declared and with learned needs; the standard library's with 8 workers and
less, down to the first number with which all tasks end; and what becomes of the tasks
in pools of others.
Each runs in a process and a cgroup of its own. It needs a memory hierarchy of cgroup v1
that may be written. With --write the table is kept in docs/reference/pools.md.

    python benchmarks/makespan.py --write
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import contenders
import tables


FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tests"))

from live import cgroups  # noqa: E402 - found by the line above


LIMIT, WORKERS, TIMEOUT = 800, 8, 60
SEED, ROUNDS = 0, 2
_random = random.Random(SEED)
SIZES = [_random.randint(10, 300) for _ in range(120)]

#: No schedule is shorter: memory x time of all tasks over the limit, or the longest.
BOUND = max(sum(SIZES) * contenders.WAIT / LIMIT, contenders.WAIT)

PROGRAM = """\
sys.path.insert(0, sys.argv[1])
import contenders
contenders.run(sys.argv[2], [int(size) for size in sys.argv[4:]], int(sys.argv[3]))
"""

OURS = ("coresize, declared", "coresize, auto")
FIXED = "standard library"
PEERS = ("loky", "joblib", "pebble", "mpire")


class Run:
    """One run of one pool."""

    def __init__(self, name: str, workers: int) -> None:
        self.name, self.workers = name, workers
        done = cgroups.run(
            LIMIT, PROGRAM, FOLDER, name, workers, *SIZES, timeout=TIMEOUT
        )
        rows = [tuple(map(float, line.split())) for line in done.out.splitlines()]
        self.results = len(rows)
        self.seconds = rows[-1][0] if rows else 0.0
        #: As BOUND, with the time that each task took, which fills its memory first.
        self.bound = sum(size * seconds for _, size, seconds in rows) / LIMIT
        self.kills = done.kills
        errors = done.err.split() if len(done.err.split()) == 1 else []
        self.end = errors[0] if errors else "hangs" if done.code else "ends"
        print(*self.row(), file=sys.stderr, flush=True)

    @property
    def is_whole(self) -> bool:
        """Whether all tasks have ended."""
        return self.results == len(SIZES)

    def row(self) -> list[str]:
        """For the table."""
        cells = [self.name, str(self.workers), f"{self.results} of {len(SIZES)}"]
        if self.is_whole:
            ratios = (self.seconds / BOUND, self.seconds / self.bound)
            cells += [f"{self.seconds:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
        else:
            cells += ["-"] * 3
        return [*cells, str(self.kills), self.end]


def main() -> None:
    """Print the table, and keep it where that is asked for."""
    reason = cgroups.missing()
    if reason is not None:
        print(f"Not measured: {reason}.")
        return
    fixed = _sweep(FIXED)
    ours: dict[str, Run] = {}
    for _ in range(ROUNDS):
        for name in OURS:
            ours[name] = _better(ours.get(name), Run(name, WORKERS))
        fixed[-1] = _better(fixed[-1], Run(FIXED, fixed[-1].workers))
    without = Run("coresize, without memory=", WORKERS)
    rows = [*ours.values(), *fixed, without, *(Run(name, WORKERS) for name in PEERS)]
    lines = _page(rows)
    print("\n".join(lines))
    if "--write" in sys.argv:
        tables.keep("reference/pools.md", "makespan", lines)


def _sweep(name: str) -> list[Run]:
    """Fixed numbers of workers, until one is found with which all tasks end."""
    runs: list[Run] = []
    for workers in range(WORKERS, 0, -1):
        runs.append(Run(name, workers))
        if runs[-1].is_whole:
            break
    return runs


def _better(one: Run | None, other: Run) -> Run:
    if one is None or (other.is_whole and not one.is_whole):
        return other
    return min(one, other, key=lambda run: (not run.is_whole, run.seconds))


def _page(rows: list[Run]) -> list[str]:
    heads = ["workers", "results", "seconds", "of the bound", "of the bound as run"]
    heads += ["kills", "the pool"]
    text = (
        f"{tables.machine(*PEERS)}; {len(SIZES)} tasks with {sum(SIZES)} MiB in all "
        f"(seed {SEED}). Lower bound {BOUND:.1f} s. Of several runs, in turns, the "
        "least."
    )
    return [
        text,
        "",
        *tables.table(["", *heads], (run.row() for run in rows)),
    ]


if __name__ == "__main__":
    main()
