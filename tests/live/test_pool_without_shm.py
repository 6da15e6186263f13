"""A pool where there is no /dev/shm, as in AWS Lambda: no semaphore can be made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest


PROGRAM = """\
import multiprocessing
from coresize import ProcessPoolExecutor, run_batch

if __name__ == "__main__":
    try:
        multiprocessing.Lock()
    except OSError:
        print("no semaphores")
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(abs, [-1, -2])))
    print(run_batch(abs, [-3], max_workers=1, progress=False).results())
"""

#: In a mount namespace of its own: an empty folder that nothing can write to.
HIDE = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or not shutil.which("unshare"),
    reason="only root can hide /dev/shm, with unshare",
)
def test_a_pool_needs_no_semaphore(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    hidden = ["unshare", "--mount", "sh", "-c", HIDE, "sh"]
    done = subprocess.run(
        [*hidden, sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout == "no semaphores\n[1, 2]\n[3]\n", done.stderr
