"""Pools in a container whose root file system is read-only."""

from __future__ import annotations

import json

import pytest
from live import containers
from live.containers import Container


pytestmark = pytest.mark.skipif(
    containers.missing() is not None, reason=str(containers.missing())
)

PROGRAM = """
import json, multiprocessing, tempfile
from coresize import ProcessPoolExecutor, profile_task
try:
    seen = [tempfile.gettempdir()]
except FileNotFoundError:
    seen = ["no folder"]
for method in ("forkserver", "spawn", "fork"):
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        seen.append(list(pool.map(abs, range(-2, 1))))
seen.append(profile_task(abs, -1).cpu >= 0)
print(json.dumps(seen))
"""


def test_a_pool_needs_no_folder(tmp_path):
    seen = json.loads(containers.run(Container(), ["-c", PROGRAM], tmp_path))
    assert seen == ["no folder", [2, 1, 0], [2, 1, 0], [2, 1, 0], True]
