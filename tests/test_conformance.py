"""One table of executors, one set of cases: what every executor does alike.

``process off`` and ``thread off`` are the pools where CORESIZE_PARALLEL=0 is set; a
gate is what `limit_memory` puts in front of another executor.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import gc
import itertools
import os
import pickle
import sys
import threading
import time
from pathlib import Path

import pytest
import tasks

from coresize import (
    ConfigError,
    ProcessPoolExecutor,
    SerialExecutor,
    ThreadPoolExecutor,
    TransferError,
    limit_memory,
)
from coresize.adapters.joblib import JoblibExecutor
from coresize.adapters.threads import thread_env
from coresize.executor.traits import traits_of
from coresize.launch.local import Launcher
from coresize.testing import container, use_host


def off(make):
    """A pool that is made where everything is to be serial."""

    @functools.wraps(make)
    def made(*args, **kwargs):
        with use_host(container(cpus=8, env={"CORESIZE_PARALLEL": "0"})):
            return make(*args, **kwargs)

    return made


def gate(workers=2, **words):
    return limit_memory(ThreadPoolExecutor(workers, **words), memory="1MiB")


#: Each makes an executor of so many workers.
EXECUTORS = {
    "process": ProcessPoolExecutor,
    "process off": off(ProcessPoolExecutor),
    "thread": ThreadPoolExecutor,
    "thread off": off(ThreadPoolExecutor),
    "serial": SerialExecutor,
    "joblib": JoblibExecutor,
    "gate": gate,
}
#: Those whose tasks run in the thread that submits them.
HERE = ("process off", "thread off", "serial")
#: Those that know of an initializer.
INITIALIZED = ("process", "process off", "thread", "thread off", "serial", "gate")

MANY = 300


@pytest.fixture(params=EXECUTORS)
def name(request):
    return request.param


@pytest.fixture
def make(name):
    return EXECUTORS[name]


def eventually(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- What an executor is ---------------------------------------------------------


def test_it_keeps_its_type_and_knows_its_traits(name, make):
    with make(2) as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        if name in ("process off", "thread off"):
            assert isinstance(executor, make.__wrapped__)
        assert (executor.traits.place == "caller") == (name in HERE)
        assert traits_of(executor) == executor.traits
        assert executor.traits.slots == (1 if name in HERE else 2)


class Own(ProcessPoolExecutor):
    """A subclass with arguments of its own."""

    def __init__(self, title):
        super().__init__(1)
        self.title = title


@pytest.mark.parametrize("wrap", [lambda make: make, off])
def test_a_subclass_has_its_own_arguments(wrap):
    with wrap(Own)("mine") as pool:
        assert (type(pool), pool.title) == (Own, "mine")
        assert pool.submit(abs, -1).result() == 1


WRONG = [
    *[{"max_workers": value} for value in (0, -1, 1.5, "2", True)],
    *[{"memory": value} for value in ("nonsense", -1)],
    *[{"timeout": value} for value in (0, "soon")],
    *[{"oom_retries": value} for value in (-1, "1")],
    {"threads": 0},
    {"cpus": 0},
]


@pytest.mark.parametrize("words", WRONG, ids=str)
@pytest.mark.parametrize("which", ["process", "process off"])
def test_arguments_are_checked_whether_parallel_or_not(which, words):
    with pytest.raises(ConfigError) as caught:
        EXECUTORS[which](**words)
    assert caught.value.setting == next(iter(words))


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
@pytest.mark.parametrize("which", ["thread", "thread off"])
def test_arguments_of_threads_are_checked_whether_parallel_or_not(which, value):
    for word in ("max_workers", "queue_size"):
        with pytest.raises(ConfigError, match=word):
            EXECUTORS[which](**{word: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, "a", True])
@pytest.mark.parametrize("word", ["chunksize", "buffersize"])
def test_numbers_of_a_map_are_checked(make, word, value):
    with make(2) as executor, pytest.raises(ConfigError, match=word):
        executor.map(abs, [1], **{word: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_numbers_are_checked_wherever_they_are_given(value, tmp_path):
    for call in (
        lambda: thread_env(value),
        lambda: Launcher(2, ["true"], logs=str(tmp_path), at_once=value),
        lambda: Launcher(value, ["true"], logs=str(tmp_path)),
    ):
        with pytest.raises(ConfigError):
            call()


def test_an_initializer_that_cannot_be_called_is_refused(name, make):
    if name in INITIALIZED:
        with pytest.raises(TypeError, match="initializer must be a callable"):
            make(2, initializer=3)


def test_an_initializer_that_fails_breaks_it(name, make):
    if name not in INITIALIZED:
        return
    with make(2, initializer=tasks.fail, initargs=("boo",)) as executor:
        for _ in range(2):
            with pytest.raises(concurrent.futures.BrokenExecutor):
                executor.submit(abs, -1).result(60)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            list(executor.map(abs, [-1]))


def test_the_kind_of_the_error_is_that_of_the_pool():
    for which, error in (
        ("process", concurrent.futures.process.BrokenProcessPool),
        ("thread", concurrent.futures.thread.BrokenThreadPool),
    ):
        for made in (EXECUTORS[which], EXECUTORS[f"{which} off"]):
            words = {"initializer": tasks.fail, "initargs": ("boo",)}
            with made(1, **words) as executor, pytest.raises(error):
                executor.submit(abs, -1).result(60)


# --- Submit -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("boo"), KeyError("key"), OSError(2, "none"), StopIteration(3)]
)
def test_an_error_of_a_task_is_its_own(make, error):
    with make(2) as executor:
        caught = executor.submit(tasks.raise_error, error).exception(60)
        assert (type(caught), caught.args) == (type(error), error.args)
        values = executor.map(tasks.raise_error, [error])
        kinds = (type(error), RuntimeError)  # what a generator makes of StopIteration
        with pytest.raises(kinds):
            next(values)


def test_keyword_arguments_travel(make):
    with make(2) as executor:
        assert executor.submit(int, "101", base=2).result(60) == 5


def test_what_cannot_be_pickled_is_an_error_where_it_has_to_be(name, make):
    lock = threading.Lock()
    with make(2) as executor:
        future = executor.submit(id, lock)
        if executor.traits.pickles:
            assert isinstance(future.exception(60), (pickle.PicklingError, TypeError))
        else:
            assert future.result(60) == id(lock)
    assert name in ("process", "joblib") or not executor.traits.pickles


def test_no_executor_can_be_pickled(make):
    with make(2) as executor, pytest.raises((TypeError, TransferError, ValueError)):
        pickle.dumps(executor)


def test_after_the_shutdown_nothing_is_taken(make):
    executor = make(2)
    assert executor.submit(abs, -1).result(60) == 1
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(executor.map(abs, [-1]))


def test_a_cancelled_call_is_not_made_and_any_other_is(make, tmp_path):
    """In each state: done, running, and where there are workers waiting as well."""
    counted = tmp_path / "counted"
    with make(1) as executor:
        done = executor.submit(tasks.count_in, counted, 0)
        done.result(60)
        assert not done.cancel()
        others = [executor.submit(tasks.count_in, counted, 0) for _ in range(50)]
        cancelled = sum(future.cancel() for future in others)
        concurrent.futures.wait(others, 60)
        assert sum(future.cancelled() for future in others) == cancelled
    assert counted.stat().st_size == 51 - cancelled


def test_a_shutdown_that_cancels_makes_no_more_calls(make, tmp_path):
    counted = tmp_path / "counted"
    executor = make(1)
    executor.submit(abs, -1).result(60)
    values = executor.map(functools.partial(tasks.count_in, counted), range(MANY))
    executor.shutdown(cancel_futures=True)
    made = counted.stat().st_size if counted.exists() else 0
    if made < MANY:  # else each was made when it was submitted
        with pytest.raises(concurrent.futures.CancelledError):
            list(values)
    del values
    time.sleep(0.1)
    assert (counted.stat().st_size if counted.exists() else 0) == made


def test_tasks_may_make_pools_of_their_own(make):
    with make(2) as executor:
        assert executor.submit(tasks.nested_sum, 5).result(120) == 10


# --- Maps -----------------------------------------------------------------------------


@pytest.mark.parametrize("read", [0, 1, 3, 5])
@pytest.mark.parametrize("shape", [list, iter])
def test_a_map_that_is_not_read_to_its_end_makes_all_its_calls(
    make, read, shape, tmp_path
):
    """Until the executor is shut down: as with the standard library."""
    counted = tmp_path / "counted"
    with make(2) as executor:
        count = functools.partial(tasks.count_in, counted)
        values = executor.map(count, shape(range(5)))
        assert len(list(itertools.islice(values, read))) == read
    if shape is list or read == 0:
        assert counted.stat().st_size == 5
    else:  # what has no length may be endless, and whoever has begun has seen enough
        assert read <= counted.stat().st_size <= 5


@pytest.mark.parametrize("shape", [list, iter])
def test_a_map_may_be_read_after_the_shutdown(make, shape):
    with make(2) as executor:
        values = executor.map(abs, shape(range(MANY)))
    assert list(values) == list(range(MANY))


def test_a_map_that_was_read_in_part_may_be_read_on(make):
    with make(2) as executor:
        values = executor.map(abs, range(MANY))
        assert next(values) == 0
    assert list(values) == list(range(1, MANY))


def test_an_endless_input_is_no_danger(make):
    taken = itertools.count()
    with make(2) as executor:
        values = executor.map(abs, taken)
        assert list(itertools.islice(values, 50)) == list(range(50))
    assert next(taken) < 50_000


def test_the_values_are_in_the_order_of_the_items(make):
    with make(2) as executor:
        naps = [0.2, 0.0, 0.1, 0.0]
        assert list(executor.map(tasks.nap_and_tell, naps)) == naps


def test_several_inputs_end_with_the_shortest(make):
    with make(2) as executor:
        assert list(executor.map(pow, [2, 3, 4], itertools.repeat(2))) == [4, 9, 16]
        assert list(executor.map(pow, [2, 3], [3])) == [8]
        assert list(executor.map(abs, [])) == []


def test_an_error_ends_the_values_and_not_the_executor(make):
    with make(2) as executor:
        values = executor.map(tasks.invert, [1, 2, 0, 4])
        assert [next(values), next(values)] == [1.0, 0.5]
        with pytest.raises(ZeroDivisionError):
            next(values)
        assert list(values) == []
        assert executor.submit(abs, -1).result(60) == 1


def test_what_the_input_raises_is_raised(make):
    def broken():
        yield 1
        raise LookupError("of the input")  # noqa: TRY003

    with make(2) as executor, pytest.raises(LookupError, match="of the input"):
        list(executor.map(abs, broken()))


def test_a_map_that_nobody_holds_makes_all_its_calls(make, tmp_path):
    counted = tmp_path / "counted"
    with make(2) as executor:
        executor.map(functools.partial(tasks.count_in, counted), range(20))
        gc.collect()
        eventually(lambda: counted.exists() and counted.stat().st_size == 20)


def test_a_value_that_is_late_is_a_timeout(make):
    with make(1) as executor:
        values = executor.map(tasks.nap_and_tell, [0.5, 0.0], timeout=0.1)
        if executor.traits.place == "caller":  # nobody else could stop waiting
            assert list(values) == [0.5, 0.0]
        else:
            with pytest.raises(TimeoutError):
                list(values)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_copy_makes_no_calls_of_its_parent(name, make, tmp_path):
    if name == "joblib":
        return  # its own copy of a pool waits for the parent's workers
    counted = tmp_path / "counted"
    executor = make(1)
    values = executor.map(functools.partial(tasks.count_in, counted), range(MANY))
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            executor.shutdown()
        os._exit(0)
    os.waitpid(pid, 0)
    executor.shutdown()
    assert counted.stat().st_size == MANY
    assert len(list(values)) == MANY


# --- What stays -----------------------------------------------------------------------


def test_executors_leave_no_exit_hook_each(make):
    hooks = getattr(threading, "_threading_atexits", None)
    if hooks is None:
        pytest.skip("this Python has no such list")
    with make(1) as executor:
        executor.submit(abs, -1).result(60)
    before = len(hooks)
    for _ in range(5):
        with make(1) as executor, contextlib.suppress(TypeError):
            executor.submit(abs, -1).result(60)
    assert len(hooks) == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_executors_leave_no_thread_and_no_file(make):
    with make(1) as executor:
        executor.submit(abs, -1).result(60)
    gc.collect()
    eventually(lambda: True)
    threads, files = (
        threading.active_count(),
        len(list(Path("/proc/self/fd").iterdir())),
    )
    for _ in range(3):
        with make(1) as executor:
            assert list(executor.map(abs, [-1, -2])) == [1, 2]
    gc.collect()
    eventually(lambda: threading.active_count() <= threads)
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files)
