"""Tasks whose best number of workers is known."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from pathlib import Path


def compute_and_wait(_item):
    """It computes for 40 % of its time: less than three of them keep a core busy."""
    end = time.process_time() + 0.01
    while time.process_time() < end:
        pass
    time.sleep(0.015)


def hold_and_ask(_item):
    """Each worker holds 100 MB, and asks a server that answers two at a time."""
    held = _model()
    while True:
        for number in range(2):
            with _line(number).open("w") as line, contextlib.suppress(BlockingIOError):
                fcntl.flock(line, fcntl.LOCK_EX | fcntl.LOCK_NB)
                time.sleep(0.1)
                return len(held)
        time.sleep(0.001)


def _line(number):
    return Path(os.environ["TMPDIR"], f"line-{number}")


@functools.cache
def _model():
    return bytearray(b"x") * (100 << 20)
