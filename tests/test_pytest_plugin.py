"""pytest-xdist: the share of one worker, and the number of workers of ``-n auto``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from coresize import ConfigError, detect
from coresize.testing import container


INSIDE = {"PYTEST_XDIST_WORKER": "gw1", "PYTEST_XDIST_WORKER_COUNT": "4"}


@pytest.mark.parametrize(
    ("env", "cores"),
    [
        (INSIDE, 2.0),
        ({"PYTEST_XDIST_WORKER_COUNT": "4"}, 8.0),
        ({"PYTEST_XDIST_WORKER": "gw1"}, 8.0),
        ({**INSIDE, "PYTEST_XDIST_WORKER_COUNT": "1"}, 8.0),
        ({**INSIDE, "PYTEST_XDIST_WORKER_COUNT": "32"}, 1.0),
        ({**INSIDE, "PYTEST_XDIST_WORKER_COUNT": "four"}, 8.0),
        ({**INSIDE, "PYTEST_XDIST_WORKER_COUNT": "0"}, 8.0),
        ({**INSIDE, "CORESIZE_SHARE_RANKS": "0"}, 8.0),
        ({**INSIDE, "CORESIZE_SHARE_RANKS": "off"}, 8.0),
        ({**INSIDE, "CORESIZE_OVERRIDE_CORES": "6"}, 6.0),
        ({**INSIDE, "CORESIZE_MAX_CORES": "1"}, 1.0),
        ({**INSIDE, "CORESIZE_MAX_CORES": "4"}, 2.0),
    ],
)
def test_a_worker_counts_its_share_of_the_cores(env, cores):
    assert detect(container(cpus=8, env=env)).cpu.limit == cores


def test_the_share_is_of_the_quota_and_of_the_memory_and_says_so():
    plain = detect(container(cpus=8, quota=6.5, memory=2**30))
    limits = detect(container(cpus=8, quota=6.5, memory=2**30, env=INSIDE))
    assert limits.cpu.limit == 6.5 / 4
    assert limits.cpu.binding.where == "PYTEST_XDIST_WORKER_COUNT"
    assert limits.cpu.binding.raw == "6.5 cores / 4 ranks"
    assert any("CORESIZE_SHARE_RANKS=0" in one for one in limits.warnings)
    assert limits.memory.available == plain.memory.available // 4
    assert limits.memory.limit == plain.memory.limit


def test_a_switch_that_is_none_is_an_error():
    with pytest.raises(ConfigError, match="CORESIZE_SHARE_RANKS"):
        detect(container(cpus=8, env={**INSIDE, "CORESIZE_SHARE_RANKS": "maybe"}))


TESTS = """
import os
import subprocess
import sys
import coresize
import pytest

TEXT = "import coresize\\ndef test(): print('cores', coresize.available_cores())\\n"

@pytest.mark.parametrize("number", range(4))
def test_share(number):
    assert coresize.detect().cpu.limit <= len(os.sched_getaffinity(0)) / 2

def test_large():
    assert len(b"x" * (200 * 1024**2))

def test_nested(tmp_path):
    (tmp_path / "test_one.py").write_text(TEXT)
    words = ["-n", "2", "-rP", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), *words],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )
    assert "cores 1" in done.stdout, done.stdout + done.stderr
"""


def session(folder, *words, **env):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", *words],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_memory_of_earlier_workers_bounds_the_number(tmp_path):
    (tmp_path / "test_one.py").write_text(TESTS)
    assert "created: 2/2" in session(tmp_path, "2", "--dist", "loadfile")
    (tmp_path / "test_one.py").write_text("def test(): pass\n")
    memory = {"CORESIZE_OVERRIDE_CORES": "4", "CORESIZE_OVERRIDE_MEMORY": "600MiB"}
    printed = session(tmp_path, "logical", "--dist", "worksteal", **memory)
    assert "created: 2/2" in printed or "created: 1/1" in printed
    assert "coresize: " in printed
    assert "created: 4/4" in session(
        tmp_path, "auto", "--worker-memory", "1MiB", **memory
    )
