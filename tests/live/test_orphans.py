"""Tools of workers that the kernel has killed for memory, in real cgroups."""

from __future__ import annotations

import json

import pytest
from live import cgroups


pytestmark = pytest.mark.skipif(
    cgroups.missing() is not None, reason=str(cgroups.missing())
)

#: At the first try a tool holds 150 MiB, and the worker, which is the larger, takes all
#: that is left. At the second the worker alone takes what fits only without that tool.
PROGRAM = """\
import json, os, subprocess, sys, time
from coresize import ProcessPoolExecutor, run_batch
HOLD = "kept = bytearray(b'x') * (150 << 20); print(flush=True)"
WAIT = "; import time; time.sleep(999)"

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

def task(path):
    if path == "small":
        return 0
    if os.path.exists(path):
        return len(bytearray(b"x") * (300 << 20)) >> 20
    words = [sys.executable, "-S", "-E", "-c", HOLD + WAIT]
    tool = subprocess.Popen(words, **PIPES, **MORE)
    tool.stdout.readline()
    open(path, "w").write(str(tool.pid))
    kept = []
    while True:
        kept.append(bytearray(b"x") * (20 << 20))

if __name__ == "__main__":
"""


@pytest.mark.parametrize(
    "more", ["", "start_new_session=True", "env={}", "env={}, start_new_session=True"]
)
def test_the_next_try_has_the_memory_of_the_tool(tmp_path, more):
    script = tmp_path / "script.py"
    body = (
        "    with ProcessPoolExecutor(2, memory='auto') as pool:\n"
        "        pool.submit(task, 'small').result()\n"
        "        future = pool.submit(task, sys.argv[1])\n"
        "        print(json.dumps([future.result(), future.attempts]))\n"
    )
    script.write_text(PROGRAM.replace("MORE", f"dict({more})") + body)
    done = cgroups.run(400, script, tmp_path / "note")
    assert done.code == 0, done.err
    assert json.loads(done.out) == [300, 2]
    assert done.kills == 1


def test_the_next_try_of_a_batch_has_it_as_well(tmp_path):
    script = tmp_path / "script.py"
    body = (
        "    items = ['small', sys.argv[1]]\n"
        "    batch = run_batch(task, items, max_workers=1, memory='auto')\n"
        "    print(json.dumps([[one.status, one.value] for one in batch]))\n"
    )
    script.write_text(PROGRAM.replace("MORE", "{}") + body)
    done = cgroups.run(400, script, tmp_path / "note")
    assert done.code == 0, done.err
    assert json.loads(done.out) == [["ok", 0], ["ok", 300]]
