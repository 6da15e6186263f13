"""Whatever a task does costs that task alone."""

from __future__ import annotations

import json
import re
import sys

import pytest
from chaos import evils
from chaos.evil_program import COUNT
from chaos.harness import Program


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

#: How many ways are tried by one program, which takes most of its time to start.
_TOGETHER = 8

GROUPS = [
    pytest.param(ways[start : start + _TOGETHER], id=f"{family}-{start // _TOGETHER}")
    for family, ways in evils.FAMILIES.items()
    for start in range(0, len(ways), _TOGETHER)
]


@pytest.mark.parametrize("names", GROUPS)
def test_an_evil_task_costs_itself_alone(tmp_path, names):
    found = attack(tmp_path, names)
    assert sorted(found) == sorted(names)
    wrong = {name: check(name, found[name]) for name in names}
    texts = [f"{name}: {text}" for name, texts in wrong.items() for text in texts]
    assert not texts, "\n".join(texts)


def attack(folder, names):
    """Try ways one after the other; one that ends the program is told as such."""
    found, rest = {}, list(names)
    while rest:
        with Program(folder, "evil_program", folder, *rest) as program:
            try:
                assert program.end() == 0, program.told()
                program.check_nothing_left()
                end = {}
            except AssertionError as error:
                end = {"error": str(error)}
        written = (folder / "found").read_text() if (folder / "found").exists() else ""
        found |= dict(map(json.loads, written.splitlines()))
        rest = rest[len([name for name in rest if name in found]) :]
        if end:
            found[rest.pop(0) if rest else names[-1]] = end
    return found


def check(name, stages):
    """What is wrong: every item is to be there once, with its own value."""
    way, wrong = evils.WAYS[name], []
    if "error" in stages:
        wrong.append(stages.pop("error"))
    for stage, ended in stages.items():
        if sorted(ended, key=int) != [str(n) for n in range(COUNT)]:
            wrong.append(f"{stage}: {sorted(ended)} have ended")
        wrong += [
            f"{stage}, item {key}: {status}, {text[:300]}"
            for key, (status, text) in ended.items()
            if not _may_be(way, stage, key, status, text)
        ]
    return wrong


def _may_be(way, stage, key, status, text):
    good = status in ("ok", "skipped")
    if good and text != evils.value_of(key):
        return False
    if not evils.is_evil(int(key)) or stage == "map":
        return good or status in way.others
    if stage == "second start":
        return good == ("ok" in way.ends) or way.ends == evils.ANY
    return status in way.ends and (good or re.search(way.error, text) is not None)
