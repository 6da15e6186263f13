"""What a pool keeps in memory for its caller is bounded, whatever is submitted."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import time
from functools import partial

import odd_tasks
import pytest
import tasks

from coresize import ProcessPoolExecutor, ThreadPoolExecutor, limit_memory, run_batch


MIB = 1024**2
linux = pytest.mark.skipif(sys.platform != "linux", reason="VmHWM by /proc")

#: A program that says by how many MiB its own peak has grown.
PROGRAM = """
import sys, time
from functools import partial
import odd_tasks
from coresize import ProcessPoolExecutor, ThreadPoolExecutor, limit_memory, run_batch

MIB = 1024**2

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith(name)) // 1024

def main():
    large = b"x" * ({large} * MIB)
    with {pool} as pool:
        pool.submit(odd_tasks.length, b"").result()
        before = memory("VmRSS")
        {body}
        print(memory("VmHWM") - before)

if __name__ == "__main__":
    main()
"""


def grown(tmp_path, body, pool="ProcessPoolExecutor(2)", large=0):
    """MiB that the parent of a pool grows by."""
    body = textwrap.indent(textwrap.dedent(body), " " * 8).lstrip()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(pool=pool, body=body, large=large))
    folder = odd_tasks.__file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, str(program)],
        env={"PYTHONPATH": folder, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


#: Ten times 30 MiB: at most as much as goes to two workers at a time, and a little.
SHARED = [
    "[f.result() for f in [pool.submit(len, large) for _ in range(10)]]",
    "list(pool.map(odd_tasks.length, [large] * 10))",
    "list(pool.map(partial(odd_tasks.length, large), range(10)))",
    "list(run_batch(partial(odd_tasks.length, large), range(10)))",
    "list(run_batch(partial(odd_tasks.length, large), range(10), executor=pool))",
]


@linux
@pytest.mark.parametrize("body", SHARED)
def test_a_large_argument_is_not_copied_for_each_call_that_waits(tmp_path, body):
    assert grown(tmp_path, body, large=30) < 110


@linux
@pytest.mark.parametrize(
    "pool",
    [
        'ProcessPoolExecutor(2, memory="200MiB")',
        'ProcessPoolExecutor(2, memory="auto")',
        "ProcessPoolExecutor(2, timeout=200)",
        'limit_memory(ProcessPoolExecutor(2), memory="100MiB")',
    ],
)
def test_nor_where_tasks_wait_for_memory(tmp_path, pool):
    assert grown(tmp_path, SHARED[0], pool, large=30) < 110


@linux
def test_nor_of_many_calls_that_share_what_is_small(tmp_path):
    body = """
    shared = b"x" * (100 * 1024)
    for f in [pool.submit(odd_tasks.length, shared, i) for i in range(3000)]:
        f.result()
    """
    assert grown(tmp_path, body) < 100


@linux
def test_one_large_argument_is_copied_once(tmp_path):
    body = "pool.submit(odd_tasks.length, large).result()"
    assert grown(tmp_path, body, "ProcessPoolExecutor(1)", large=200) < 250


#: 120 results of 1 MiB each, of which the first alone is read while all could be made.
UNREAD = """
values = {values}
next(values)
last = -1
while last != memory("VmRSS"):  # until no more arrives
    last = memory("VmRSS")
    time.sleep(0.5)
held = memory("VmHWM") - before
assert held < 75, held
assert sum(1 for _ in values) == 119
"""


@linux
@pytest.mark.parametrize(
    ("pool", "values"),
    [
        ("ProcessPoolExecutor(2)", "pool.map(give, range(120))"),
        ("ProcessPoolExecutor(2)", "pool.map(give, range(120), chunksize=2)"),
        ('ProcessPoolExecutor(2, memory="1MiB")', "pool.map(give, range(120))"),
        ("ThreadPoolExecutor(2)", "pool.map(give, range(120))"),
        ("ThreadPoolExecutor(2, queue_size=50)", "pool.map(give, range(120))"),
        (
            'limit_memory(ThreadPoolExecutor(2), memory="1MiB")',
            "pool.map(give, range(120))",
        ),
        ("ProcessPoolExecutor(2)", "iter(run_batch(give, range(120), executor=pool))"),
        ("ThreadPoolExecutor(2)", "iter(run_batch(give, range(120), executor=pool))"),
    ],
)
def test_results_that_nobody_reads_are_bounded(tmp_path, pool, values):
    body = "give = partial(odd_tasks.give, MIB)\n" + UNREAD.format(values=values)
    assert grown(tmp_path, body, pool) < 150


POOLS = [
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    lambda count: limit_memory(ThreadPoolExecutor(count), memory="1MiB"),
    lambda count: limit_memory(ProcessPoolExecutor(count), memory="1MiB"),
]
NAMES = ["process", "thread", "gate-thread", "gate-process"]
every_pool = pytest.mark.parametrize("make", POOLS, ids=NAMES)


@every_pool
def test_what_is_held_back_is_made_when_it_is_read(make):
    with make(2) as pool:
        give = partial(odd_tasks.give, 3 * MIB)
        assert [len(value) for value in pool.map(give, range(30))] == [3 * MIB] * 30


@every_pool
@pytest.mark.parametrize("shape", [list, iter])
def test_what_is_held_back_is_made_when_the_pool_ends(make, shape):
    with make(2) as pool:
        values = pool.map(partial(odd_tasks.give, 3 * MIB), shape(range(30)))
    assert sum(len(value) for value in values) == 30 * 3 * MIB


@every_pool
def test_what_is_held_back_is_made_where_nobody_reads_it(make, tmp_path):
    with make(2) as pool:
        values = pool.map(partial(tasks.note_call, str(tmp_path)), range(300))
        del values
    assert len(list(tmp_path.iterdir())) == 300


@every_pool
def test_an_endless_input_is_read_in_part(make):
    with make(2) as pool:
        values = pool.map(abs, itertools.count())
        assert list(itertools.islice(values, 5000)) == list(range(5000))
        values.close()


@every_pool
@pytest.mark.parametrize("buffersize", [1, 2, 7])
def test_an_item_is_taken_for_each_that_is_read(make, buffersize):
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    with make(2) as pool:
        values = pool.map(abs, items(), buffersize=buffersize)
        assert len(taken) == buffersize
        for number in range(50):
            assert next(values) == number
            assert len(taken) == min(50, buffersize + number + 1)


@pytest.mark.parametrize("executor", ["process", "thread", "serial"])
def test_a_batch_of_large_results_ends(executor):
    run = run_batch(partial(odd_tasks.give, 3 * MIB), range(20), executor=executor)
    for number, outcome in enumerate(run):
        assert len(outcome.value) == 3 * MIB
        if number == 3:
            time.sleep(0.5)
    assert run.report.counts["ok"] == 20
