"""Processes of a library that is a copy of multiprocessing, such as billiard."""

from __future__ import annotations

import subprocess
import sys

import pytest


#: The current process has a key that cannot be sent, as in a worker of celery.
PROGRAM = """\
import multiprocessing, sys
from multiprocessing import process
from coresize import ProcessPoolExecutor, profile_task

class Key(bytes):
    def __reduce__(self):
        raise TypeError("only to processes of its own library")

if __name__ == "__main__":
    key = Key(b"0123456789abcdef")
    process.current_process()._config["authkey"] = key
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(1, context) as pool:
        print(pool.submit(abs, -1).result())
    print(profile_task(abs, -1).peak_memory > 0)
    assert process.current_process().authkey == key
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_key_that_only_another_library_can_send(method, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py", method],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("1\nTrue\n", 0), done.stderr
