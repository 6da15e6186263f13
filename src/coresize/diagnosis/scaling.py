"""A benchmark of two seconds: what does not get faster with more workers here."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING

from coresize import processes, storage
from coresize.diagnosis.findings import Finding
from coresize.executor.process import ProcessPoolExecutor


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coresize.diagnosis.patient import Patient

#: Seconds of each kind, with one worker and with many.
_EACH = 0.2

#: Rounds at most until all workers are there, and seconds of a task in one.
_ROUNDS, _NAP = 20, 0.05

#: Parts of what so many workers should get done.
_POOR, _BAD = 0.7, 0.4

#: More workers show nothing more, and take long to start.
_MOST = 16

_MEGABYTE = bytes(1024**2)
_BLOCK = 16 * 1024**2


def compute(_folder: str) -> None:
    """Pure CPU, in the caches."""
    total = 0
    for number in range(20_000):
        total += number * number


def copy(_folder: str) -> None:
    """Memory bandwidth: a block that no cache holds."""
    bytearray(_BLOCK)[:] = bytes(_BLOCK)


def pickling(_folder: str) -> None:
    """A megabyte there and back."""
    pickle.loads(pickle.dumps(list(range(100_000)), 5))  # noqa: S301 - our own


def write(folder: str) -> None:
    """A small file in the temporary folder."""
    storage.write_scratch(folder, _MEGABYTE)


KINDS: dict[str, tuple[str, Callable[[str], None], str]] = {
    "compute": (
        "pure computing",
        compute,
        "the cores are shared with others, throttled, or not there (hyper-threads)",
    ),
    "copy": (
        "memory bandwidth",
        copy,
        "the cores share the way to memory, and a few fill it",
    ),
    "pickling": (
        "pickling of 1 MB",
        pickling,
        "the time goes into memory, not into cores",
    ),
    "write": (
        "files in the temporary folder",
        write,
        "the disk is shared, and a few workers fill it",
    ),
}


def scaling(patient: Patient) -> Iterator[Finding]:
    """Each kind with one worker, with two, and with as many as there are cores."""
    most = min(max(patient.cores, 2), _MOST)
    counts = sorted({2, most})
    folder = storage.temporary_folder()
    with ProcessPoolExecutor(most, threads=1) as pool:
        _warm(pool, most)
        for name, (title, _, why) in KINDS.items():
            rates = {count: _rate(pool, name, folder, count) for count in (1, *counts)}
            yield from _finding(patient, name, title, why, rates)


def _warm(pool: ProcessPoolExecutor, most: int) -> None:
    """Have all workers started: else their imports are in what one gets done."""
    for _ in range(_ROUNDS):
        if len(set(pool.map(ready, [_NAP] * 2 * most))) >= most:
            break


def ready(seconds: float) -> int:
    """Keep this worker busy, so that another has to be started; returns its number."""
    time.sleep(seconds)
    return processes.own()


def _rate(pool: ProcessPoolExecutor, name: str, folder: str, count: int) -> float:
    """Rounds a second of so many workers together."""
    futures = [pool.submit(repeat, name, folder, _EACH) for _ in range(count)]
    return sum(future.result() for future in futures)


def repeat(name: str, folder: str, seconds: float) -> float:
    """Rounds a second of this process."""
    run = KINDS[name][1]
    start = time.perf_counter()
    rounds = 0
    while time.perf_counter() < start + seconds:
        run(folder)
        rounds += 1
    return rounds / (time.perf_counter() - start)


def _finding(
    patient: Patient, name: str, title: str, why: str, rates: dict[int, float]
) -> Iterator[Finding]:
    most = max(rates)
    limit = patient.limits.cpu.limit or patient.cores
    expected = min(most, limit)
    part = rates[most] / rates[1] / expected if rates[1] else 1.0
    if part >= _POOR:
        return
    speedups = ", ".join(
        f"{n} workers {rates[n] / rates[1]:.2f} times" for n in rates if n > 1
    )
    yield Finding(
        severity="warning" if part < _BAD and name == "compute" else "note",
        check="scaling",
        title=f"{title}: {most} workers are {rates[most] / rates[1]:.2g} times as fast",
        seen=f"{speedups} as fast as 1; {expected:.3g} were to be expected",
        where="measured",
        why=why,
        advice="coresize sweep finds the number of workers that is best for your task",
    )
