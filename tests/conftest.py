"""What every test needs: an environment that changes no answer."""

from __future__ import annotations

import functools
import os

import commands
import hypothesis
import pytest

from coresize.batch import array_jobs
from coresize.detection import environ
from coresize.planning import settings


# It takes memory and time, and has no example.
collect_ignore = ["heavy_start.py"]

# A machine that stands still for a moment disproves no law.
hypothesis.settings.register_profile("coresize", hypothesis.settings(), deadline=None)
hypothesis.settings.register_profile("few", max_examples=20, deadline=None)
hypothesis.settings.load_profile("coresize")

# Before any test, and for the programs they start: a variable that detection reads may
# well be set where these tests run, in a batch job for instance.
_BATCH = array_jobs.NAMES | {settings.SHARD, settings.STATUS}
for _name in environ.NAMES | settings.NAMES | _BATCH:
    os.environ.pop(_name, None)


def pytest_addoption(parser):
    """Add the option of the session ``tests`` between the oldest and newest Python."""
    parser.addoption(
        "--first-rows",
        action="store_true",
        help="run the first row of each table, and 20 examples of each law",
    )


def pytest_configure(config):
    """Take few examples before a law is imported."""
    if config.getoption("first_rows"):
        hypothesis.settings.load_profile("few")


def pytest_collection_modifyitems(config, items):
    """Keep the first row of each table."""
    if config.getoption("first_rows"):
        first = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
        left = {item.nodeid for item in first.values()}
        dropped = [item for item in items if item.nodeid not in left]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item.nodeid in left]


@pytest.fixture
def run(tmp_path):
    """Run ``coresize`` in an empty folder."""
    return functools.partial(commands.run, tmp_path)


@pytest.fixture
def call(tmp_path):
    """Call it there, where it is what it answers that counts."""
    return functools.partial(commands.call, tmp_path)
