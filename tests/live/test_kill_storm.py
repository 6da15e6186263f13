"""Two thousand tasks while a random worker is killed every 50 ms for 20 s."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import threading
import time

import tasks

from coresize import ProcessPoolExecutor, TaskKilledError, processes


def _storm(pool, over, killed):
    end = time.monotonic() + 20
    while not over.wait(0.05) and time.monotonic() < end:
        workers = list(pool._processes)
        if workers:
            pid = random.choice(workers)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)


def test_every_task_ends_with_a_result_or_a_verdict():
    over, killed = threading.Event(), []
    seen = set()
    ended = collections.Counter()
    with ProcessPoolExecutor(4) as pool:
        storm = threading.Thread(target=_storm, args=(pool, over, killed))
        futures = {pool.submit(tasks.nap, 0.02): n for n in range(2000)}
        for future, number in futures.items():
            future.add_done_callback(lambda _, number=number: ended.update([number]))
        storm.start()
        try:
            end = time.monotonic() + 120
            for future in futures:
                error = future.exception(end - time.monotonic())
                assert error is None or isinstance(error, TaskKilledError)
                assert error is not None or future.result() == 0.02
            seen = set(pool._processes)
        finally:
            over.set()
            storm.join()
    assert len(killed) > 20
    assert len(ended) == 2000
    assert set(ended.values()) == {1}
    time.sleep(0.2)
    left = [pid for pid in seen | set(killed) if processes.read(pid, "cmdline")]
    assert left == []
