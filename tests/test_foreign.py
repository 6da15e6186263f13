"""Executors of others: what coresize knows of them, and how it keeps them busy."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import threading
from pathlib import Path

import pytest
import tasks

from coresize import ConfigError, ThreadPoolExecutor, limit_memory, run_batch
from coresize.executor.traits import shut_down, traits_of
from coresize.host import Live
from coresize.testing import use_host


class Foreign(concurrent.futures.Executor):
    """An executor that nobody knows, of threads; it tells no number of workers.

    Its ``shutdown`` knows no ``cancel_futures``, as those of loky and dask.
    """

    def __init__(self, slots):
        self._pool = concurrent.futures.ThreadPoolExecutor(slots)
        self._lock = threading.Lock()
        self.now = self.most = self.given = 0

    def submit(self, fn, /, *args, **kwargs):
        with self._lock:
            self.given += 1
        return self._pool.submit(self._run, fn, args, kwargs)

    def _run(self, fn, args, kwargs):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return fn(*args, **kwargs)
        finally:
            with self._lock:
                self.now -= 1

    def shutdown(self, wait=True):  # noqa: FBT002 - as in the standard library
        self._pool.shutdown(wait)


class Telling(Foreign):
    """One that tells its workers as the standard library does."""

    def __init__(self, slots):
        super().__init__(slots)
        self._max_workers = slots


PATIENCE = 120

_barriers = {}  # by the test: a task is sent, and must not hold one itself


def _together(barrier, but_for, item):
    if item >= but_for:
        _barriers[barrier].wait(PATIENCE)


@pytest.fixture
def together():
    """A function that gives a task, which ends when so many of them are running."""

    def make(many, but_for=0):
        barrier = threading.Barrier(many)
        _barriers[id(barrier)] = barrier
        return functools.partial(_together, id(barrier), but_for)

    yield make
    _barriers.clear()


@pytest.mark.parametrize("kind", [Foreign, Telling])
def test_a_batch_keeps_an_executor_busy_that_it_does_not_know(kind, together):
    executor = kind(16)
    run = run_batch(together(16), range(96), executor=executor, progress=False)
    assert run.wait().counts["ok"] == 96
    assert executor.most == 16
    executor.shutdown()


def test_the_number_in_flight_grows_until_that_helps_no_more(caplog, together):
    executor = Foreign(64)
    task = together(32, but_for=16)  # the first 16 that end let it grow
    with caplog.at_level(logging.INFO, logger="coresize"):
        run = run_batch(task, range(16 + 320), executor=executor, progress=False)
        assert run.wait().counts["ok"] == 336
    executor.shutdown()
    assert executor.most >= 32
    told = [record for record in caplog.records if "in flight" in record.getMessage()]
    assert len(told) <= 1  # once it has settled


@pytest.mark.parametrize("kind", [Foreign, Telling])
def test_a_gate_keeps_an_executor_busy_that_it_does_not_know(kind, together):
    executor = kind(16)
    with limit_memory(executor, memory="1MiB") as gate:
        run = run_batch(together(16), range(96), executor=gate, progress=False)
        assert run.wait().counts["ok"] == 96
    assert executor.most == 16


def test_a_gate_has_the_traits_of_what_is_behind_it():
    with limit_memory(ThreadPoolExecutor(32), memory="1MiB") as gate:
        assert traits_of(gate) == traits_of(ThreadPoolExecutor(32))


def is_cancelled(future):
    """Also one that was handed on, and had not begun there."""
    try:
        future.result(0)
    except concurrent.futures.CancelledError:
        return True
    return False


def test_a_gate_ends_an_executor_that_cancels_nothing():
    begun, go = threading.Event(), threading.Event()
    gate = limit_memory(Foreign(1), memory="1MiB")
    first = gate.submit(lambda: (begun.set(), go.wait(60)))
    others = [gate.submit(tasks.nap, 0) for _ in range(20)]
    assert begun.wait(60)
    gate.shutdown(wait=False, cancel_futures=True)
    go.set()
    gate.shutdown()
    assert first.result(60)
    assert sum(map(is_cancelled, others)) >= 18


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (concurrent.futures.ThreadPoolExecutor, "threads"),
        (concurrent.futures.ProcessPoolExecutor, "processes"),
        (Telling, "processes"),
    ],
)
def test_executors_are_known_by_their_classes(make, place):
    with make(3) as executor:
        traits = traits_of(executor)
        assert (traits.place, traits.slots) == (place, 3)


def test_an_executor_whose_number_cannot_be_asked_has_none():
    class Odd(Foreign):
        @property
        def _max_workers(self):
            raise OSError

    executor = Odd(1)
    assert traits_of(executor).slots is None
    shut_down(executor, cancel=True)


def test_what_is_no_executor_is_refused():
    with pytest.raises(ConfigError, match="executor"):
        run_batch(abs, [1], executor=object())


class Counting(Live):
    """This machine; it counts what is read."""

    def __init__(self):
        self.reads = []

    def read(self, path):
        self.reads.append(path)
        return super().read(path)


def test_a_pool_reads_its_settings_and_its_cgroups_once():
    """Whatever it was asked for: settings are looked for in files, too."""
    from coresize import ProcessPoolExecutor

    host = Counting()
    with use_host(host), ProcessPoolExecutor(2, memory="1MiB"):
        asked = [path for path in host.reads if path == "/proc/self/cgroup"]
    assert len(asked) == 1


def test_a_batch_loads_its_settings_once(tmp_path):
    """They are looked for in the folder, and in those above it."""
    file = str(tmp_path / "coresize.toml")
    Path(file).write_text("memory_fraction = 0.7\n")
    host = Counting()
    with contextlib.chdir(tmp_path), use_host(host):
        run = run_batch(abs, [1], memory="1MiB", progress=False)
        assert host.reads.count(file) == 1
        assert host.reads.count("/proc/self/cgroup") == 1
        assert run.wait().counts["ok"] == 1
