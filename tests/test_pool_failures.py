"""Pools whose workers cannot be started, get stuck, or whose threads meet an error.

Each costs what it concerns and nothing else, and nobody waits for ever.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from concurrent.futures import ThreadPoolExecutor as Threads
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import failures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coresize import (
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    limit_memory,
    processes,
    run_batch,
)
from coresize.executor.pool.exits import REFUSED, Starts
from coresize.measuring.supervisor import Supervisor
from coresize.processes import forkserver, refusals
from coresize.processes import memory as procfs
from coresize.processes.schedstat import IdleTime, RunTime


#: Seconds after which what should come will not.
LONG = 120

linux = pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")
POOLS = [{}, {"memory": "1MB"}, {"memory": "auto"}]


def eventually(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


def state_of(pid):
    return procfs.activity(processes.read(pid, "stat"))[0]


@contextlib.contextmanager
def pool_of(*args, **kwargs):
    """A pool that ends whatever comes."""
    pool = ProcessPoolExecutor(*args, **kwargs)
    try:
        yield pool
        pool.shutdown()
    finally:
        pool.kill_workers()


# --- Workers that cannot be started -------------------------------------------

#: What is used up for a moment: `take` makes that so, `give` ends it, and may be called
#: by another thread.
HEAD = """\
import contextlib, json, logging, os, resource, signal, sys, tempfile, threading
import time, warnings
import failures
from concurrent.futures.process import BrokenProcessPool
from coresize import ProcessPoolExecutor, ThreadPoolExecutor, limit_memory

warnings.simplefilter("error")  # as -W, but not in workers
logging.getLogger("coresize").propagate = False
logging.getLogger("coresize").addHandler(logging.NullHandler())

def files():
    return len(os.listdir("/proc/self/fd"))

class Files:
    def __init__(self):
        self.kept = []
    def take(self, leave=0):
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with contextlib.suppress(OSError):
            while True:
                self.kept.append(os.dup(0))
        for _ in range(leave):
            os.close(self.kept.pop())
    def give(self):
        while self.kept:
            os.close(self.kept.pop())

class Stack:
    "No thread can be started."
    def take(self):
        threading.stack_size(1 << 46)
    def give(self):
        threading.stack_size(0)

class OnWarning(logging.Handler):
    "Does something at the first warning: a start was refused."
    def __init__(self, call):
        super().__init__()
        self.texts, self.call = [], call
        logging.getLogger("coresize").addHandler(self)
    def emit(self, record):
        self.texts.append(record.getMessage())
        if len(self.texts) == 1:
            self.call()
"""


def run(program, *words):
    """What a program prints as JSON; it must not complain."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@linux
@pytest.mark.parametrize("memory", [None, "1MB"])
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_start_that_is_refused_for_a_moment_is_tried_again(method, memory):
    program = f"""
import multiprocessing
scarce = Files()
context = multiprocessing.get_context({method!r})
with ProcessPoolExecutor(2, context, memory={memory!r}) as pool:
    scarce.take()
    seen = OnWarning(scarce.give)
    values = list(pool.map(abs, [-1, -2, -3]))
    print(json.dumps([values, len(seen.texts) > 0]))
"""
    assert run(program) == [[1, 2, 3], True]


@linux
@pytest.mark.parametrize("memory", [None, "1MB"])
def test_the_pool_goes_on_with_the_workers_that_it_has(tmp_path, memory):
    program = f"""
scarce = Files()
with ProcessPoolExecutor(3, memory={memory!r}) as pool:
    pool.submit(abs, -1).result()
    scarce.take()
    refused = threading.Event()
    seen = OnWarning(refused.set)
    folder = sys.argv[1]
    futures = [pool.submit(failures.wait_for, folder + "/go")]
    futures += [pool.submit(failures.echo, number) for number in range(20)]
    refused.wait(100)
    futures += [pool.submit(failures.echo, number) for number in range(20, 40)]
    few = pool.observe().workers
    scarce.give()
    open(folder + "/go", "w").close()
    values = [future.result() for future in futures[1:]]
    # Another function: of one that is known to be short, one worker may be given many.
    words = folder + "/begun", folder + "/end"
    futures = [pool.submit(failures.tell_and_wait_for, *words) for _ in range(3)]
    while pool.observe().workers < 3:
        time.sleep(0.01)
    open(words[1], "w").close()
    print(json.dumps([few, values, len([future.result() for future in futures])]))
"""
    assert run(program, tmp_path) == [1, list(range(40)), 3]


@linux
def test_starts_that_are_always_refused_end_the_pool_and_leave_nothing():
    program = """
scarce = Files()
with ProcessPoolExecutor(1) as warm:  # what stays: the fork server
    warm.submit(abs, -1).result()
before = files()
pool = ProcessPoolExecutor(2)
scarce.take()
seen = OnWarning(lambda: None)
futures = [pool.submit(abs, -number) for number in range(5)]
errors = [future.exception() for future in futures]
scarce.give()
try:
    pool.submit(abs, 1)
except BrokenProcessPool as error:
    errors.append(error)
pool.shutdown()
print(json.dumps([
    [[type(e).__name__, str(e), e.__cause__.errno] for e in errors],
    len(seen.texts), files() - before]))
"""
    errors, told, left = run(program)
    assert len(errors) == 6
    for name, text, cause in errors:
        assert (name, cause) == ("BrokenProcessPool", errno.EMFILE)
        assert "RLIMIT_NOFILE is 64" in text
    assert (told, left) == (1, 0)


@linux
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_start_that_fails_half_way_leaves_nothing(method):
    """With each number of files that are left, from none to enough."""
    program = """
import multiprocessing
from coresize.executor.pool.options import PoolOptions
from coresize.executor.pool.workers import Workers
from coresize.executor.sharing import sharing
from coresize.processes import inheritance
context = multiprocessing.get_context(sys.argv[1])
with ProcessPoolExecutor(1, context) as pool:  # what stays: the fork server
    pool.submit(abs, -1).result()
made = PoolOptions(context=context, forks=False, initializer=None, initargs=(),
    max_tasks=None, insists=False, measured=False, timeout=None, oom_retries=0,
    imports_main=True, idle=None, sharing=sharing(None, None),
    gives_ahead=True)
left, good = [], 0
for free in range(20):
    workers = Workers(made, 1, {}, lambda *_: None, lambda *_: None)
    scarce, before = Files(), files()
    scarce.take(free)
    try:
        workers.add(inheritance.current())
        good += 1
    except OSError:
        pass
    scarce.give()
    workers.end()
    left.append(files() - before + 1)  # the selector was open
print(json.dumps([left, good > 0]))
"""
    left, good = run(program, method)
    assert good
    assert all(more <= 0 for more in left)


@linux
def test_what_can_never_be_started_is_told_at_once():
    with pool_of(2, initializer=print, initargs=(threading.Lock(),)) as pool:
        errors = [pool.submit(abs, -1).exception(LONG)]
        with pytest.raises(BrokenProcessPool, match="cannot pickle") as caught:
            pool.submit(abs, -1)
    for error in [*errors, caught.value]:
        assert type(error) is BrokenProcessPool
        assert isinstance(error.__cause__, TypeError)


@linux
def test_a_fork_server_that_is_killed_costs_nothing(tmp_path):
    with pool_of(3) as pool:
        first = pool.submit(failures.wait_for, tmp_path / "go")
        eventually(lambda: pool.observe().workers == 1)
        eventually(first.running)
        pool.submit(failures.echo, 0).result(LONG)
        os.kill(forkserver.pid(), signal.SIGKILL)
        others = [pool.submit(failures.wait_for, tmp_path / "go") for _ in range(2)]
        eventually(lambda: pool.observe().workers == 3)
        (tmp_path / "go").touch()
        assert {future.result(LONG) for future in [first, *others]} == {tmp_path / "go"}


@linux
def test_fewer_forks_than_asked_are_enough():
    program = """
import multiprocessing
scarce = Files()
pool = ProcessPoolExecutor(8, multiprocessing.get_context("fork"))
scarce.take(20)
seen = OnWarning(lambda: None)
values = list(pool.map(abs, range(-20, 0)))
few = pool.observe().workers
pool.shutdown()
print(json.dumps([values, 1 <= few < 8, seen.texts]))
"""
    values, few, texts = run(program)
    assert values == list(range(20, 0, -1))
    assert few
    assert ["RLIMIT_NOFILE is 64" in text for text in texts] == [True]


@linux
@pytest.mark.parametrize(
    ("scarce", "error"), [("Files", "OSError"), ("Stack", "RuntimeError")]
)
def test_who_cannot_fork_may_submit_again(scarce, error):
    program = f"""
import multiprocessing
scarce = {scarce}()
pool = ProcessPoolExecutor(3, multiprocessing.get_context("fork"))
scarce.take()
try:
    pool.submit(abs, -1)
except {error}:
    scarce.give()
with pool:
    values = list(pool.map(abs, [-1, -2, -3]))
    workers = pool.observe().workers
print(json.dumps([values, workers]))
"""
    assert run(program) == [[1, 2, 3], 3]


@linux
@pytest.mark.parametrize(
    "make",
    [
        "ProcessPoolExecutor(2)",
        "ProcessPoolExecutor(2, memory='1MB')",
        "ThreadPoolExecutor(2)",
        "ThreadPoolExecutor(2, queue_size=1)",
    ],
)
def test_a_thread_that_cannot_be_started_is_told_and_may_be_tried_again(make):
    program = f"""
scarce, calls, raised = Stack(), [], 0
with {make} as pool:
    scarce.take()
    for number in range(5):
        try:
            pool.submit(print, number, file=sys.stderr)
        except RuntimeError:
            raised += 1
    scarce.give()
    values = [pool.submit(abs, -number).result() for number in range(5)]
print(json.dumps([raised, values]))
"""
    assert run(program) == [5, list(range(5))]


@linux
def test_threads_that_are_there_go_on_without_others():
    program = """
scarce, gate = Stack(), threading.Event()
with ThreadPoolExecutor(4) as pool:
    first = pool.submit(gate.wait)
    scarce.take()
    futures = [pool.submit(abs, -number) for number in range(5)]
    gate.set()
    values = [future.result() for future in futures]
    scarce.give()
print(json.dumps(values))
"""
    assert run(program) == list(range(5))


@linux
def test_limit_memory_without_a_thread_leaves_nothing():
    program = """
from concurrent.futures import ThreadPoolExecutor as Threads
scarce = Stack()
inner = Threads(1)
scarce.take()
try:
    limit_memory(inner, memory="1MB")
except RuntimeError as error:
    print(json.dumps(str(error)))
"""
    assert "thread" in run(program)


def test_workers_that_end_before_they_are_ready_cost_nothing(tmp_path):
    """As long as one is ready; else the program would run in circles."""
    with pool_of(2, initializer=failures.exit_but_first, initargs=(tmp_path,)) as pool:
        pool.submit(failures.echo, 0).result(LONG)
        futures = [pool.submit(failures.wait_for, tmp_path / "go") for _ in range(4)]
        eventually(lambda: failures.starts(tmp_path) > 5)
        (tmp_path / "go").touch()
        assert [future.result(LONG) for future in futures] == [tmp_path / "go"] * 4


@given(st.lists(st.sampled_from(["refused", "ends", "killed", "ready"]), max_size=200))
def test_a_pool_is_given_up_after_failures_in_a_row_alone(events):
    starts, row = Starts(), 0.0
    for event in events:
        weight = {"refused": REFUSED, "ends": 1.0, "killed": 0.05}.get(event)
        if weight is None:
            starts.succeed()
            row = 0.0
            assert starts.may_try
            continue
        assert not starts.fail(weight, alone=False, wait=True)
        assert not starts.may_try
        row += weight
        assert starts.fail(weight, alone=True, wait=False) == (row > 3 - 0.001)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "RLIMIT_NOFILE is "),
        (OSError(errno.ENFILE, "Too many open files in system"), "fs.file-max is "),
        (BlockingIOError(errno.EAGAIN, "temporarily unavailable"), " is "),
        (RuntimeError("can't start new thread"), "new thread: "),
        (EOFError(), "has ended (EOFError)"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "has ended ([Errno"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "[Errno 2] No such file"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_refusal_is_told_with_its_limit(error, text):
    assert text in refusals.explain(error)


# --- Workers that never get ready ---------------------------------------------


@linux
@pytest.mark.parametrize("kwargs", POOLS)
@pytest.mark.parametrize("start", [failures.hang_but_first, failures.stop_but_first])
def test_what_a_stuck_worker_holds_goes_to_one_that_is_idle(tmp_path, start, kwargs):
    with pool_of(2, initializer=start, initargs=(tmp_path,), **kwargs) as pool:
        pool.submit(failures.wait_for, tmp_path).result(LONG)
        first = pool.submit(failures.wait_for, tmp_path / "go")
        second = pool.submit(failures.wait_for, tmp_path)
        eventually(lambda: failures.starts(tmp_path) == 2)
        (tmp_path / "go").touch()
        assert first.result(LONG) == tmp_path / "go"
        assert second.result(LONG) == tmp_path
        assert list(pool.map(failures.echo, range(50))) == list(range(50))


@linux
@pytest.mark.parametrize("kwargs", POOLS)
@pytest.mark.parametrize("start", [failures.hang_first, failures.stop_first])
def test_a_worker_that_is_stuck_in_its_start_is_replaced(tmp_path, start, kwargs):
    with pool_of(
        1, initializer=start, initargs=(tmp_path,), timeout=1, **kwargs
    ) as pool:
        assert pool.submit(failures.echo, 1).result(LONG) == 1


@linux
def test_a_start_that_takes_long_is_not_stuck():
    with pool_of(
        1, initializer=failures.compute_for_long, initargs=("",), timeout=0.2
    ) as pool:
        assert pool.submit(failures.echo, 1).result(LONG) == 1


@linux
@pytest.mark.parametrize("kwargs", POOLS)
def test_cancelling_cancels_what_a_stuck_worker_does_not_hold(tmp_path, kwargs):
    (tmp_path / "first").touch()
    pool = ProcessPoolExecutor(
        1, initializer=failures.hang_but_first, initargs=(tmp_path,), **kwargs
    )
    futures = [pool.submit(failures.echo, number) for number in range(3)]
    eventually(lambda: failures.starts(tmp_path) == 1)
    pool.shutdown(wait=False, cancel_futures=True)
    eventually(lambda: futures[1].done() and futures[2].done())
    pool.kill_workers()
    with pytest.raises(CancelledError):
        futures[0].result(LONG)
    pool.shutdown()


# --- Tasks that are stopped ---------------------------------------------------


@linux
@pytest.mark.parametrize("kwargs", POOLS)
def test_a_task_that_is_stopped_does_not_take_longer(kwargs):
    with pool_of(1, timeout=1.5, **kwargs) as pool:
        pid = pool.submit(os.getpid).result(LONG)
        future = pool.submit(failures.stop_itself)
        eventually(lambda: state_of(pid) == "T")
        assert not future.done()
        with pytest.raises(TimeoutError):
            future.result(3)
        os.kill(pid, signal.SIGCONT)
        assert future.result(LONG) == "went on"


@linux
@pytest.mark.parametrize("way", ["ProcessPoolExecutor(1, timeout=2)", "batch"])
def test_a_program_that_is_stopped_with_its_tasks_has_no_late_ones(tmp_path, way):
    program = f"""
from coresize import run_batch
words = ({str(tmp_path / "begun")!r}, {str(tmp_path / "go")!r})
def task(_item):
    return failures.tell_and_wait_for(*words)
if {way!r} == "batch":
    from functools import partial
    call = partial(failures.tell_and_wait_for, words[0])
    [outcome] = run_batch(call, [words[1]], timeout=2, progress=False, max_workers=1)
    print(json.dumps(outcome.status))
else:
    with ProcessPoolExecutor(1, timeout=2) as pool:
        pool.submit(failures.tell_and_wait_for, *words).result()
        print(json.dumps("ok"))
"""
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        eventually((tmp_path / "begun").exists)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(4)  # as long as a limit twice
        (tmp_path / "go").touch()
        os.killpg(process.pid, signal.SIGCONT)
        out, _ = process.communicate(timeout=LONG)
    assert json.loads(out) == "ok"


@linux
def test_a_command_that_is_stopped_does_not_take_longer():
    attendant = Supervisor(1.0)
    with subprocess.Popen(
        [sys.executable, "-c", "import os; os.kill(os.getpid(), 19); input()"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        attendant.begin(process)
        eventually(lambda: state_of(process.pid) == "T")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            attendant.wait(0.02)
        assert not attendant.late
        os.kill(process.pid, signal.SIGCONT)
        while not attendant.late:
            attendant.wait(0.02)
        process.wait()
        attendant.close()


_STEPS = st.lists(st.floats(0, 100), max_size=30)


@given(_STEPS, st.floats(0.01, 1))
def test_no_look_adds_much_more_than_its_step(gaps, step):
    ran, now, seconds = RunTime(os.getpid()), 5.0, 0.0
    for gap in gaps:
        now += gap
        more = ran.look(5.0, now, step) - seconds
        seconds += more
        assert more <= 2 * step + 1e-9
        if gap <= step:
            assert more == pytest.approx(gap)
    assert ran.look(now, now, step) == 0


@linux
@settings(max_examples=10)  # each has a process of its own
@given(_STEPS)
def test_what_is_stopped_takes_no_time(gaps):
    with subprocess.Popen(["/bin/sleep", "3600"]) as process:
        os.kill(process.pid, signal.SIGSTOP)
        eventually(lambda: state_of(process.pid) == "T")
        ran, idle, now = RunTime(process.pid), IdleTime(process.pid, 0.0), 0.0
        idle.look(now, 1.0)  # the time of its start
        for gap in gaps:
            now += gap
            assert ran.look(0.0, now, 1.0) == 0
            assert idle.look(now, 1.0) <= now
        process.kill()


# --- Threads that meet an error -----------------------------------------------


@pytest.fixture
def variable():
    """Sets CORESIZE_MAX_MEMORY, for a while."""
    yield lambda value: os.environ.__setitem__("CORESIZE_MAX_MEMORY", value)
    os.environ.pop("CORESIZE_MAX_MEMORY", None)


@pytest.mark.parametrize("memory", ["1MB", "auto", failures.need])
@pytest.mark.parametrize("inner", [None, "threads"])
def test_a_variable_that_becomes_wrong_is_as_it_was(
    variable, caplog, tmp_path, inner, memory
):
    pool = (
        limit_memory(Threads(3), memory=memory)
        if inner
        else ProcessPoolExecutor(3, memory=memory)
    )
    with pool, caplog.at_level(logging.WARNING, "coresize"):
        for number in range(3):
            assert pool.submit(failures.echo, number).result(LONG) == number
        variable("rubbish")
        futures = [pool.submit(failures.echo, number) for number in range(20)]
        futures += [pool.submit(failures.wait_for, tmp_path)]
        assert [future.result(LONG) for future in futures] == [*range(20), tmp_path]
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    told = [text for text in caplog.messages if "rubbish" in text]
    assert len(told) <= 1
    assert all("CORESIZE_MAX_MEMORY" in text for text in told)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProcessPoolExecutor(2, memory=failures.need),
        lambda: limit_memory(Threads(2), memory=failures.need),
        lambda: limit_memory(ThreadPoolExecutor(2, queue_size=1), memory=failures.need),
    ],
    ids=["processes", "threads", "threads that wait"],
)
def test_a_need_that_cannot_be_told_costs_its_task(make):
    with make() as pool:
        futures = [pool.submit(failures.echo, one) for one in (1, "bad", 2)]
        assert [type(future.exception(LONG)) for future in futures] == [
            type(None),
            LookupError,
            type(None),
        ]
        values = pool.map(failures.echo, [1, "bad", 2])
        assert next(values) == 1
        with pytest.raises(LookupError):
            next(values)
        assert pool.submit(failures.echo, 3).result(LONG) == 3
        outcomes = run_batch(failures.echo, [1, "bad"], executor=pool, progress=False)
        found = {outcome.index: outcome.status for outcome in outcomes}
        assert found == {0: "ok", 1: "failed"}


@pytest.mark.parametrize("memory", ["1MB", "auto"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("exits", SystemExit),
        ("no future", AttributeError),
        ("no callback", TypeError),
        ("no error", LookupError),
        ("cancels", CancelledError),
    ],
)
def test_what_another_executor_does_wrong_costs_its_task(kind, error, memory):
    with limit_memory(failures.Odd(), memory=memory) as pool:
        words = [1, kind, 2, kind, 3]
        futures = [pool.submit(failures.echo, word) for word in words]
        errors = [type(future.exception(LONG)) for future in futures]
    good = type(None)
    assert errors == [good, error, good, error, good]


@pytest.mark.parametrize("memory", ["1MB", "auto"])
def test_a_callback_that_raises_costs_no_task_of_limit_memory(memory, caplog):
    gate = threading.Event()
    with limit_memory(Threads(1), memory=memory) as pool:
        first = pool.submit(gate.wait)
        futures = [pool.submit(failures.echo, number) for number in range(5)]
        for future in [first, *futures]:
            future.add_done_callback(failures.leave)
        gate.set()
        assert [future.result(LONG) for future in futures] == list(range(5))
        assert pool.submit(failures.echo, 9).result(LONG) == 9
    assert "SystemExit" in caplog.text


def test_a_future_that_its_caller_sets_costs_no_other():
    gate = threading.Event()
    with limit_memory(Threads(1), memory="1MB") as pool:
        first = pool.submit(gate.wait)
        futures = [pool.submit(failures.echo, number) for number in range(3)]
        futures[0].set_result("mine")
        gate.set()
        assert [future.result(LONG) for future in futures] == ["mine", 1, 2]
        assert first.result(LONG)


def test_a_thread_of_a_pool_that_fails_tells_all_why(tmp_path, caplog):
    """Nothing is known that makes it fail; so what it listens to is closed."""
    pool = ProcessPoolExecutor(1)
    running = pool.submit(
        failures.tell_and_wait_for, tmp_path / "begun", tmp_path / "go"
    )
    futures = [pool.submit(failures.echo, number) for number in range(3)]
    futures[0].add_done_callback(failures.leave)
    eventually((tmp_path / "begun").exists)
    pool._dispatcher._workers.selector.close()
    with contextlib.suppress(RuntimeError):
        pool.submit(failures.echo, 1)  # wakes it
    errors = [future.exception(LONG) for future in [running, *futures]]
    eventually(lambda: pool._broken)
    with pytest.raises(BrokenProcessPool, match="the pool failed") as caught:
        pool.submit(failures.echo, 1)
    for error in [*errors, caught.value]:
        assert type(error) is BrokenProcessPool
        assert error.__cause__ is not None
    assert "a pool failed" in caplog.text
    pool.shutdown()
