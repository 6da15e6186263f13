"""Threads of BLAS and OpenMP: limited here by threadpoolctl, in children by variables.

`limit_threads` needs the extra ``threads``.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from coresize.arguments import check_count
from coresize.detection.available import available_cores
from coresize.errors import CoresizeError
from coresize.planning import exports


if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def limit_threads(threads: int | None = None) -> Iterator[int]:
    """Limit the threads of loaded BLAS and OpenMP libraries inside the block.

    Args:
        threads: the number of threads; None for the cores that this process may use.

    Yields:
        The number of threads.

    Raises:
        ConfigError: ``threads`` is not above 0.
        CoresizeError: threadpoolctl is not installed.

    The limit applies to libraries that this process has loaded already; call it in the
    main thread. For libraries that are loaded later, use `thread_env`. Source:
    threadpoolctl, "Known limitations".

    >>> from coresize.adapters.threads import limit_threads
    >>> with limit_threads(1) as threads:
    ...     threads
    1
    """
    count = check_count(
        "threads", available_cores() if threads is None else threads, 1, ", or None"
    )
    try:
        import threadpoolctl
    except ImportError:
        msg = "limit_threads() needs threadpoolctl: install the extra coresize[threads]"
        raise CoresizeError(msg) from None
    with threadpoolctl.threadpool_limits(limits=count):
        yield count


def thread_env(threads: int | None = None) -> dict[str, str]:
    """Environment variables that set the number of threads of a child process.

    Args:
        threads: the number of threads; None for the cores that this process may use.

    Raises:
        ConfigError: ``threads`` is not above 0.

    >>> from coresize.adapters.threads import thread_env
    >>> thread_env(2)["OMP_NUM_THREADS"]
    '2'
    """
    count = check_count(
        "threads", available_cores() if threads is None else threads, 1, ", or None"
    )
    return dict.fromkeys(exports.THREADS, str(count))
