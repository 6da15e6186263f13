"""The pools: drop-in, and what goes wrong costs one task."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import itertools
import logging
import multiprocessing
import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from pathlib import Path

import pytest
import tasks

from coresize import (
    ConfigError,
    CoresizeError,
    ProcessPoolExecutor,
    SerialExecutor,
    TaskCrashedError,
    TaskKilledError,
    TaskProfile,
    TaskTimeoutError,
    ThreadPoolExecutor,
    TransferError,
    limit_memory,
    load_settings,
    plan_workers,
    processes,
)
from coresize.testing import container, use_host


MIB = 1024**2
linux = pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")


@pytest.fixture(scope="module")
def pool():
    """One pool that all of these tests share: none of them may break it."""
    with ProcessPoolExecutor(2) as pool:
        yield pool
        assert pool.submit(tasks.echo, 1).result() == 1


# --- Hazards: what goes wrong costs one task ----------------------------------


@pytest.mark.hazard(2)
@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (("SIGKILL",), TaskKilledError, "SIGKILL"),
        (("SIGTERM",), TaskKilledError, "SIGTERM"),
        (("SIGSEGV",), TaskCrashedError, "SIGSEGV"),
        (("SIGABRT",), TaskCrashedError, "SIGABRT"),
        (("SIGBUS",), TaskCrashedError, "/dev/shm has"),
    ],
)
def test_a_signal_takes_its_task_along(pool, words, error, text):
    before = pool.submit(tasks.echo, "before")
    future = pool.submit(tasks.end_self_by, *words)
    after = [pool.submit(tasks.echo, number) for number in range(20)]
    with pytest.raises(TaskKilledError, match=text) as caught:
        future.result(20)
    assert type(caught.value) is error
    assert caught.value.signal == getattr(signal, words[0])
    assert caught.value.attempts == 1
    assert before.result(20) == "before"
    assert [future.result(20) for future in after] == list(range(20))


def test_os_exit_takes_its_task_along(pool):
    with pytest.raises(TaskCrashedError, match="exit status 7") as caught:
        pool.submit(tasks.leave, 7).result(20)
    assert caught.value.exit_code == 7


def test_sys_exit_is_the_tasks_own_error(pool):
    with pytest.raises(SystemExit):
        pool.submit(tasks.leave_normally).result(20)


@pytest.mark.hazard(3)
def test_a_map_goes_on_up_to_the_one_that_died(pool):
    values = pool.map(tasks.end_by, range(8))
    assert list(itertools.islice(values, 3)) == [0, 1, 2]
    with pytest.raises(TaskKilledError):
        next(values)


@pytest.mark.hazard(7)
def test_those_of_a_batch_that_have_not_begun_run_all_the_same(pool):
    futures = [pool.submit(tasks.end_by, number) for number in range(8)]
    concurrent.futures.wait(futures, 20)
    failed = [future for future in futures if future.exception()]
    assert failed == [futures[3]]
    batch = pool.map(tasks.end_by, [0, 1, 2, 3, 4, 5], chunksize=6)
    assert [next(batch) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "function", "items", "error"),
    [
        ({}, tasks.leave, [3], TaskCrashedError),
        ({"timeout": 0.1}, tasks.nap, [0.01, 60], TaskTimeoutError),
        ({"memory": "1MiB"}, tasks.leave, [3], TaskCrashedError),
    ],
)
def test_a_map_whose_last_call_dies_ends(words, function, items, error):
    with ProcessPoolExecutor(1, **words) as pool, pytest.raises(error):
        list(pool.map(function, items, timeout=20))


@pytest.mark.hazard(4)
@pytest.mark.parametrize(
    ("function", "words", "error", "text"),
    [
        (tasks.refuse, ("one", "two"), TransferError, "OddError: one and two"),
        (tasks.refuse, ("one", "two"), TransferError, "as it is: let its class hand"),
        (tasks.unpicklable_result, (), TransferError, "the result cannot be sent back"),
        (tasks.unpicklable_result, (), TransferError, "lambda"),
        (tasks.unloadable_result, (), TransferError, "cannot be made again"),
        (tasks.fail, ("boo",), ValueError, "boo"),
        (tasks.echo, (threading.Lock(),), TransferError, "cannot be sent"),
    ],
)
def test_what_cannot_travel_fails_alone_with_its_text(
    pool, function, words, error, text
):
    with pytest.raises(error, match=text):
        pool.submit(function, *words).result(20)


def test_an_error_has_the_traceback_of_the_worker(pool):
    error = pool.submit(tasks.fail, "boo").exception(20)
    assert "tasks.py" in str(error.__cause__)


def test_verdicts_travel(pool):
    error = pool.submit(tasks.leave, 7).exception(20)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert isinstance(error, CoresizeError)


def test_a_task_that_takes_too_long_is_ended(tmp_path):
    note = tmp_path / "note"
    with ProcessPoolExecutor(2, timeout=0.5) as pool:
        late = pool.submit(tasks.start_and_sleep, 600, str(note))
        assert pool.submit(tasks.echo, 1).result(20) == 1
        with pytest.raises(TaskTimeoutError, match=r"0\.5 s"):
            late.result(20)
        assert isinstance(late.exception(), TimeoutError)
        assert pool.submit(tasks.echo, 2).result(20) == 2
    _gone(int(pid) for pid in note.read_text().split())


def _gone(pids):
    """Wait until processes have ended, which they would not do by themselves."""
    end = time.monotonic() + 60
    for pid in pids:
        while _is_alive(pid):
            assert time.monotonic() < end, pid
            time.sleep(0.02)


def _is_alive(pid):
    state = processes.read(pid, "stat").rpartition(")")[2].split()[:1]
    return state not in ([], ["Z"])


@pytest.mark.hazard(17)
def test_workers_are_replaced_after_so_many_tasks():
    """Where the standard library's pool hangs (cpython 115634)."""
    with ProcessPoolExecutor(1, max_tasks_per_child=2) as pool:
        futures = [pool.submit(tasks.who) for _ in range(10)]
        pids = [future.result(20) for future in futures]
    assert len(set(pids)) == 5
    assert all(pids.count(pid) == 2 for pid in pids)


@linux
def test_workers_are_the_first_to_be_killed(pool):
    assert pool.submit(tasks.own_adjustment).result(20) == "1000"


@pytest.mark.hazard(27)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@linux
def test_workers_end_with_their_parent(number, tmp_path):
    note = tmp_path / "note"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tasks\n"
        "from coresize import ProcessPoolExecutor\n"
        "pool = ProcessPoolExecutor(2)\n"
        "pool.submit(tasks.start_and_sleep, 600, sys.argv[2])\n"
        "print(pool.submit(tasks.who).result(), flush=True)\n"
        "pool.submit(tasks.nap, 600).result()\n"
    )
    words = [sys.executable, "-c", program, str(Path(__file__).parent), str(note)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        idle = int(process.stdout.readline())
        while not (note.exists() and note.read_text()):
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(60)
    busy = int(note.read_text().split()[0])
    _gone([idle, busy])


@pytest.mark.parametrize("block", [True, False], ids=["with", "bare"])
def test_ctrl_c_ends_everything_without_a_storm(block):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tasks\n"
        "from coresize import ProcessPoolExecutor\n"
        "pool = ProcessPoolExecutor(2)\n"
        + ("with pool:\n" if block else "if True:\n")
        # Until both have ended their imports, and work.
        + "    two = []\n"
        "    while len({one.result() for one in two}) < 2:\n"
        "        two = [pool.submit(tasks.who) for _ in range(2)]\n"
        "    waiting = [pool.submit(tasks.nap, 600) for _ in range(12)]\n"
        "    while not waiting[1].running(): tasks.nap(0.01)\n"
        "    print(*pool._processes, flush=True)\n"
        "    waiting[0].result()\n"
    )
    words = [sys.executable, "-c", program, str(Path(__file__).parent)]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)  # a tenth of what tasks take
    assert err.count("Traceback") <= 1
    _gone(pids)


@pytest.mark.hazard(16)
def test_fork_is_refused_while_threads_are_alive():
    fork = multiprocessing.get_context("fork")
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    try:
        with (
            ProcessPoolExecutor(2, mp_context=fork) as pool,
            pytest.raises(CoresizeError, match="forkserver or spawn"),
        ):
            pool.submit(tasks.echo, 1)
    finally:
        gate.set()
        thread.join()


def test_an_initializer_that_fails_breaks_the_pool():
    with ProcessPoolExecutor(1, initializer=tasks.fail, initargs=("boo",)) as pool:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="boo"):
            pool.submit(tasks.echo, 1).result(20)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            pool.submit(tasks.echo, 1)


def test_a_program_without_a_guard_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from coresize import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(1) as pool: pool.submit(abs, 1).result()\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode
    assert "__main__" in done.stderr


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_find_what_the_program_put_on_its_path(method):
    """Nothing is installed for them: they know of no path but the one they are sent."""
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from multiprocessing import get_context\n"
        "from coresize import ProcessPoolExecutor\n"
        f"with ProcessPoolExecutor(1, get_context({method!r})) as pool:\n"
        "    print(pool.submit(abs, -5).result())\n"
    )
    source = Path(processes.__file__).parents[1]
    path = [str(source), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "5\n"


def test_what_a_prompt_defines_arrives_wherever_it_is():
    program = (
        "from functools import partial\n"
        "from coresize import ProcessPoolExecutor\n"
        "def double(number): return 2 * number\n"
        "with ProcessPoolExecutor(1) as pool:\n"
        "    print(pool.submit(partial(double), 1).result(),\n"
        "          pool.submit(max, [1, 2], key=double).result(),\n"
        "          *pool.map(double, [3]))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "2 2 6\n", done.stderr


def test_a_program_on_standard_input_has_workers_too():
    program = (
        "import math\n"
        "from coresize import ProcessPoolExecutor\n"
        "def double(number): return 2 * number\n"
        "with ProcessPoolExecutor(1) as pool:\n"
        "    print(pool.submit(math.sqrt, 4).result(), *pool.map(double, [3]))\n"
    )
    command = [sys.executable, "-"]
    done = subprocess.run(
        command, input=program, capture_output=True, text=True, check=False
    )
    assert done.stdout == "2.0 6\n", done.stderr


def test_large_arguments_and_results_arrive(pool):
    content = os.urandom(20 * MIB)
    futures = [pool.submit(tasks.echo, content) for _ in range(4)]
    assert all(future.result(60) == content for future in futures)


# --- Threads of workers -------------------------------------------------------


def test_workers_have_their_share_of_threads():
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CORESIZE_MAX_CORES"]
    with ProcessPoolExecutor(2) as pool:
        share = str(max(1, os.sysconf("SC_NPROCESSORS_ONLN") // 2))
        assert pool.submit(tasks.environment, names).result(20) == [share] * 3


def test_what_the_user_set_for_threads_stays():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tasks\n"
        "from coresize import ProcessPoolExecutor\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(2) as pool:\n"
        "        print(pool.submit(tasks.environment, ['OMP_NUM_THREADS']).result())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "77"},
        check=True,
    )
    assert done.stdout == "['77']\n"


@pytest.mark.parametrize("own", [[], ["json"]])
@linux
def test_what_the_user_lets_the_forkserver_import_stays(own):
    program = (
        "import multiprocessing, sys\n"
        "from coresize import ProcessPoolExecutor\n"
        f"if {own}: multiprocessing.set_forkserver_preload({own})\n"
        "ProcessPoolExecutor(1).shutdown()\n"
        "print(multiprocessing.forkserver._forkserver._preload_modules)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{own or ['coresize.executor.pool.worker']}\n"


@pytest.mark.hazard(19)
def test_a_pool_in_a_worker_does_not_multiply():
    with ProcessPoolExecutor(64) as pool:
        assert pool.submit(tasks.cores_and_pool).result(30) == (1, 1, 1)


# --- Drop-in ------------------------------------------------------------------


@pytest.mark.hazard(20)
def test_never_more_workers_than_tasks():
    with ProcessPoolExecutor(64) as pool:
        assert pool.submit(tasks.echo, 1).result(20) == 1
        assert len(pool._processes) == 1
        pool.submit(tasks.echo, 2).result(20)
        assert len(pool._processes) == 1


def test_futures_are_real(pool):
    futures = [pool.submit(tasks.nap, 0.01) for _ in range(4)]
    assert all(type(one) is concurrent.futures.Future for one in futures)
    done, pending = concurrent.futures.wait(futures, 20)
    assert (len(done), len(pending)) == (4, 0)
    assert len(list(concurrent.futures.as_completed(futures))) == 4

    async def main():
        loop = asyncio.get_running_loop()
        one = loop.run_in_executor(pool, tasks.echo, 1)
        two = asyncio.wrap_future(pool.submit(tasks.echo, 2))
        return await one, await two

    assert asyncio.run(main()) == (1, 2)


@pytest.mark.hazard(22)
def test_map_never_eats_an_endless_input(pool):
    taken = itertools.count()
    values = pool.map(tasks.echo, taken, buffersize=8)
    assert list(itertools.islice(values, 20)) == list(range(20))
    assert next(taken) < 40
    values.close()
    taken = itertools.count()
    assert list(itertools.islice(pool.map(tasks.echo, taken), 5)) == [0, 1, 2, 3, 4]
    assert next(taken) < 10_000


@pytest.mark.hazard(22)
def test_map_takes_no_more_bytes_than_it_may(pool, tmp_path):
    taken, path = [], tmp_path / "go on"

    def items():
        for _ in range(120):
            taken.append(1)
            yield bytes(MIB)

    values = pool.map(tasks.measure_when_there, items(), itertools.repeat(path))
    assert len(taken) < 40  # none of them is answered yet
    path.touch()
    assert list(values) == [MIB] * 120


def test_batches_grow_in_the_first_map_of_a_pool():
    """Those taken before anybody knew how long a call takes leave room for one each."""
    taken, grown = itertools.count(), []
    with ProcessPoolExecutor(2) as pool:
        before = 0
        for _ in pool.map(abs, (next(taken) for _ in range(20_000))):
            now = next(taken)
            grown.append(now - before)
            before = now
    assert max(grown[1:]) > 10


@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_map_keeps_the_order(pool, chunksize):
    values = pool.map(pow, range(500), itertools.repeat(2), chunksize=chunksize)
    assert list(values) == [number**2 for number in range(500)]


def test_map_gives_up_in_time(pool, tmp_path):
    gate = tmp_path / "gate"
    with pytest.raises(TimeoutError):
        list(pool.map(tasks.answer_when_there, [str(gate)], [0], timeout=0.2))
    gate.touch()


def test_shutdown_cancels_what_waits():
    pool = ProcessPoolExecutor(1)
    futures = [pool.submit(tasks.nap, 0.2) for _ in range(20)]
    pool.shutdown(cancel_futures=True)
    states = {future.cancelled() for future in futures}
    assert all(future.done() for future in futures)
    assert True in states
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.echo, 1)


def test_a_pool_that_nobody_holds_ends_its_workers():
    pool = ProcessPoolExecutor(1)
    pid = pool.submit(tasks.who).result(20)
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    _gone([pid])


def test_workers_may_be_killed_with_what_they_do():
    pool = ProcessPoolExecutor(1)
    pool.submit(tasks.echo, 1).result(20)  # it is ready
    futures = [pool.submit(tasks.nap, 30) for _ in range(3)]
    while not futures[0].running():
        time.sleep(0.01)
    pool.kill_workers()
    assert isinstance(futures[0].exception(20), TaskKilledError)
    pool.shutdown()
    assert futures[2].cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.echo, 1)


@pytest.mark.parametrize("cls", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_a_map_that_is_not_read_does_not_hold_its_pool(cls):
    pool = cls(1)
    values = pool.map(tasks.echo, range(10))
    reference = weakref.ref(pool)
    del pool
    assert reference() is None
    assert list(values) == list(range(10))
    assert list(cls(1).map(tasks.echo, range(5000))) == list(range(5000))


class Collecting:
    """An input in the middle of which garbage is collected."""

    def __init__(self, count):
        self.left, self.count = count, count

    def __len__(self):
        return self.count

    def __iter__(self):
        while self.left:
            self.left -= 1
            if self.left == self.count // 2:
                gc.collect()
            yield self.left


@pytest.mark.parametrize("cls", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_a_map_may_be_collected_while_its_input_is_taken(cls):
    gc.disable()
    try:
        with cls(1) as pool:
            held = [pool.map(abs, Collecting(6000), buffersize=10)]
            held.append(held)
            del held
        assert gc.collect() >= 0
    finally:
        gc.enable()


@pytest.mark.parametrize("cls", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_a_shutdown_waits_for_no_input_that_another_waits_for(cls):
    asked, come = threading.Event(), threading.Event()

    def items():
        yield from range(50)
        asked.set()
        come.wait(60)

    def read():
        with contextlib.suppress(RuntimeError):  # of what comes after the shutdown
            list(values)

    pool = cls(1)
    values = pool.map(tasks.echo, items(), buffersize=4)
    assert next(values) == 0
    reader = threading.Thread(target=read)
    reader.start()
    assert asked.wait(20)
    ending = threading.Thread(target=pool.shutdown, kwargs={"wait": False})
    ending.start()
    ending.join(20)
    assert not ending.is_alive()
    come.set()
    reader.join(20)
    assert not reader.is_alive()


@pytest.mark.parametrize("cls", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_a_pool_is_shut_down_although_an_input_fails(cls):
    def items():
        yield from range(10)
        msg = "no more"
        raise OSError(msg)

    pool = cls(1)
    values = pool.map(tasks.echo, items(), buffersize=2)
    with pytest.raises(OSError, match="no more"):
        pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.echo, 1)
    assert next(values) == 0


def test_nothing_of_a_pool_is_left_after_its_end():
    """Nor a thread, nor what was given to the initializer (cpython 104090)."""
    given = {1}
    gc.disable()
    try:
        pool = ProcessPoolExecutor(1, initializer=tasks.echo, initargs=(given,))
        pool.submit(tasks.echo, 1).result(20)
        thread = weakref.ref(pool._executor_manager_thread)
        pool.shutdown()
        assert thread() is None
        holders = len(gc.get_referrers(given))
        del pool
        assert len(gc.get_referrers(given)) < holders
    finally:
        gc.enable()


def test_at_the_end_of_the_program_work_is_done(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib\n"
        "from coresize import ProcessPoolExecutor\n"
        "pool = ProcessPoolExecutor(2)\n"
        "for number in range(4):\n"
        "    pool.submit(pathlib.Path(sys.argv[2], str(number)).write_text, 'x')\n"
    )
    words = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(words, check=True, timeout=60)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "words",
    [
        {"max_workers": 0},
        {"max_tasks_per_child": 0},
        {"timeout": 0},
        {"oom_retries": -1},
        {"memory": "2 apples"},
        {"memory": 1.5},
    ],
)
def test_bad_arguments_are_errors(words):
    with pytest.raises(ConfigError):
        ProcessPoolExecutor(**words)


def test_the_plan_is_logged_once(caplog):
    with (
        caplog.at_level(logging.INFO, logger="coresize"),
        ProcessPoolExecutor(3) as pool,
    ):
        pool.submit(tasks.echo, 1).result(20)
    plans = [record.getMessage() for record in caplog.records]
    assert len(plans) == 1
    assert plans[0].startswith("3 workers x 1 thread: set by workers = 3 (argument)")


# --- Memory -------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory",
    [
        "10MiB",
        10 * MIB,
        "auto",
        TaskProfile(peak_memory="10MiB"),
        lambda size: size * MIB,
    ],
    ids=["text", "bytes", "auto", "profile", "callable"],
)
def test_needs_may_be_said_in_every_way(memory):
    with ProcessPoolExecutor(2, memory=memory) as pool:
        futures = [pool.submit(tasks.echo, size) for size in (1, 2, 3, 4)]
        assert [future.result(30) for future in futures] == [1, 2, 3, 4]
        assert list(pool.map(tasks.echo, [1, 2])) == [1, 2]


def test_a_need_that_is_no_size_fails_its_task_alone():
    with ProcessPoolExecutor(2, memory=lambda size: f"{size} apples") as pool:
        future = pool.submit(tasks.take, 4)
        assert isinstance(future.exception(), ConfigError)


def test_a_gate_that_nobody_holds_ends_its_thread():
    inner = concurrent.futures.ThreadPoolExecutor(1)
    pool = limit_memory(inner, memory="1MiB")
    futures = [pool.submit(tasks.nap, 0.01) for _ in range(5)]
    reference = weakref.ref(pool)
    threads = [one for one in threading.enumerate() if one.name == "coresize-limit"]
    del pool
    assert reference() is None
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert [future.result(20) for future in futures] == [0.01] * 5
    inner.shutdown()


@pytest.mark.parametrize("cls", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_what_waits_at_a_gate_is_done_at_the_end_of_the_program(cls, tmp_path):
    program = (
        f"import os, pathlib, sys, time; from concurrent.futures import {cls} as Pool\n"
        "from coresize import limit_memory\n"
        "pool = limit_memory(Pool(2), memory='1TiB')\n"  # one at a time
        "first = pool.submit(time.sleep, 0.3)\n"
        # Python 3.12 starts no more threads when the program has come to its end.
        "while not first.running(): time.sleep(0.01)\n"
        "time.sleep(0.1)\n"
        "for number in range(3):\n"
        "    pool.submit(pathlib.Path(sys.argv[1], str(number)).write_text, 'x')\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60
    )
    assert len(list(tmp_path.iterdir())) == 3


# --- Serial, and threads ------------------------------------------------------


def test_serial_runs_in_the_caller():
    with SerialExecutor() as executor:
        assert executor.submit(tasks.who).result() == os.getpid()
        assert isinstance(executor.submit(tasks.fail, "boo").exception(), ValueError)
        assert list(itertools.islice(executor.map(abs, itertools.count()), 2)) == [0, 1]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(tasks.who)


def test_a_serial_map_that_is_not_read_is_done_at_the_shutdown():
    seen = []
    with SerialExecutor() as executor:
        values = executor.map(seen.append, [1, 2])
        executor.map(tasks.fail, ["boo"])
        assert not seen
    assert seen == [1, 2]
    assert list(values) == [None, None]
    assert seen == [1, 2]
    SerialExecutor().map(seen.append, [3])
    assert seen == [1, 2, 3]


def test_a_serial_executor_breaks_with_its_initializer():
    with SerialExecutor(4, initializer=tasks.fail, initargs=("boo",)) as executor:
        for _ in range(2):
            with pytest.raises(concurrent.futures.BrokenExecutor, match="boo"):
                executor.submit(tasks.who)
    with pytest.raises(ConfigError):
        SerialExecutor(0)


@pytest.mark.parametrize("cls", ["ProcessPoolExecutor", "ThreadPoolExecutor"])
@pytest.mark.parametrize("off", ["0", "off"])
def test_one_variable_makes_every_executor_serial(cls, off):
    program = (
        f"import os; from coresize import {cls} as Executor\n"
        "seen = []\n"
        "with Executor(4, initializer=seen.append, initargs=(1,)) as executor:\n"
        "    print(type(executor).__name__, executor.submit(os.getpid).result() =="
        " os.getpid(), seen)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "CORESIZE_PARALLEL": off},
        check=True,
    )
    assert done.stdout == f"{cls} True [1]\n"


def test_threads_are_sized_for_waiting():
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor() as pool:
        assert pool._max_workers == min(32, cores + 4)
    with ThreadPoolExecutor(cpu_share=0.05) as pool:
        assert pool._max_workers == min(cores * 20, max(32, 5 * cores))
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    with use_host(container(cpus=8, env={"CORESIZE_WORKERS": "3"})):
        assert ThreadPoolExecutor()._max_workers == 3
        assert ThreadPoolExecutor(2)._max_workers == 2


@pytest.mark.parametrize(
    "words",
    [
        {"max_workers": "2"},
        {"max_workers": 0},
        {"max_workers": 1.5},
        {"threads": 0},
        {"mp_context": "spawm"},
        {"oom_retries": "1"},
    ],
)
def test_what_a_pool_cannot_be_is_named(words):
    with pytest.raises(ConfigError) as caught:
        ProcessPoolExecutor(**words)
    assert (caught.value.setting,) == tuple(words)
    if "max_workers" in words:  # as the standard library has it
        assert "max_workers must be greater than 0" in str(caught.value)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")
@pytest.mark.parametrize("memory", [None, "auto"])
def test_a_worker_gives_back_what_a_task_has_freed(memory):
    with ProcessPoolExecutor(1, memory=memory) as pool:
        before = pool.submit(tasks.resident, 0).result()
        for size in (20, 60, 40):
            pool.submit(tasks.scatter, size).result()
        assert pool.submit(tasks.resident, 0).result() < before + 16 * 2**20


@pytest.mark.parametrize("pool", [ProcessPoolExecutor, ThreadPoolExecutor])
@pytest.mark.parametrize(
    ("variable", "flags", "serial"),
    [
        ("1", {}, False),
        ("0", {}, True),
        ("1", {"parallel": False}, True),
        ("0", {"parallel": True}, False),
        ("0", {"workers": 2}, False),
    ],
)
def test_a_pool_goes_by_the_settings_of_its_plan(pool, variable, flags, serial):
    with use_host(container(cpus=8, env={"CORESIZE_PARALLEL": variable})):
        plan = plan_workers(settings=load_settings(command_line=flags))
        with pool(plan) as made, pool(max_workers=plan) as named:
            for one in (made, named):
                assert (one.traits.place == "caller") == serial
                assert isinstance(one, pool)


def test_threads_wait_for_room_when_asked_to():
    gate = threading.Event()
    with ThreadPoolExecutor(1, queue_size=1) as pool:
        pool.submit(gate.wait)
        pool.submit(gate.wait)
        started = threading.Event()
        third = threading.Thread(target=lambda: (pool.submit(abs, 1), started.set()))
        third.start()
        assert not started.wait(0.2)
        gate.set()
        assert started.wait(60)
        third.join()


def test_threads_never_eat_an_endless_input():
    taken = itertools.count()
    with ThreadPoolExecutor(2) as pool:
        values = pool.map(abs, taken, buffersize=4)
        assert list(itertools.islice(values, 10)) == list(range(10))
    assert next(taken) < 20


# --- Maps that are read late, or never ----------------------------------------

POOLS = [ProcessPoolExecutor, ThreadPoolExecutor, SerialExecutor]
MANY = 6000  # more than is taken ahead of a reader


@pytest.mark.parametrize("make", POOLS)
@pytest.mark.parametrize("shape", [list, iter])
def test_a_map_may_be_read_after_the_pool_is_closed(make, shape):
    with make(2) as pool:
        values = pool.map(abs, shape(range(MANY)))
    assert list(values) == list(range(MANY))


@pytest.mark.parametrize("make", POOLS)
def test_a_map_of_a_list_that_was_read_in_part_may_be_read_on(make):
    with make(2) as pool:
        values = pool.map(abs, range(MANY))
        assert next(values) == 0
    assert list(values) == list(range(1, MANY))


@pytest.mark.parametrize("make", POOLS)
@pytest.mark.parametrize("shape", [list, iter])
def test_a_map_that_nobody_reads_makes_all_its_calls(make, shape, tmp_path):
    counted = tmp_path / "counted"
    with make(2) as pool:
        pool.map(partial(tasks.count_in, counted), shape(range(MANY)))
    assert counted.stat().st_size == MANY


@pytest.mark.parametrize("make", POOLS)
def test_the_rest_of_an_endless_map_is_not_taken(make):
    with make(2) as pool:
        values = pool.map(abs, itertools.count())
        assert [next(values) for _ in range(3)] == [0, 1, 2]


# --- What can change while a pool runs ----------------------------------------------


def workers_of(pool, count):
    """Wait until a pool has so many workers."""
    end = time.monotonic() + 60
    while len(pool._dispatcher.handles) != count:
        assert time.monotonic() < end, len(pool._dispatcher.handles)
        time.sleep(0.01)


def test_a_pool_changes_its_size_while_it_runs():
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(tasks.nap, 0.05) for _ in range(8)]
        workers_of(pool, 2)
        pool._dispatcher.resize(1)
        workers_of(pool, 1)
        futures += [pool.submit(tasks.nap, 0.05) for _ in range(20)]
        pool._dispatcher.resize(3)
        workers_of(pool, 3)
        assert [future.result(60) for future in futures] == [0.05] * 28


class AtMost:
    """A bound of its own: so many tasks run at a time."""

    chooses = True

    def __init__(self, most):
        self.most = most
        self.seen = self.ended = self.ready = 0

    def choose(self, waiting, workers, *, must_start):  # noqa: ARG002
        running = sum(len(worker.running) for worker in workers)
        self.seen = max(self.seen, running)
        return next(iter(waiting), None) if running < self.most else None

    def on_ready(self, worker):
        assert worker.ready
        self.ready += 1

    def on_end(self, worker, job, peak):  # noqa: ARG002
        self.ended += 1

    def look(self, workers):  # noqa: ARG002
        return None

    def patience(self):
        return 0.05


def test_a_bound_is_asked_before_a_task_starts_and_told_of_its_end():
    bound = AtMost(1)
    with ProcessPoolExecutor(3) as pool:
        pool._dispatcher._bounds += (bound,)
        pool._dispatcher._choosing.append(bound)
        futures = [pool.submit(tasks.nap, 0.02) for _ in range(10)]
        concurrent.futures.wait(futures, 60)
        assert len(pool._dispatcher.handles) == bound.ready == 1
    assert (bound.seen, bound.ended) == (1, 10)
