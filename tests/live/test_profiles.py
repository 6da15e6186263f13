"""What a command needs, measured where a quota or neighbours leave it no CPU."""

from __future__ import annotations

import json

import pytest
from live import containers
from live.containers import Container


BUSY = """\
import time
end = time.process_time() + 0.5
while time.process_time() < end:
    pass
"""


@pytest.mark.skipif(containers.missing() is not None, reason=str(containers.missing()))
@pytest.mark.parametrize(
    ("program", "least", "most"),
    [(BUSY, 0.75, 1.0), ("import time; time.sleep(1)", 0.0, 0.3)],
    ids=["computes", "waits"],
)
def test_a_quota_is_no_waiting(program, least, most, tmp_path):
    words = ["-m", "coresize", "profile", "--json", "--", "python3", "-c", program]
    answer = json.loads(containers.run(Container(quota=0.5), words, tmp_path))
    assert least <= answer["cpu_share"] <= most
