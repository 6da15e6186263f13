"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import functools
import pickle
import re
import statistics
from pathlib import Path

import pytest

import coresize
from coresize import errors, model, testing
from coresize.detection import environ, ranks, schedulers
from coresize.model import Fact, Gap
from coresize.planning import exports, settings
from coresize.processes import transfer


SOURCE = Path(coresize.__path__[0])
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))


#: What reads the machine, and what may not: detection sees the machine through a `Host`
#: alone, and rules see only what they are given.
MACHINE = {"io", "os", "pathlib", "platform", "psutil", "socket", "subprocess"}
RULES = (
    *("planning/values.py", "planning/policy.py", "planning/reasons.py"),
    *("units.py", "model.py", "errors.py"),
)


@pytest.mark.parametrize(
    "path",
    [
        *(SOURCE / "detection").glob("*.py"),
        *(SOURCE / name for name in RULES),
    ],
    ids=lambda path: path.relative_to(SOURCE).as_posix(),
)
def test_detection_and_rules_reach_the_machine_through_a_host(path):
    assert _imports(path) & MACHINE == set()


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """The modules that a file imports when it runs."""
    names: set[str] = set()
    for node in ast.walk(_running(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Name) and node.id == "open":
            names.add("io")
    return frozenset(names)


def _running(tree: ast.Module) -> ast.Module:
    """A module without what only type checkers see."""
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def test_tests_replace_nothing_of_ours():
    words = re.compile("monkey" + "patch|unittest." + "mock|mock" + "er")
    assert [path.name for path in TESTS if words.search(path.read_text())] == []


def test_functions_and_modules_stay_small():
    lengths = {}
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 600, path.name
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                end = node.end_lineno or 0
                first = body[0].lineno if body else end + 1
                lengths[f"{path.name}:{node.name}"] = end - first + 1
    ordered = sorted(lengths.values())
    assert statistics.median(ordered) <= 8
    assert ordered[len(ordered) * 9 // 10] <= 25
    assert [name for name, length in lengths.items() if length > 40] == []


def test_public_names_are_there_and_documented():
    assert coresize.__all__ == sorted(coresize.__all__)
    for name in coresize.__all__:
        value = getattr(coresize, name)
        assert isinstance(value, str) or value.__doc__, name


def test_results_are_no_tuples():
    values = [value for value in vars(model).values() if isinstance(value, type)]
    assert values
    assert not [value for value in values if issubclass(value, tuple)]


@pytest.mark.parametrize(
    "error",
    [
        errors.CoresizeError("text"),
        errors.ConfigError("NAME", "value", "something else"),
        errors.ParseError("text"),
        errors.HostFileError("path", "reason"),
        errors.InsufficientMemoryError(2, 1),
        transfer.TransferError("text"),
        errors.TaskKilledError("text", exit_code=-9, peak_memory=1, attempts=2),
        errors.TaskOutOfMemoryError("text", exit_code=-9, peak_memory=1, attempts=2),
        errors.TaskCrashedError("text", exit_code=7, peak_memory=1),
        errors.TaskTimeoutError("text", exit_code=None, peak_memory=1),
        errors.JournalError("path", "reason"),
        errors.MergeError(["one", "two"]),
    ],
)
def test_errors_travel_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert isinstance(error, errors.CoresizeError)


FACT = Fact(
    resource="cpu",
    amount=1.5,
    role="limit",
    source="s",
    where="/w",
    raw="150000 100000",
)
GAP = Gap(code="unreadable", resource="cpu", source="s", where="/w", reason="EACCES")


@pytest.mark.parametrize("value", [FACT, GAP])
def test_values_are_immutable_equal_by_content_and_picklable(value):
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert hash(copy) == hash(value)
    assert copy != (GAP if value is FACT else FACT)
    assert eval(repr(value), {"Fact": Fact, "Gap": Gap}) == value
    with pytest.raises(AttributeError, match="immutable"):
        value.where = "/elsewhere"
    with pytest.raises(AttributeError, match="immutable"):
        del value.where


@pytest.mark.parametrize("cls", [Fact, Gap])
def test_values_need_exactly_their_fields(cls):
    with pytest.raises(TypeError, match=r"where|needs"):
        cls(resource="cpu", source="s")
    with pytest.raises((TypeError, AttributeError), match="color"):
        cls(resource="cpu", source="s", where="/", color="red")


DOCS = Path(__file__).parents[1] / "docs"


def test_every_variable_is_documented():
    names = set(environ.NAMES).union(
        ranks.NAMES, *(one.names for one in schedulers.SCHEDULERS.values())
    )
    page = (DOCS / "reference" / "environment.md").read_text()
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_every_setting_and_export_is_documented():
    page = (DOCS / "reference" / "settings.md").read_text()
    for name in (*settings.NAMES, *settings.VARIABLES, "profiles", "kinds"):
        assert f"`{name}`" in page, name
    page = (DOCS / "reference" / "exports.md").read_text()
    for name in (*exports.PROCESSES, *exports.THREADS, *exports.OPTIONS, "GOMEMLIMIT"):
        assert f"`{name}`" in page, name


def test_every_public_name_is_documented():
    page = (DOCS / "reference" / "api.md").read_text()
    names = {*coresize.__all__, *testing.__all__} - {"__version__"}
    assert [name for name in sorted(names) if name not in page] == []


def test_the_table_of_peers_is_kept():
    page = (DOCS / "reference" / "peers.md").read_text()
    assert page.count("\n| `") >= 8
    assert "| `coresize.available_cores()` | " in page
