"""What a program must have no more of after a pool than before it."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path

from chaos.harness import marked, named, wait_for

from coresize import ProcessPoolExecutor


@contextlib.contextmanager
def nothing_left():
    """See that processes, threads and descriptors are as before.

    What the standard library starts once, its forkserver, is started first.
    """
    with ProcessPoolExecutor(1) as pool:
        pool.submit(abs, 1).result()
    processes, descriptors = set(marked()), _descriptors()
    threads = set(threading.enumerate())
    yield
    gc.collect()
    wait_for(
        lambda: set(marked()) <= processes,
        lambda: f"processes left: {named(set(marked()) - processes)}",
    )
    wait_for(
        lambda: set(threading.enumerate()) <= threads,
        lambda: f"threads left: {set(threading.enumerate()) - threads}",
    )
    wait_for(
        lambda: len(_descriptors()) <= len(descriptors),
        lambda: f"descriptors left: {_descriptors()}, before: {descriptors}",
    )


def _descriptors():
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the list itself
            found[int(path.name)] = str(path.readlink())
    return found
