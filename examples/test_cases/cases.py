"""Test cases of a benchmark: each takes another amount of memory, and some fail."""

from __future__ import annotations

import os
import time


def run_case(case: dict[str, str], *, repeat: int = 1) -> dict[str, float]:
    """One case, measured: how long it takes to fill its memory."""
    size = int(case["megabytes"]) * 1024**2
    if case["ends"] == "error":
        message = f"{case['name']} expects another result"
        raise AssertionError(message)
    if case["ends"] == "exit":
        os._exit(3)
    if case["ends"] == "late":
        time.sleep(60)
    start = time.perf_counter()
    for _ in range(repeat):
        content = bytearray(b"x") * size
    seconds = time.perf_counter() - start
    return {"megabytes": len(content) / 1024**2, "seconds": round(seconds, 4)}
