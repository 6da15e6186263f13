"""Every recorded machine gets the answer that its file gives."""

from __future__ import annotations

import operator
import tomllib
from pathlib import Path

import pytest

from coresize import available_cores, detect, plan_workers
from coresize.cli.report import as_text
from coresize.detection.available import cores_of
from coresize.detection.limits import whole_cores
from coresize.recording import hostfile, read_host_file
from coresize.testing import use_host


FOLDER = Path(__file__).parent / "hosts"
HOSTS = sorted(FOLDER.glob("*.toml"))
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "host-file.md"

#: What a file may expect, and where the answer has it. The first three always count: a
#: file says "none" by leaving them out.
ANSWERS = {
    "limit": lambda limits: limits.cpu.limit,
    "quota": lambda limits: limits.cpu.quota,
    "memory_limit": lambda limits: limits.memory.limit,
    "affinity": lambda limits: limits.cpu.affinity,
    "capacity": lambda limits: limits.cpu.capacity,
    "cores": lambda limits: whole_cores(limits.cpu.limit),
    "binding": lambda limits: limits.cpu.binding.source,
    "soft_limit": lambda limits: limits.memory.soft_limit,
    "soft_available": lambda limits: limits.memory.soft_available,
    "available": lambda limits: limits.memory.available,
    "memory_total": lambda limits: limits.memory.total,
    "gaps": lambda limits: [f"{gap.where}: {gap.reason}" for gap in limits.gaps],
    "gpus": lambda limits: min(
        (fact.amount for fact in limits.facts if fact.resource == "gpu"), default=None
    ),
}

#: Bounds of an answer: what is bounded, and whether the answer keeps the bound.
BOUNDS = {
    "available_at_most": ("available", operator.le),
    "available_at_least": ("available", operator.ge),
}

#: What a file may expect of a function other than detect(), asked with this host.
ASKED = {
    "physical": lambda _: available_cores(physical=True, reserve=0),
    "workers_at_most": lambda expect: plan_workers(memory=expect["workers_memory"]),
}


def _check(file):
    expected = {"limit": None, "quota": None, "memory_limit": None, **file.expect}
    physical = expected.pop("physical", None)
    if physical is not None:
        cores = cores_of(file.host, reserve=0, rounding="nearest", physical=True)
        assert cores == physical
    limits = detect(file.host)
    exact = {name: value for name, value in expected.items() if name in ANSWERS}
    assert {name: ANSWERS[name](limits) for name in exact} == exact
    for name in BOUNDS.keys() & expected:
        answer, keeps = BOUNDS[name]
        assert keeps(ANSWERS[answer](limits), expected[name]), name
    with use_host(file.host):
        asked = {name: ASKED[name](expected) for name in ASKED.keys() & expected}
    assert asked.pop("workers_at_most", 0) <= expected.get("workers_at_most", 0)
    assert asked == {name: expected[name] for name in asked}
    assert expected.keys() <= {*ANSWERS, *BOUNDS, *ASKED, "workers_memory"}
    assert file.unknown == ()
    return limits


def test_there_are_hosts():
    for kind in ("real", "edge", "batch", "odd"):
        assert list(FOLDER.glob(f"{kind}-*.toml"))


@pytest.mark.parametrize("path", HOSTS, ids=lambda path: path.stem)
def test_answer(path):
    limits = _check(read_host_file(path))
    host = read_host_file(path).host
    cores = whole_cores(limits.cpu.limit)
    assert cores_of(host, reserve=0, rounding="nearest") == cores
    text = as_text(limits, cores=cores, reserve=0)
    assert max(map(len, text.splitlines())) <= 80


def test_the_host_of_the_reference_page():
    (text,) = (
        part.partition("```")[0] for part in PAGE.read_text().split("```toml\n")[1:]
    )
    assert set(tomllib.loads(text)) == {
        "format",
        "note",
        "calls",
        "host",
        "env",
        "files",
        "unreadable",
        "expect",
    }
    _check(hostfile.loads(text, "page"))
