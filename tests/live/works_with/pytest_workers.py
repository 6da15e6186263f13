from __future__ import annotations

import re
from pathlib import Path

from nested import run


TEST = """\
from nested import pool_inside

def test_pool():
    assert pool_inside([1, 2]) == [2, 4]
"""


if __name__ == "__main__":
    Path("test_pool.py").write_text(TEST)
    output = run("pytest", "-n", "auto", "-p", "no:cacheprovider", "test_pool.py")
    created, passed = (
        re.search(pattern, output)[0]
        for pattern in (r"[0-9]+ workers", r"[0-9]+ passed")
    )
    print(f"{created} on 2 cores, {passed}")
