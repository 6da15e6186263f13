"""The layout of Windows' answers by a compiler's headers, and answers of Wine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from coresize import detect
from coresize.recording.recorded import Recorded


COMPILER = "x86_64-w64-mingw32-gcc"

#: Where `coresize.detection.platforms` reads each field.
PLACES = {
    "JOBOBJECT_EXTENDED_LIMIT_INFORMATION.BasicLimitInformation.LimitFlags": 16,
    "JOBOBJECT_EXTENDED_LIMIT_INFORMATION.BasicLimitInformation.ActiveProcessLimit": 40,
    "JOBOBJECT_EXTENDED_LIMIT_INFORMATION.ProcessMemoryLimit": 112,
    "JOBOBJECT_EXTENDED_LIMIT_INFORMATION.JobMemoryLimit": 120,
    "JOBOBJECT_CPU_RATE_CONTROL_INFORMATION.CpuRate": 4,
    "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION.ActiveProcesses": 40,
    "MEMORYSTATUSEX.ullTotalPageFile": 24,
    "MEMORYSTATUSEX.ullAvailPageFile": 32,
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the program prints under Wine, in a job object that it has limited."""
    if shutil.which(COMPILER) is None or shutil.which("wine") is None:
        pytest.skip("no wine, or no compiler for Windows")
    folder = tmp_path_factory.mktemp("windows")
    source = Path(__file__).with_name("job_object.c")
    subprocess.run([COMPILER, "-o", folder / "job.exe", source], check=True)
    env = {**os.environ, "WINEDEBUG": "-all", "WINEPREFIX": str(folder / "prefix")}
    words = ["wine", str(folder / "job.exe"), "limited"]
    done = subprocess.run(
        words, env=env, capture_output=True, text=True, timeout=300, check=True
    )
    subprocess.run(["wineserver", "--kill"], env=env, check=False)
    return done.stdout


def test_fields_are_where_they_are_read(answers):
    places = re.findall(r"# (\S+) at (\d+)", answers)
    assert {name: int(place) for name, place in places} == PLACES
    assert "# sizes 48 144 8 64" in answers


def test_answers_of_wine_are_understood(answers):
    """Wine 8 knows the calls, keeps no limits, and refuses three of the questions."""
    assert "# in a job: 1" in answers
    calls = dict(re.findall(r'^(\w+) = "([0-9a-f]+)"', answers, re.MULTILINE))
    assert {"job_limits", "memory_status"} <= set(calls)
    found = detect(Recorded(platform="win32", cpu_count=2, calls=calls))
    assert found.gaps == detect(Recorded(platform="win32", cpu_count=2)).gaps
    assert found.memory.available is not None
    assert found.memory.available > 0
