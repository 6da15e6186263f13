"""Stable codes: each code in the source is documented, and the other way round."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from pathlib import Path

import pytest

from coresize import detect, load_settings, plan_workers
from coresize.model import Gap, Notice
from coresize.testing import container


ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference" / "codes.md").read_text()

#: Which argument of a call is a code, by the name of what is called.
_PLACES = {"Notice": 0, "gap": 2}


def _texts(node: ast.expr | None) -> set[str]:
    """The texts that an expression can have as its value."""
    if isinstance(node, ast.IfExp):
        return _texts(node.body) | _texts(node.orelse)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    return set()


def _assigned(target: ast.expr, value: ast.expr) -> set[str]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=True)
        return {text for pair in pairs for text in _assigned(*pair)}
    is_code = isinstance(target, ast.Name) and target.id == "code"
    return _texts(value) if is_code else set()


def _codes(tree: ast.AST) -> set[str]:
    """The codes in one module: arguments and variables of that name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            place = _PLACES.get(name)
            if place is not None and len(node.args) > place:
                found |= _texts(node.args[place])
            found |= {
                t for k in node.keywords if k.arg == "code" for t in _texts(k.value)
            }
        elif isinstance(node, ast.Assign):
            found |= _assigned(node.targets[0], node.value)
    return found


def test_every_code_is_documented_once_and_every_documented_code_is_made() -> None:
    rooms = ("detection", "planning", "diagnosis", "errors.py")
    paths = [
        path
        for room in rooms
        for path in sorted((ROOT / "src" / "coresize").glob(f"{room}"))
        for path in (path.rglob("*.py") if path.is_dir() else [path])
    ]
    made = set().union(*(_codes(ast.parse(path.read_text())) for path in paths))
    documented = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(documented) == sorted(made)
    assert len(made) > 50


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"PYTHON_CPU_COUNT": "many"}, "variable-ignored"),
        ({"CORESIZE_OVERRIDE_CORES": "99"}, "override-above-machine"),
        (
            {"CORESIZE_OVERRIDE_CORES": "3", "CORESIZE_MAX_CORES": "2"},
            "override-lowered",
        ),
    ],
)
def test_a_warning_of_detection_has_a_code(
    variables: dict[str, str], code: str
) -> None:
    warnings = detect(container(cpus=4, env=variables)).warnings
    assert [warning.code for warning in warnings] == [code]


@pytest.mark.parametrize(
    ("need", "code"),
    [
        ({"memory": "8GiB"}, "memory-below-need"),
        ({"cpus": 8}, "cores-below-need"),
        ({"gpus": 1}, "gpus-unknown"),
    ],
)
def test_a_warning_of_a_plan_has_a_code(need: dict[str, object], code: str) -> None:
    limits = detect(container(cpus=4, memory="1GiB"))
    plan = plan_workers(limits=limits, **need)  # type: ignore[arg-type]
    assert [warning.code for warning in plan.warnings] == [code]
    assert plan.as_dict()["warning_codes"] == [code]
    assert pickle.loads(pickle.dumps(plan)).warnings[0].code == code


def test_a_warning_of_settings_has_a_code() -> None:
    host = container(env={"CORESIZE_WORKER": "4"})
    assert [w.code for w in load_settings(host=host).warnings] == ["unknown-variable"]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_a_notice_keeps_its_code_in_copies(copied: object) -> None:
    notice = Notice("unknown-variable", "a sentence")
    same = copied(notice)  # type: ignore[operator]
    assert (same, same.code, type(same)) == ("a sentence", "unknown-variable", Notice)


def test_a_gap_without_a_code_is_refused() -> None:
    with pytest.raises(TypeError, match="code"):
        Gap(resource="cpu", source="a", where="b", reason="c")  # type: ignore[call-arg]
