"""The tasks that the programs of celery run, and a pool from before the fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import celery
from nested import PATIENCE, double, pool_inside

from coresize import ProcessPoolExecutor


app = celery.Celery("celery_tasks", broker="filesystem://")
app.conf.result_backend = Path.cwd().as_uri()
app.conf.broker_transport_options = {
    name: str(Path.cwd())
    for name in ("control_folder", "data_folder_in", "data_folder_out")
}
POOL = ProcessPoolExecutor(1)
if "STARTS_POOL" in os.environ:
    POOL.submit(abs, -1).result()


@app.task
def inside(numbers):
    return pool_inside(numbers)


@app.task
def outside(number):
    try:
        return POOL.submit(double, number).result()
    except RuntimeError:
        return "refused by a RuntimeError"


def answers(pool):
    """What both tasks return in a worker with this pool of celery."""
    words = ["-A", "celery_tasks", "-q", "worker", "--concurrency=1", f"--pool={pool}"]
    words += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", *words],
        env={**os.environ, "STARTS_POOL": "yes"},
    )
    try:
        results = inside.delay([1, 2]), outside.delay(3)
        first, second = [result.get(PATIENCE) for result in results]
    finally:
        process.terminate()
        process.wait(PATIENCE)
    return f"in the task {first}; the pool from the start of the worker: {second}"
