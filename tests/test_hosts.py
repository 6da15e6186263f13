"""Every recorded machine gets the answer that its file gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from coresize import detect
from coresize.testing import read_host_file


HOSTS = sorted((Path(__file__).parent / "hosts").glob("*.toml"))
UNANSWERED = sorted(
    (Path(__file__).parents[2] / "shared/hosts-unanswered").glob("*.toml")
)


@pytest.mark.parametrize("path", HOSTS, ids=lambda path: path.stem)
def test_answer(path):
    file = read_host_file(path)
    limits = detect(file.host)
    expected = {"limit": None, "quota": None, "memory_limit": None, **file.expect}
    assert {
        "limit": limits.cpu.limit,
        "quota": limits.cpu.quota,
        "memory_limit": limits.memory.limit,
    } == expected
