"""available_cores() beside the tools that people use for the same question.

One table of import cost, cost of a call and answers: on this machine, and in real
containers with cgroup v1 (needs root and runc). With --write the table is kept in
docs/reference/peers.md.

    python benchmarks/peers.py --write
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import timeit
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "peers.md"
sys.path.insert(0, str(ROOT / "tests"))

from live import containers  # noqa: E402 - found by the line above
from live.containers import Container  # noqa: E402
from turns import least_in_turns  # noqa: E402


#: name: (what to import, what to call)
PEERS = {
    "os.cpu_count()": ("import os", "os.cpu_count()"),
    "len(os.sched_getaffinity(0))": ("import os", "len(os.sched_getaffinity(0))"),
    "os.process_cpu_count()": ("import os", "os.process_cpu_count()"),
    "psutil.cpu_count()": ("import psutil", "psutil.cpu_count()"),
    "loky.cpu_count()": ("import loky", "loky.cpu_count()"),
    "joblib.cpu_count()": ("import joblib", "joblib.cpu_count()"),
    "dask.system.cpu_count()": ("from dask.system import cpu_count", "cpu_count()"),
    "coresize.available_cores()": (
        "from coresize import available_cores",
        "available_cores()",
    ),
}

#: heading: (container, the right answer on 2 CPUs or more)
PLACES = {
    "quota 1.0": (Container(quota=1.0), 1),
    "1.0 on the parent": (Container(parent_quota=1.0, view="shared"), 1),
    "1.0, host's paths": (Container(quota=1.0, view="shared"), 1),
    "cpuset of 1": (Container(cpuset="0"), 1),
    "Slurm step of 1": (
        Container(
            env={
                "SLURM_JOB_ID": "7",
                "SLURMD_NODENAME": "n1",
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": "0",
                "SLURM_CPUS_PER_TASK": "1",
                "SLURM_CPUS_ON_NODE": "2",
            }
        ),
        1,
    ),
}


def main() -> None:
    """Measure, print, and keep the table where that is asked for."""
    text = "\n".join(_table())
    print(text)
    if "--write" in sys.argv:
        start = PAGE.read_text().partition("<!-- table -->")[0]
        PAGE.write_text(f"{start}<!-- table -->\n\n{text}\n")


def _table() -> list[str]:
    places = {} if containers.missing() else PLACES
    imports, calls = _import_costs(), _call_costs()
    here = _answers_here()
    answers = {place: _answers_in(case) for place, (case, _) in places.items()}
    rows = [
        ["", "import, ms", "of loky's", "call, us", "of loky's", "here", *places],
        ["---"] * (6 + len(places)),
    ]
    for name in PEERS:
        cells = [f"`{name}`", *_cost(imports, name, 1e3), *_cost(calls, name, 1e6)]
        cells.append(here[name])
        for place, (_, right) in places.items():
            answer = answers[place][name]
            cells.append(answer if answer in (str(right), "-") else f"**{answer}**")
        rows.append(cells)
    table = [f"| {' | '.join(row)} |" for row in rows]
    return [_machine(), "", *table]


def _machine() -> str:
    versions = []
    for distribution in ("psutil", "loky", "joblib", "dask"):
        try:
            versions.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError:
            versions.append(f"no {distribution}")
    return (
        f"Python {platform.python_version()}, Linux {platform.release()}, "
        f"{', '.join(versions)}. Least of repeated runs, in turns."
    )


def _cost(costs: dict[str, float], name: str, scale: float) -> list[str]:
    if name not in costs:
        return ["-", "-"]
    return [
        f"{costs[name] * scale:.1f}",
        f"{costs[name] / costs['loky.cpu_count()']:.2f}",
    ]


def _works(name: str) -> bool:
    try:
        exec("\n".join(PEERS[name]), {})
    except (ImportError, AttributeError):
        return False
    return True


def _import_costs() -> dict[str, float]:
    """Seconds of each import over a bare interpreter."""
    bare = "pass"
    programs = {name: PEERS[name][0] for name in PEERS if _works(name)} | {bare: bare}
    measures = {name: _seconds_to_run(program) for name, program in programs.items()}
    best = least_in_turns(measures, rounds=15)
    return {name: max(0.0, best[name] - best[bare]) for name in best if name != bare}


def _seconds_to_run(program: str) -> Callable[[], float]:
    command = [sys.executable, "-I", "-c", program]
    return lambda: timeit.timeit(lambda: subprocess.run(command, check=True), number=1)


def _call_costs() -> dict[str, float]:
    """Seconds of each call, after the first."""
    measures = {name: _seconds_to_call(*PEERS[name]) for name in filter(_works, PEERS)}
    return least_in_turns(measures, rounds=9)


def _seconds_to_call(setup: str, call: str) -> Callable[[], float]:
    timer, number = timeit.Timer(call, setup), 500
    return lambda: timer.timeit(number) / number


def _program() -> str:
    """Prints the answer of each peer, a line each."""
    lines = []
    for setup, call in PEERS.values():
        lines += [
            "try:",
            f"    {setup}",
            f"    print({call})",
            "except (ImportError, AttributeError):",
            "    print('-')",
        ]
    return "\n".join(lines)


def _answers_here() -> dict[str, str]:
    out = subprocess.run(
        [sys.executable, "-c", _program()], capture_output=True, text=True, check=True
    ).stdout
    return dict(zip(PEERS, out.split(), strict=True))


def _answers_in(container: Container) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        out = containers.run(
            container, ["-W", "ignore", "-c", _program()], Path(folder)
        )
    return dict(zip(PEERS, out.split(), strict=True))


if __name__ == "__main__":
    main()
