"""CPython's own tests of concurrent.futures, run against our executors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import coresize


SCRIPT = Path(__file__).with_name("cpython_futures.py")
PROBE = "import test.test_concurrent_futures, psutil, pydantic"


def _environment():
    """With what is installed here, for an interpreter that has the tests."""
    paths = [str(Path(coresize.__path__[0]).parent), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


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


@pytest.mark.skipif(PYTHON is None, reason="no tests of CPython are installed")
@pytest.mark.parametrize("executor", ["process", "thread"])
def test_concurrent_futures(executor):
    done = subprocess.run(
        [PYTHON, str(SCRIPT), executor],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-5000:]
