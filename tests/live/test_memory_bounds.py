"""Limits of one process, and of the number of processes, that a kernel enforces."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has these")

GIB = 1024**3

TAKE = """\
import json, mmap, sys
from coresize import InsufficientMemoryError, available_memory, plan_workers

def can_take(size):
    try:
        mmap.mmap(-1, int(size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True

plan = plan_workers(memory="3GiB")
available_memory()
told = available_memory()
taken = [can_take(told * part) for part in (0.98, 1 / 0.85)]
print(json.dumps({"told": told, "taken": taken, "plan": plan, "reason": plan.reason}))
"""


def _program(text, first=(), **details):
    done = subprocess.run(
        [*first, sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **details,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_what_a_limit_of_one_process_leaves_can_be_taken(name):
    limit = getattr(resource, name)
    seen = _program(TAKE, preexec_fn=lambda: resource.setrlimit(limit, (GIB, GIB)))
    assert seen["taken"] == [True, False], seen
    assert seen["told"] < GIB
    assert seen["plan"] == 1
    assert f"{name} permits a process 1.0 GiB / 3.0 GiB a task" in seen["reason"]


# --- The number of workers --------------------------------------------------------

POOL = """\
import json, logging, sys
from coresize import ProcessPoolExecutor, detect, plan_workers

class Lines(logging.Handler):
    said = []
    def emit(self, record):
        self.said.append(record.getMessage())

logging.getLogger("coresize").addHandler(Lines())
logging.getLogger("coresize").setLevel(logging.INFO)
if __name__ == "__main__":
    plan = plan_workers()
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(abs, range(-60, 0)))
    facts = {fact.source: fact.raw for fact in detect().facts}
    print(json.dumps({"plan": plan, "binding": plan.binding, "results": results,
        "refused": pool._refused, "said": Lines.said, "facts": facts}))
"""

#: More cores than there are, so that another bound binds.
MANY = {"CORESIZE_OVERRIDE_CORES": "30"}


def _check(seen, source, workers):
    assert seen["results"] == list(range(60, 0, -1))
    assert source in seen["facts"]
    name = source.partition(":")[2]
    assert any(f": {name} binds (" in line for line in seen["said"])
    assert 1 <= seen["plan"] <= workers


@contextlib.contextmanager
def _pids(most):
    """A cgroup of the v1 pids controller."""
    rows = Path("/proc/self/cgroup").read_text().splitlines()
    own = [row.split(":", 2)[2] for row in rows if ":pids:" in row]
    root = Path(f"/sys/fs/cgroup/pids{own[0] if own else ''}")
    if not own or not os.access(root / "cgroup.procs", os.W_OK):
        pytest.skip("no cgroup v1 pids hierarchy that may be written")
    folder = root / f"coresize-test-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "pids.max").write_text(str(most))
        yield folder
    finally:
        for _attempt in range(100):  # the last process may still be on its way out
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.02)


def test_a_pool_fits_into_pids_max():
    with _pids(12) as folder:
        seen = _program(
            POOL,
            env={**os.environ, **MANY},
            preexec_fn=lambda: (folder / "cgroup.procs").write_text("0"),
        )
    _check(seen, "cgroup1:pids.max", 7)
    assert seen["refused"] == ""


#: Another user, who may read what root may: the interpreter need not be everybody's.
OTHER = (
    *("setpriv", "--reuid", "54321", "--clear-groups"),
    *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
)


def test_a_pool_fits_into_the_processes_of_its_user():
    tried = shutil.which("setpriv") and subprocess.run([*OTHER, "true"], check=False)
    if not tried or tried.returncode:
        pytest.skip("nobody else can be become here")
    limit = (resource.RLIMIT_NPROC, (12, 12))
    seen = _program(
        POOL,
        first=OTHER,
        env={**os.environ, **MANY},
        cwd="/",
        preexec_fn=lambda: resource.setrlimit(*limit),
    )
    _check(seen, "rlimit:RLIMIT_NPROC", 7)
    assert seen["refused"] == ""


def test_a_pool_fits_into_the_files_of_its_parent():
    limit = (resource.RLIMIT_NOFILE, (36, 36))
    seen = _program(
        POOL,
        env={**os.environ, **MANY},
        preexec_fn=lambda: resource.setrlimit(*limit),
    )
    _check(seen, "rlimit:RLIMIT_NOFILE", 18)
