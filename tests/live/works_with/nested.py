"""What the programs of this folder share: a task with a pool, commands and servers."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from urllib import request
from urllib.error import URLError

from coresize import ProcessPoolExecutor


#: Seconds until what hangs is given up.
PATIENCE = 300


def double(number):
    return 2 * number


def double_and_threads(number):
    return double(number), int(os.environ["OMP_NUM_THREADS"])


def pool_inside(numbers):
    """What a pool in this task returns, if it has run in a process of its own."""
    with ProcessPoolExecutor() as pool:
        doubled = list(pool.map(double, numbers))
        return doubled if pool.submit(os.getpid).result() != os.getpid() else None


def run(*words, **options):
    """The output of a module that runs as a program."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ).stdout


@contextlib.contextmanager
def server(*words):
    """The address that a server's log tells."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stderr=subprocess.PIPE, text=True
    )
    log = []
    try:
        for line in process.stderr:
            log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:[0-9]+", line):
                yield found[0]
                break
        else:
            sys.exit("".join(log))
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def get(address):
    """The text that a server answers; uvicorn tells its address before it listens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with request.urlopen(address, timeout=PATIENCE) as answer:
                return answer.read().decode()
        except URLError as error:
            refused = isinstance(error.reason, ConnectionRefusedError)
            if not refused or time.monotonic() > end:
                raise
            time.sleep(0.05)
