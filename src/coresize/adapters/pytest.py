"""pytest-xdist: ``pytest -n auto`` starts as many workers as fit.

pytest loads this plugin by itself if coresize and pytest-xdist are installed. The
variable PYTEST_XDIST_AUTO_NUM_WORKERS overrides it.

Without ``--worker-memory``, a worker counts as large as the largest worker of earlier
sessions, which pytest's cache keeps, and at least as large as this process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from coresize.detection.available import available_cores
from coresize.errors import CoresizeError
from coresize.host import Live
from coresize.planning.plan import plan_workers
from coresize.processes.memory import read_memory


if TYPE_CHECKING:
    from typing import Any

_SET = "PYTEST_XDIST_AUTO_NUM_WORKERS"

#: Set in a worker of pytest-xdist, and in what its tests start.
_INSIDE = "PYTEST_XDIST_WORKER"

#: The variable that bounds the cores of a process.
_CAP = "CORESIZE_MAX_CORES"

#: The key of the peak of a worker, in pytest's cache and in a worker's output, and how
#: much of it is left after a session whose workers took less.
_PEAK, _KEPT = "coresize/worker_memory", 0.8

_PLAN = pytest.StashKey[str]()
_PEAKS = pytest.StashKey[int]()


def pytest_addoption(parser: Any) -> None:
    """Add the option ``--worker-memory``."""
    group = parser.getgroup("xdist")
    group.addoption(
        "--worker-memory",
        metavar="SIZE",
        help="memory that one worker of -n auto needs, such as 1GiB (coresize)",
    )


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: Any) -> int | None:
    """The number of workers for ``-n auto``; None to let other plugins decide.

    ``-n logical`` is the same: coresize counts hardware threads.

    Raises:
        pytest.UsageError: --worker-memory or a setting is not valid.
    """
    if Live().variables(frozenset({_SET})):
        return None
    asked = config.getoption("worker_memory")
    try:
        plan = plan_workers(memory=_expected_memory(config) if asked is None else asked)
    except CoresizeError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_PLAN] = plan.reason
    return plan.workers


def pytest_report_header(config: Any) -> str | None:
    """The reason for the number of workers, if this plugin has chosen it."""
    reason = config.stash.get(_PLAN, None)
    return None if reason is None else f"coresize: {reason}"


# -----------------------------------------------------------------------------
# The memory of a worker.


def _expected_memory(config: Any) -> int | None:
    """The bytes that a worker will take: those of earlier workers, or of this process.

    This process has loaded pytest and its plugins, as each worker does, but no test.
    """
    own = read_memory()
    known = _earlier(config)
    return max(known, own.size if own else 0) or None


def _earlier(config: Any) -> int:
    """The most bytes that a worker took in earlier sessions; 0 if unknown.

    pytest asks for the number of workers before it makes ``config.cache``.
    """
    if not config.pluginmanager.has_plugin("cacheprovider"):
        return 0
    known = pytest.Cache.for_config(config, _ispytest=True).get(_PEAK, 0)
    return known if isinstance(known, int) else 0


def pytest_sessionfinish(session: Any) -> None:
    """Tell the peak of a worker, or note the largest of all workers."""
    config = session.config
    if hasattr(config, "workeroutput"):
        own = read_memory()
        config.workeroutput[_PEAK] = own.high if own else 0
        return
    peak, cache = config.stash.get(_PEAKS, 0), getattr(config, "cache", None)
    if peak and cache is not None:
        # A session of few tests does not make those before forgotten at once.
        cache.set(_PEAK, max(peak, int(_earlier(config) * _KEPT)))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the peak of a worker that has ended; a worker that died has told none."""
    peak = getattr(node, "workeroutput", {}).get(_PEAK, 0)
    stash = node.config.stash
    stash[_PEAKS] = max(peak, stash.get(_PEAKS, 0))


# -----------------------------------------------------------------------------
# Sessions inside a test: pytest-xdist tells a worker only the number of workers of its
# own session. So the workers of a session inside a worker get a cap.


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker its part of the share that this session has of another one."""
    if Live().variables(frozenset({_INSIDE})):
        cores = available_cores() / node.workerinput.get("workercount", 1)
        node.workerinput[_CAP] = f"{cores:.3f}"


def pytest_configure(config: Any) -> None:
    """In a worker, set the cap."""
    cap = getattr(config, "workerinput", {}).get(_CAP)
    if cap is not None:
        os.environ[_CAP] = cap
