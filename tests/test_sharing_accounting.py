"""Large buffers in the accounts: a call waits for its copy, or says why it cannot."""

from __future__ import annotations

import contextlib
import csv
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from chaos.harness import wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

import coresize
from coresize import (
    InsufficientMemoryError,
    ProcessPoolExecutor,
    plan_workers,
    profile_task,
    run_batch,
)
from coresize.batch.journal.merge import merge
from coresize.executor.admission.rules import Rules
from coresize.executor.jobs import Job
from coresize.executor.sharing import Later
from coresize.processes import copies, segments
from coresize.processes.memory import read_memory
from coresize.testing import container, use_host


pytestmark = pytest.mark.skipif(
    not segments.is_available(), reason="needs memfd_create(2)"
)

MIB = 1024**2
#: The bytes of a large array, and what is left of the memory: less, then more.
SIZE, LITTLE, MUCH = 8 * MIB, 4 * MIB, 1024 * MIB


class Machine:
    """A container whose memory a test fills and frees."""

    def __init__(self):
        self.host = container(memory=2 * MUCH, used=MIB)

    def leave(self, left):
        used = next(
            name for name in self.host.files if name.endswith("/memory.current")
        )
        self.host.files[used] = f"{2 * MUCH - left}\n"


@pytest.fixture
def machine():
    made = Machine()
    with use_host(made.host):
        yield made


def large(number=1.0):
    return np.full(SIZE // 8, number)


def first(array, *_rest):
    return float(array[0])


def hold(array, path):
    """Hold a large argument until a file exists."""
    Path(f"{path}-begun").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return float(array[0])


class Gate:
    """Holds a task until the end of the block."""

    def __init__(self, folder):
        self.path = folder / "gate"

    def open(self):
        self.path.touch()

    def hold(self, pool, array):
        future = pool.submit(hold, array, self.path)
        wait_for(Path(f"{self.path}-begun").exists, patience=60)
        return future

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.open()


def submitted(pool, *arrays):
    return [pool.submit(first, array) for array in arrays]


def mapped(pool, *arrays):
    values = pool.map(first, arrays)
    return [values]


def values_of(made):
    """The values of futures, or of a map."""
    for each in made:
        yield from [each.result(60)] if hasattr(each, "result") else each


# --- Waiting ----------------------------------------------------------------------


@pytest.mark.parametrize("make", [submitted, mapped])
@pytest.mark.parametrize("memory", [None, "auto", "2MiB"])
def test_a_call_waits_for_what_a_running_task_holds(machine, tmp_path, make, memory):
    """And another call that needs no copy is made meanwhile."""
    gate, array = Gate(tmp_path), large()  # its address is taken meanwhile
    with ProcessPoolExecutor(2, memory=memory) as pool, gate:
        running = gate.hold(pool, array)
        machine.leave(LITTLE)
        made = make(pool, large(2.0), large(3.0))
        if memory is None:  # a bound of memory reads the real machine
            assert pool.submit(abs, -1).result(60) == 1
        assert not running.done()
        machine.leave(MUCH)
        gate.open()
        assert list(values_of(made)) == [2.0, 3.0]
        assert running.result(60) == 1.0


def test_a_call_that_waits_can_be_cancelled(machine, tmp_path):
    gate, array = Gate(tmp_path), large()  # its address is taken meanwhile
    with ProcessPoolExecutor(2) as pool, gate:
        running = gate.hold(pool, array)
        machine.leave(LITTLE)
        waiting = submitted(pool, large(2.0), large(3.0))
        assert pool.submit(abs, -1).result(60) == 1
        assert waiting[0].cancel()
        pool.shutdown(wait=False, cancel_futures=True)
        wait_for(waiting[1].cancelled, patience=60)
        gate.open()
        assert running.result(60) == 1.0


def test_a_batch_waits_as_well(machine):
    machine.leave(3 * SIZE)
    arrays = [large(float(n)) for n in range(4)]
    outcomes = run_batch(first, arrays, max_workers=2)
    assert outcomes.results() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("memory", [None, "auto", "2MiB"])
def test_what_can_never_fit_fails_with_both_numbers(machine, memory):
    machine.leave(LITTLE)
    with ProcessPoolExecutor(2, memory=memory) as pool:
        future = pool.submit(first, large())
        with pytest.raises(InsufficientMemoryError) as caught:
            future.result(60)
        assert caught.value.needed >= SIZE
        assert caught.value.budget == LITTLE
        assert pool.submit(abs, -1).result(60) == 1
        with pytest.raises(InsufficientMemoryError):
            next(pool.map(first, [large()]))


def test_what_waits_in_front_is_not_in_the_way_of_what_is_copied(machine):
    """A call that can never fit fails only when the others have run."""
    with ProcessPoolExecutor(1, memory="auto") as pool:
        machine.leave(MUCH)
        small = np.zeros(MIB // 8)
        ready = [pool.submit(first, small, n) for n in range(3)]
        machine.leave(LITTLE)
        never = pool.submit(first, large())
        assert [future.result(60) for future in ready] == [0.0] * 3
        assert isinstance(never.exception(60), InsufficientMemoryError)


def test_a_call_whose_copy_turns_out_to_be_larger_waits_again(machine, tmp_path):
    """The caller has changed an array that is known, in a call of many objects."""
    gate, array, many = Gate(tmp_path), large(), list(range(600_000))
    with ProcessPoolExecutor(2) as pool, gate:
        running = gate.hold(pool, array)
        machine.leave(LITTLE)
        array[:] = 2.0
        changed = pool.submit(first, array, many)
        wait_for(changed.running, patience=60)
        assert pool.submit(abs, -1).result(60) == 1
        assert not changed.done()
        machine.leave(MUCH)
        gate.open()
        assert (running.result(60), changed.result(60)) == (1.0, 2.0)


# --- Rules ------------------------------------------------------------------------


def uncopied(size, need=0):
    """A job whose large arguments are still to be copied."""
    return Job(Later([(1, 1 + size)]), "function", need)


@pytest.mark.parametrize(
    ("running", "waiting", "left", "chosen"),
    [
        ([], [uncopied(100)], 0, 0),  # it is tried, and fails
        ([], [uncopied(100), uncopied(50)], 60, 1),
        ([], [uncopied(100), Job(b"", "", 1)], 0, 1),
        ([Job(b"", "", 0)], [uncopied(100)], 99, None),
        ([Job(b"", "", 0)], [uncopied(100, need=20)], 119, None),
        ([Job(b"", "", 0)], [uncopied(100, need=20)], 120, 0),
        ([Job(b"", "", 30)], [uncopied(100, need=20)], 149, None),
        ([Job(b"", "", 30)], [uncopied(100, need=20)], 150, 0),
    ],
)
def test_the_copy_of_a_call_is_reserved(running, waiting, left, chosen):
    rules = Rules(8, learns=False)
    found = rules.choose(waiting, [(job, 0, 0.0) for job in running], left)
    assert found is (None if chosen is None else waiting[chosen])


BASES = [np.arange(64.0) + n for n in range(3)]
slices = st.builds(
    lambda base, start, size: memoryview(BASES[base][start : start + size]).cast("B"),
    st.integers(0, 2),
    st.integers(0, 60),
    st.integers(1, 64),
)


@settings(max_examples=50)
@given(st.lists(slices, max_size=4), st.lists(slices, min_size=1, max_size=6))
def test_what_is_missing_is_what_is_copied(known, views):
    """As long as nobody changes the arrays."""
    index = copies.Copies()
    kept = [index.place([view], None) for view in known]
    missing = index.missing(copies.ranges_of(views))
    pieces, fresh = index.place(views, None)
    assert missing <= fresh
    assert index.missing(copies.ranges_of(views)) == 0
    del kept, pieces
    assert index.missing(copies.ranges_of(views)) == copies.size_of(views)


def test_a_copy_that_another_call_brings_is_not_counted_twice():
    array = large()
    ranges = copies.ranges_of([memoryview(array).cast("B")])
    later = Later(ranges, InsufficientMemoryError(SIZE, 0, ""))
    assert later.size == Later(ranges).size == SIZE
    kept = copies.copies.place([memoryview(array).cast("B")], None)
    assert later.size == Later(ranges).size == 0
    del kept


# --- Peaks ------------------------------------------------------------------------

#: The bytes of a shared array, and those that a task takes of its own.
ARRAY, OWN = 48 * MIB, 32 * MIB
#: The kernel's counts of resident pages are exact to some MiB.
ABOUT = 6 * MIB


def take():
    np.ones(OWN // 8)


def read(array):
    array.sum()


def write(array):
    array[: len(array) // 2] = 2.0


def give(*_):
    return np.ones(OWN // 8)


def steps(array, *made):
    for step in made:
        result = step() if step is take else step(array)
    return result


def peak_of(pool, array, *made):
    future = pool.submit(steps, array, *made)
    future.result(60)
    return future.peak_memory


@pytest.fixture(scope="module")
def pools():
    with (
        ProcessPoolExecutor(1, memory="auto") as plain,
        ProcessPoolExecutor(1, memory="auto", writable="copy") as writing,
    ):
        yield {None: plain, "copy": writing}


@pytest.mark.parametrize("writable", [None, "copy"])
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([read], 0),
        ([take], OWN),
        ([take, read], OWN),
        ([read, take], OWN),
        ([take, read, take, read], OWN),
        ([give], 2 * OWN),  # with its copy in shared memory
        ([take, read, give], 2 * OWN),
        ([write], ARRAY // 2),
        ([read, write], ARRAY // 2),
        ([write, take], ARRAY // 2 + OWN),
        ([write, take, read], ARRAY // 2 + OWN),
        ([write, give], ARRAY // 2 + 2 * OWN),
    ],
)
def test_a_peak_is_what_the_task_has_taken(pools, writable, made, expected):
    """Whatever it takes, and whenever it reads or writes to the shared array."""
    if write in made and writable is None:
        pytest.skip("nobody may write")
    pool, array = pools[writable], np.ones(ARRAY // 8)
    peak_of(pool, array, read)  # imports what it needs
    least = peak_of(pool, array[:1], read)
    assert abs(peak_of(pool, array, *made) - least - expected) < ABOUT


@pytest.mark.parametrize("made", [[take, write], [take, read, write, read]])
def test_a_peak_before_a_write_is_not_too_low(pools, made):
    """Pages that are written to later count as if they had been its own by then."""
    pool, array = pools["copy"], np.ones(ARRAY // 8)
    peak_of(pool, array, read)
    least = peak_of(pool, array[:1], read)
    peak = peak_of(pool, array, *made) - least
    assert OWN - ABOUT < peak < OWN + ARRAY // 2 + ABOUT


def test_a_share_in_a_file_is_not_read_ahead_or_counted(pools, tmp_path):
    array = np.ones(ARRAY // 8)
    with use_host(container(memory="64MiB", used="40MiB")):
        shared = coresize.share(array, spill=tmp_path)
    with shared:
        pool = pools[None]
        peak_of(pool, array, read)
        least = peak_of(pool, array[:1], read)
        future = pool.submit(resident_of_files, shared)
        before, after = future.result(60)
        assert after - before > ARRAY - ABOUT
        assert future.peak_memory - least < ABOUT


def resident_of_files(shared):
    """The resident bytes of files, before and after the share is read."""
    before = read_memory().file
    shared.value.sum()
    return before, read_memory().file


# --- What is told -----------------------------------------------------------------


def read_with(array, item):
    return float(array[item])


def test_a_future_tells_what_its_task_had_mapped(tmp_path):
    gate, array = Gate(tmp_path), large()
    with ProcessPoolExecutor(2) as pool, gate:
        running = gate.hold(pool, array)
        again = pool.submit(first, array)
        assert again.result(60) == 1.0
        assert pool.observe().shared_memory == SIZE  # once for both
        small = pool.submit(abs, -1)
        assert small.result(60) == 1
        with pytest.raises(IndexError):
            pool.submit(read_with, array, len(array)).result(60)
        gate.open()
        running.result(60)
        assert running.shared_memory == again.shared_memory == SIZE
        assert small.shared_memory == 0
        assert pool.observe().shared_memory == 0


def test_an_outcome_tells_it_too_and_so_does_its_journal(tmp_path):
    path, array = tmp_path / "out.sqlite", large()
    told = [
        [outcome.shared_memory for outcome in run_batch(*given, journal=path)]
        for given in 2 * [(partial(read_with, array), [1, 2])]
    ]
    assert told == [[SIZE] * 2] * 2  # of the journal, the second time
    merge([path], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["shared_memory"] for row in csv.DictReader(file)] == [str(SIZE)] * 2
    threads = run_batch(partial(read_with, array), [1], executor="thread")
    assert [outcome.shared_memory for outcome in threads] == [None]


def test_a_journal_of_an_earlier_version_is_read_and_continued(tmp_path):
    """One that has no such column."""
    path, array = tmp_path / "out.sqlite", large()
    run_batch(partial(read_with, array), [1, 2], journal=path).results()
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE tasks DROP COLUMN shared_memory")
        file.commit()
    merge([path], tmp_path / "out.csv")
    table = tmp_path / "out.csv"  # as an earlier merge would have written it
    table.write_text(table.read_text().replace(",shared_memory", ""))
    merge([path], table)
    merge([path], tmp_path / "merged.db")
    run = run_batch(partial(read_with, array), [1, 2, 3], journal=path)
    assert [outcome.shared_memory for outcome in run] == [None, None, SIZE]


@pytest.mark.parametrize("method", ["proc", None])
@pytest.mark.parametrize(
    ("task", "arguments", "peak", "shared"),
    [
        (steps, [np.ones(ARRAY // 8), read], 0, ARRAY),
        (steps, [np.ones(ARRAY // 8), take, read], OWN, ARRAY),
        (partial(steps, np.ones(ARRAY // 8)), [read, take], OWN, ARRAY),
        (steps, [np.ones(10), take], OWN, 0),
        (len, [b"x" * OWN], OWN, OWN),  # bytes own their memory
    ],
)
def test_a_profile_tells_what_is_shared_apart(method, task, arguments, peak, shared):
    profile = profile_task(task, *arguments, method=method)
    assert abs(profile.peak_memory - peak) < ABOUT
    assert profile.shared_memory == shared
    with use_host(container(memory=shared + 4 * profile.memory + MIB, used=0)):
        assert plan_workers(profile=profile, max_workers=8).workers in (3, 4)


# --- What an error holds ----------------------------------------------------------

KEPT_ERRORS = """
import gc, weakref, numpy as np
from coresize import InsufficientMemoryError, ProcessPoolExecutor, share
from coresize.testing import container, use_host

class Big(np.ndarray):
    pass

def refused(shared):
    big = np.ones(8 << 20).view(Big)
    known = weakref.ref(big)
    errors = []
    try:
        share([shared, big, shared.value])
    except InsufficientMemoryError as error:
        errors.append(error)  # in a cycle with this frame
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(len, [shared, big, shared.value])
        errors.append(future.exception())
    print([type(error).__name__ for error in errors])
    return known

with use_host(container(memory="64MiB", used="40MiB")):
    with share(np.ones(1 << 18)) as shared:
        known = refused(shared)
gc.collect()
print(known())
"""


def test_an_error_that_is_kept_holds_no_array_and_crashes_no_collection():
    """A garbage collection that clears views of views ends the process."""
    done = subprocess.run(
        [sys.executable, "-c", KEPT_ERRORS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:2] == [str(["InsufficientMemoryError"] * 2), "None"]
