"""Programs that use coresize beside other packages, each run as it is.

A row of the table in docs/reference/works-with.md links to its program in the folder
works_with; the last cell is what the program prints. With CORESIZE_WRITE_TABLE=1, the
test writes the last cell, and the version of the package that is installed here.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest


PROGRAMS = Path(__file__).parent / "works_with"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "works-with.md"
ROW = re.compile(
    r"^\| (?P<package>\S+) \| (?P<version>\S+) "
    r"\| (?P<how>\[.*\]\(.*/works_with/(?P<program>\w+)\.py\).*) \| (?P<seen>.*) \|$",
    re.MULTILINE,
)
ROWS = {row["program"]: row for row in ROW.finditer(PAGE.read_text())}
#: Seconds until a program that hangs is given up.
PATIENCE = 300


@pytest.mark.parametrize("program", ROWS)
def test_what_works_with_coresize(program, tmp_path):
    """The page has the versions that it was written with; others do the same."""
    row = ROWS[program]
    try:
        version = _version(row["package"])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{row['package']} is not installed")
    seen = _output(program, tmp_path)
    if os.environ.get("CORESIZE_WRITE_TABLE"):
        cells = row["package"], version, row["how"], seen
        PAGE.write_text(PAGE.read_text().replace(row[0], f"| {' | '.join(cells)} |"))
    else:
        assert seen == row["seen"]


def test_every_program_has_a_row():
    programs = [path.read_text() for path in PROGRAMS.glob("*.py")]
    assert len(ROWS) == sum('"__main__"' in program for program in programs)


def _version(package):
    """The major and the minor version."""
    if package == "Python":
        version = platform.python_version()
    else:
        version = importlib.metadata.version(package)
    return ".".join(version.split(".")[:2])


def _output(program, folder):
    """The last line that a program prints, on two cores and in an empty folder."""
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, PROGRAMS / f"{program}.py"],
        cwd=folder,
        env={
            **os.environ,
            "CORESIZE_OVERRIDE_CORES": "2",
            "HOME": str(folder),
            "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
            "PYTHONPATH": str(PROGRAMS),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]
