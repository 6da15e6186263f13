"""CPython's own tests of concurrent.futures, run against our executors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pydantic
import pytest

import coresize


SCRIPT = Path(__file__).with_name("cpython_futures.py")
PROBE = "import test.test_concurrent_futures, psutil, pydantic"


def _environment():
    """With coresize and what it needs, and the standard library of the interpreter."""
    folders = [
        str(Path(module.__file__).parents[1]) for module in (coresize, psutil, pydantic)
    ]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def _interpreter():
    """This one, or Debian's of the same version: not all bring the tests along."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}"):
        if Path(python).exists():
            command = [python, "-c", PROBE]
            done = subprocess.run(
                command, env=_environment(), capture_output=True, check=False
            )
            if done.returncode == 0:
                return python
    return None


PYTHON = _interpreter()

#: With the start method that is the default; the script takes the others, too.
RUNS = [
    ("process", "forkserverwait"),
    ("process", "forkserver", "-forkserverwait"),
    ("thread",),
    ("serial",),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All at once, each with the file of what it says: most of the time they sleep."""
    started = {}
    try:
        for words in RUNS:
            path = tmp_path_factory.mktemp("run") / "said"
            with path.open("w") as file:
                process = subprocess.Popen(
                    [PYTHON, str(SCRIPT), *words],
                    env=_environment(),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            started[words] = process, path
        yield started
    finally:
        for process, _ in started.values():
            process.kill()
            process.wait()


@pytest.mark.skipif(PYTHON is None, reason="no tests of CPython are installed")
@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_concurrent_futures(runs, words):
    process, said = runs[words]
    assert process.wait(300) == 0, said.read_text()[-5000:]
