"""pytest-xdist: ``pytest -n auto`` starts as many workers as fit.

pytest loads this plugin by itself if coresize and pytest-xdist are installed. The
variable PYTEST_XDIST_AUTO_NUM_WORKERS overrides it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coresize.errors import CoresizeError
from coresize.host import Live
from coresize.planning.plan import plan_workers


if TYPE_CHECKING:
    from typing import Any

_SET = "PYTEST_XDIST_AUTO_NUM_WORKERS"


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

    Raises:
        pytest.UsageError: --worker-memory or a setting is not valid.
    """
    if Live().variables(frozenset({_SET})):
        return None
    try:
        plan = plan_workers(memory=config.getoption("worker_memory"))
    except CoresizeError as error:
        raise pytest.UsageError(str(error)) from None
    return plan.workers
