"""Programs that end with work at hand; ``python endings.py NAME FOLDER`` is one.

The functions are the script's own, as in most programs: workers find them by its file.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

from coresize import (
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    available_cores,
    run_batch,
)


COUNT = 12
FOLDER = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()


def task(number):
    """Leave a file, by which it is seen that this was called, and how often."""
    time.sleep(0.01)
    with (FOLDER / f"{number}.called").open("a") as file:
        file.write("x")
    return number


def _submit(pool):
    return [pool.submit(task, number) for number in range(COUNT)]


def without_shutdown():
    _submit(ProcessPoolExecutor(2))


def without_shutdown_of_threads():
    _submit(ThreadPoolExecutor(2))


def without_shutdown_and_held():
    global held
    held = ProcessPoolExecutor(2)
    _submit(held)


def without_shutdown_of_a_map():
    global held
    held = ProcessPoolExecutor(2)
    held.map(task, range(COUNT))


def without_shutdown_of_two():
    for first in (0, 6):
        pool = ProcessPoolExecutor(1)
        for number in range(first, first + 6):
            pool.submit(task, number)


def without_shutdown_in_a_thread():
    thread = threading.Thread(target=without_shutdown)
    thread.start()
    thread.join()


def by_sys_exit():
    without_shutdown_and_held()
    sys.exit(3)


def by_an_error():
    with ProcessPoolExecutor(2) as pool:
        _submit(pool)
        raise ValueError


def by_an_error_without_shutdown():
    without_shutdown_and_held()
    raise ValueError


def by_an_interrupt():
    without_shutdown_and_held()
    raise KeyboardInterrupt


def by_os_exit():
    without_shutdown_and_held()
    os._exit(4)


def by_a_kill():
    without_shutdown_and_held()
    os.kill(os.getpid(), signal.SIGKILL)


def by_a_signal():
    without_shutdown_and_held()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def by_a_batch_that_is_read_in_part():
    global held
    held = run_batch(task, range(COUNT), max_workers=2, progress=False)
    next(iter(held))


def by_a_batch_that_a_daemon_reads():
    run = run_batch(task, range(COUNT), max_workers=2, progress=False)
    begun = threading.Event()

    def read():
        for _ in run:
            begun.set()

    threading.Thread(target=read, daemon=True).start()
    begun.wait()


def by_a_batch_that_a_thread_reads():
    run = run_batch(task, range(COUNT), max_workers=2, progress=False)
    threading.Thread(target=run.wait).start()


def by_a_ring():
    pool = ProcessPoolExecutor(2)
    pool.itself = pool
    _submit(pool)
    del pool
    gc.collect()


def with_a_pool_made_at_exit():
    @atexit.register
    def use():
        with contextlib.suppress(RuntimeError), ProcessPoolExecutor(2) as pool:
            _submit(pool)


def with_a_thread_that_submits():
    """Submits are refused from some point on; the program ends all the same."""
    global held
    held = ProcessPoolExecutor(2)

    def submit():
        with contextlib.suppress(RuntimeError):
            for number in range(10_000):
                held.submit(abs, number)

    _submit(held)
    threading.Thread(target=submit, daemon=True).start()


def with_an_interrupt_at_any_place():
    """Ctrl-C while a pool works, whatever the main thread does then."""
    timer = threading.Timer(0.02, _thread.interrupt_main)
    with ProcessPoolExecutor(2) as pool:
        timer.start()
        while True:
            list(pool.map(abs, range(100)))


def with_collections_at_every_turn():
    gc.set_threshold(1)
    without_shutdown_and_held()


def in_an_interpreter_of_its_own():
    """A subinterpreter may ask for cores, or is told that it may not; it ends."""
    interpreters = __import__(
        "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"
    )
    number = interpreters.create()
    with contextlib.suppress(Exception):
        interpreters.run_string(number, "import coresize; coresize.available_cores()")
    interpreters.destroy(number)
    assert available_cores() > 0


if __name__ == "__main__":
    globals()[sys.argv[1]]()
