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
hypothesis.settings.load_profile("coresize")

# Before any test, and for the programs they start: a variable that detection reads may
# well be set where these tests run, in a batch job for instance.
_BATCH = array_jobs.NAMES | {settings.SHARD, settings.STATUS}
for _name in environ.NAMES | settings.NAMES | _BATCH:
    os.environ.pop(_name, None)


@pytest.fixture
def run(tmp_path):
    """Run ``coresize`` in an empty folder."""
    return functools.partial(commands.run, tmp_path)


@pytest.fixture
def call(tmp_path):
    """Call it there, where it is what it answers that counts."""
    return functools.partial(commands.call, tmp_path)
