"""One word for one thing in all that users write, and old words that are still read."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging

import commands
import pytest

import coresize
from coresize import TaskProfile, load_profile, load_settings, plan_workers
from coresize.batch.options import OPTIONS
from coresize.cli import _parser
from coresize.planning.options import SETTINGS
from coresize.planning.schemas import _Resources
from coresize.planning.settings import VARIABLES


#: The word for each thing, and words of others, or of earlier versions, for it.
WORDS = {
    "max_workers": {
        *("at_most", "most_workers", "max_processes", "max_jobs", "n_jobs", "jobs"),
        *("num_workers", "n_workers", "nworkers", "processes", "n_processes", "nproc"),
    },
    "memory": {"ram", "mem", "memory_limit", "mem_limit"},
    "cpus": {"cpu", "cores", "n_cpus", "num_cpus", "ncpus"},
    "gpus": {"gpu", "n_gpus", "num_gpus", "ngpus"},
    "tasks": {"task", "n_tasks", "num_tasks", "ntasks", "task_count"},
}
OTHERS = frozenset().union(*WORDS.values())

#: Names that are accepted for the sake of programs that have them.
OLD = {
    "plan_workers": {"at_most", "ram", "gpu"},
    "TaskProfile": {"most_workers"},
    "JoblibExecutor": {"n_jobs"},  # joblib's own word
}
#: Names that mean another thing.
OTHER_THINGS = {
    "TaskProfile": {"cpu"},  # seconds
    "CoresizeBackend.effective_n_jobs": {"n_jobs"},  # joblib calls it by this name
    "CoresizeBackend.configure": {"n_jobs"},
}
#: Where ``workers`` is no upper bound: a count that is fixed; counts that are tried.
COUNTS = {"sweep", "coresize workers", "coresize env", "coresize run", "coresize sweep"}

MODULES = ("coresize", "coresize.testing", "coresize.errors", "coresize.batch.progress")
ADAPTERS = ("joblib", "pytest", "threads")


def parameters():
    """Each public callable and method of a public class, with its parameters."""
    names = [*MODULES, *(f"coresize.adapters.{name}" for name in ADAPTERS)]
    for module in map(importlib.import_module, names):
        for name in getattr(module, "__all__", vars(module)):
            found = getattr(module, name)
            ours = str(getattr(found, "__module__", "")).startswith("coresize")
            if name.startswith("_") or not ours or not callable(found):
                continue
            yield from _signatures(name, found)


def _signatures(name, found):
    members = vars(found).items() if isinstance(found, type) else ()
    methods = [
        (f"{name}.{key}", method)
        for key, method in members
        if inspect.isfunction(method) and not key.startswith("_")
    ]
    for full, one in [(name, found), *methods]:
        try:
            yield full, set(inspect.signature(one).parameters)
        except ValueError:  # an exception that is made as the built-in one
            continue


def options():
    """Each command with the names of its options, without those that are hidden."""
    commands = next(
        action
        for action in _parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    for name, command in commands.choices.items():
        words = {
            text.lstrip("-").replace("-", "_")
            for action in command._actions
            if action.help != argparse.SUPPRESS
            for text in action.option_strings
        }
        yield f"coresize {name}", words


def tables():
    """The names in files and variables."""
    yield "settings", {row.name for row in SETTINGS}
    yield "variables", {name.removeprefix("CORESIZE_") for name in VARIABLES.values()}
    yield "batch", {row.name for row in OPTIONS}
    yield "resources", set(_Resources.model_fields)
    yield "TaskProfile", set(TaskProfile.__slots__)


@pytest.mark.parametrize("places", [parameters, options, tables])
def test_each_thing_has_one_word(places):
    found = {
        place: odd
        for place, names in places()
        if (
            odd := (names & OTHERS)
            - OLD.get(place, set())
            - OTHER_THINGS.get(place, set())
        )
    }
    assert found == {}


@pytest.mark.parametrize("places", [parameters, options])
def test_workers_is_a_count_and_no_bound(places):
    found = {place for place, names in places() if "workers" in names}
    shown = {"WorkerPlan", "Display", "Tally.progress"}  # the number that there is
    assert found - shown <= COUNTS
    assert "workers" not in {row.name for row in OPTIONS}


def test_the_names_that_functions_have_are_there():
    for name in WORDS:
        assert name in inspect.signature(coresize.plan_workers).parameters
    for name in ("max_workers", "memory", "cpus"):
        assert name in inspect.signature(coresize.run_batch).parameters
        assert name in inspect.signature(coresize.ProcessPoolExecutor).parameters


# --- Old words ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'resources = { cpus = 2, memory = "4GB", gpus = 0 }',
        'resources = { cpu = 2, ram = "4GB", gpu = 0 }',
    ],
)
def test_resources_have_the_names_of_arguments(tmp_path, text):
    path = tmp_path / "coresize.toml"
    path.write_text(f"[kinds.align]\n{text}\n")
    settings = load_settings(file=path)
    found = settings.kinds["align"].resources
    assert (found.cpus, found.memory, found.gpus) == (2, 4_000_000_000, 0)
    told = {note.partition("resources: ")[2] for note in settings.warnings}
    old = "cpu = " in text
    assert told == ({f"{a} is read as {b}" for a, b in OF_KINDS} if old else set())
    plan = plan_workers(kind="align", settings=settings)
    assert plan.memory_per_worker == 4_000_000_000


OF_KINDS = (("cpu", "cpus"), ("ram", "memory"), ("gpu", "gpus"))


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_profile_of_an_older_version_is_read(tmp_path, caplog, suffix):
    path = tmp_path / f"old.{suffix}"
    texts = {"toml": "most_workers = 3\n", "json": '{"most_workers": 3}'}
    path.write_text(texts[suffix])
    with caplog.at_level(logging.WARNING, logger="coresize"):
        assert load_profile(path).max_workers == 3
    (record,) = caplog.records
    told = f"{path}: most_workers is read as max_workers"
    assert record.getMessage() == told


def test_a_profile_in_the_settings_of_an_older_version_is_read(tmp_path):
    path = tmp_path / "coresize.toml"
    path.write_text("[profiles.old]\nmost_workers = 3\n")
    settings = load_settings(file=path)
    assert settings.profiles["old"].max_workers == 3
    (note,) = settings.warnings
    assert note.endswith("profiles.old: most_workers is read as max_workers")
    assert note.code == "other-name"


def test_a_profile_takes_its_old_word_with_a_warning():
    with pytest.warns(DeprecationWarning, match="most_workers is read as max_workers"):
        profile = TaskProfile(most_workers=3)
    assert profile.max_workers == profile.most_workers == 3
    with pytest.raises(coresize.ConfigError, match="only one of max_workers"):
        TaskProfile(most_workers=3, max_workers=3)


@pytest.mark.parametrize(
    "name", ["max_workers", "workers", "num_workers", "n_jobs", "at_most"]
)
@pytest.mark.parametrize("value", ["1", "0"])
def test_a_batch_reads_each_word_and_answers_in_it(tmp_path, name, value):
    (tmp_path / "jobs.py").write_text("def double(item):\n    return item * 2\n")
    (tmp_path / "items.jsonl").write_text("1\n2\n")
    (tmp_path / "batch.toml").write_text(
        'function = "jobs:double"\nitems = "items.jsonl"\nexecutor = "thread"\n'
        f"{name} = {value}\n"
    )
    done = commands.run(tmp_path, "batch", "--config", "batch.toml")
    if value == "0":
        assert done.returncode == 2
        assert f"batch.toml: {name}=0 is not valid" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    values = [json.loads(line)["value"] for line in done.stdout.splitlines()]
    assert sorted(values) == [2, 4]
    note = f"note: batch.toml: {name} is read as max_workers"
    assert (note in done.stderr) is (name != "max_workers")
