"""No answer is ever taken for another, and none ends more than its own task."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import odd_tasks
import pytest
import tasks
from hypothesis import strategies as st

from coresize import (
    ProcessPoolExecutor,
    TaskKilledError,
    ThreadPoolExecutor,
    TransferError,
    limit_memory,
    parallel_map,
    run_batch,
)
from coresize.executor import protocol


linux = pytest.mark.skipif(sys.platform != "linux", reason="sockets by /proc")
VALUES = [10 * number for number in range(20)]

FORKS = [
    odd_tasks.fork_and_fail,
    odd_tasks.fork_and_return,
    odd_tasks.fork_and_exit,
    odd_tasks.fork_and_interrupt,
    odd_tasks.fork_twice,
    odd_tasks.fork_by_the_c_library,
    odd_tasks.fork_in_a_thread,
    odd_tasks.fork_while_sending,
    odd_tasks.fork_by_preexec,
]


# --- Tasks that fork ----------------------------------------------------------


@linux
@pytest.mark.parametrize("words", [{}, {"memory": "1MiB"}, {"timeout": 60}])
@pytest.mark.parametrize("function", FORKS)
def test_a_task_that_forks_shifts_no_result(function, words):
    with ProcessPoolExecutor(2, **words) as pool:
        futures = [pool.submit(function, number) for number in range(20)]
        assert [future.result(60) for future in futures] == VALUES
        assert list(pool.map(function, range(20), chunksize=7, timeout=60)) == VALUES


@linux
@pytest.mark.parametrize("executor", ["process", "thread", "serial", "joblib"])
@pytest.mark.parametrize(
    "function",
    # A fork that Python does not know of is of no use beside other threads.
    [one for one in FORKS if one is not odd_tasks.fork_by_the_c_library],
)
def test_a_task_that_forks_shifts_no_result_of_a_batch(function, executor, capfd):
    run = run_batch(function, range(20), executor=executor)
    assert run.results() == VALUES
    assert run.report.counts["ok"] == 20
    capfd.readouterr()


@linux
def test_what_a_child_raises_is_on_standard_error_as_of_a_program():
    program = (
        "import odd_tasks, coresize\n"
        "with coresize.ProcessPoolExecutor(1) as pool:\n"
        "    print(pool.submit(odd_tasks.fork_and_fail, odd_tasks.ODD).result(60))\n"
    )
    folder = str(Path(odd_tasks.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "50\n"
    assert "FileNotFoundError" in done.stderr


@linux
def test_an_item_that_forks_where_it_arrives_shifts_no_result():
    items = [odd_tasks.ForkingItem(number) for number in range(20)]
    with ProcessPoolExecutor(2) as pool:
        # It is made again by those who pickle ahead as well, but only there it forks.
        assert list(pool.map(odd_tasks.number_of, items, timeout=60)) == VALUES


@linux
def test_an_initializer_that_forks_makes_no_second_worker():
    with ProcessPoolExecutor(2, initializer=odd_tasks.fork_at_start) as pool:
        futures = [pool.submit(tasks.echo, number) for number in range(20)]
        assert [future.result(60) for future in futures] == list(range(20))


@linux
def test_a_task_that_becomes_a_daemon_ends_alone():
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(odd_tasks.daemonize, number) for number in range(20)]
        with pytest.raises(SystemExit):
            futures.pop(odd_tasks.ODD).result(60)
        others = [value for value in VALUES if value != 10 * odd_tasks.ODD]
        assert [future.result(60) for future in futures] == others


# --- Streams that are confused --------------------------------------------------


@linux
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "function",
    [
        partial(odd_tasks.write_to_sockets, content=b"hello"),
        partial(odd_tasks.write_to_sockets, content=b"x" * 100),
        partial(odd_tasks.write_to_sockets, content=bytes(1000)),
        odd_tasks.repeat_an_answer,
        odd_tasks.close_sockets,
    ],
    ids=["text", "long", "zeros", "answers", "closed"],
)
def test_a_worker_that_answers_what_it_was_not_asked_costs_no_wrong_value(
    function, count
):
    with ProcessPoolExecutor(count) as pool:
        futures = [pool.submit(function, number) for number in range(20)]
        for number, future in enumerate(futures):
            error = future.exception(60)
            assert error is not None or future.result() == 10 * number
            assert error is None or isinstance(error, TaskKilledError)
        assert futures[odd_tasks.ODD].exception() is not None
        assert pool.submit(tasks.echo, 1).result(60) == 1


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([protocol.READY, protocol.VALUE, protocol.ERROR]),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**40),
        st.floats(0, 1e9),
        st.one_of(
            st.binary(max_size=200), st.integers(0, 300_000).map(lambda n: b"y" * n)
        ),
    ),
    max_size=6,
)


def _through(content, sizes):
    """What an inbox makes of bytes that arrive in pieces."""
    inbox, (here, there), found = protocol.Inbox(), socket.socketpair(), []
    with here, there:
        start = 0
        for size in itertools.chain(sizes, itertools.repeat(50_000)):
            if start >= len(content):
                break
            there.sendall(content[start : start + size])
            start += size
            here.settimeout(0)
            while True:
                try:
                    inbox.receive(here)
                except BlockingIOError:
                    break
            found += inbox.messages()
    return found


@hypothesis.given(MESSAGES, st.lists(st.integers(1, 60_000), max_size=5))
def test_messages_arrive_as_they_were_sent(messages, sizes):
    packed = b"".join(
        b"".join(
            protocol.pack(kind, payload, number=number, peak=peak, seconds=seconds)
        )
        for kind, number, peak, seconds, payload in messages
    )
    assert _through(packed, sizes) == messages


@hypothesis.given(MESSAGES, st.binary(min_size=40, max_size=200))
def test_what_is_no_message_is_found_out(messages, junk):
    packed = b"".join(
        b"".join(protocol.pack(kind, payload, number=number))
        for kind, number, _, _, payload in messages
    )
    hypothesis.assume(not junk.startswith(protocol.pack(0)[0][:4]))
    with pytest.raises(protocol.StreamError):
        _through(packed + junk, [])


# --- Errors and values of odd classes -------------------------------------------


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool
        assert pool.submit(tasks.echo, 1).result(60) == 1


@pytest.mark.parametrize("name", odd_tasks.ERRORS)
def test_an_odd_error_costs_one_task(pool, name):
    before = pool.submit(tasks.echo, 1)
    odd = pool.submit(odd_tasks.raise_odd, name)
    error = odd.exception(60)
    made = type(odd_tasks.ERRORS[name]())
    assert type(error) is made or made.__name__ in str(error)
    assert [before.result(60), pool.submit(tasks.echo, 2).result(60)] == [1, 2]


@pytest.mark.parametrize("executor", ["process", "thread", "serial", "joblib"])
@pytest.mark.parametrize("name", odd_tasks.ERRORS)
def test_an_odd_error_is_one_failed_task_of_a_batch(name, executor, tmp_path):
    names = [name, "refusing" if name == "frozen" else "frozen"]
    run = run_batch(
        odd_tasks.raise_odd, names, executor=executor, journal=tmp_path / "j.sqlite"
    )
    outcomes = sorted(run, key=lambda outcome: outcome.index)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    made = type(odd_tasks.ERRORS[name]()).__name__
    assert made in outcomes[0].message
    with pytest.raises(BaseExceptionGroup):
        run_batch(
            odd_tasks.raise_odd, names, executor=executor, on_error="raise"
        ).wait()


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_an_error_that_refuses_notes_is_raised_all_the_same(executor):
    with pytest.raises(odd_tasks.FrozenError):
        parallel_map(odd_tasks.raise_odd, ["frozen"], executor=executor)


def test_a_value_that_ends_the_program_costs_one_task(pool):
    future = pool.submit(odd_tasks.ending_value)
    with pytest.raises(TransferError, match="cannot be unpickled"):
        future.result(60)


@pytest.mark.parametrize("size", [0, 2 * 1024**2], ids=["small", "large"])
def test_an_argument_that_ends_the_program_costs_one_task(pool, size):
    argument = [bytes(size), odd_tasks.EndingArgument()]
    with pytest.raises((SystemExit, TransferError)):
        pool.submit(tasks.echo, argument).result(60)
    assert pool.submit(tasks.echo, 3).result(60) == 3


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_callback_that_raises_costs_nothing(pool, error, caplog):
    def refuse(_future):
        raise error

    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    future = pool.submit(tasks.nap, 0.2)
    future.add_done_callback(refuse)
    assert future.result(60) == 0.2
    assert pool.submit(tasks.echo, 4).result(60) == 4


@pytest.mark.parametrize("place", [0, 3, 19])
@pytest.mark.parametrize("chunksize", [None, 1, 6])
def test_a_map_ends_at_the_item_that_cannot_be_pickled(pool, place, chunksize):
    items = [*range(20)]
    items[place] = threading.Lock()
    values = pool.map(tasks.echo, items, chunksize=chunksize)
    assert [next(values) for _ in range(place)] == items[:place]
    with pytest.raises(TransferError, match="cannot be sent"):
        next(values)


# --- Executors of others ----------------------------------------------------------


class AnyAttribute(Future):
    """As a future that is a proxy of its value."""

    def __getattr__(self, name):
        return lambda *_: name

    def cancel(self):
        msg = "not of this kind"
        raise NotImplementedError(msg)


class Odd(Executor):
    """An executor of somebody else, whose futures are odd."""

    def __init__(self):
        self.inner = ThreadPoolExecutor(2)

    def submit(self, fn, /, *args, **kwargs):
        if args == (3,):
            msg = "no 3 here"
            raise ValueError(msg)
        future = AnyAttribute()
        self.inner.submit(self._run, future, fn, args, kwargs)
        return future

    def _run(self, future, fn, args, kwargs):
        future.set_result(fn(*args, **kwargs))

    def shutdown(self, wait=True, *, cancel_futures=False):  # noqa: FBT002
        self.inner.shutdown(wait, cancel_futures=cancel_futures)


def test_futures_of_others_may_have_any_attribute():
    with Odd() as executor:
        run = run_batch(abs, range(6), executor=executor)
        outcomes = sorted(run, key=lambda outcome: outcome.index)
    statuses = [outcome.status for outcome in outcomes]
    assert statuses == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert "no 3 here" in outcomes[3].message
    assert {outcome.attempts for outcome in outcomes} == {1}


def test_a_future_of_others_may_not_be_cancelled():
    with Odd() as executor, run_batch(tasks.nap, [0.2] * 6, executor=executor) as run:
        assert next(iter(run)).status in ("ok", "failed")


def test_an_executor_that_is_shut_down_ends_a_batch_and_loses_nothing():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(Exception, match="cannot be run"):
        run_batch(abs, range(6), executor=executor).wait()


def test_answers_reach_asyncio(pool):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(pool, abs, -1), 60)

    assert asyncio.run(main()) == 1


def test_arrays_and_their_values_come_back_whole(pool):
    whole = np.arange(3_000_000)
    futures = [pool.submit(np.negative, whole[i:]) for i in range(4)]
    for place, future in enumerate(futures):
        assert (future.result(60) == -whole[place:]).all()


def test_limits_in_front_of_a_pool_pass_on_odd_errors(pool):
    gate = limit_memory(pool, memory="1MiB")
    error = gate.submit(odd_tasks.raise_odd, "frozen").exception(60)
    assert isinstance(error, odd_tasks.FrozenError)


def test_an_error_whose_causes_are_too_deep_travels_without_them():
    with ProcessPoolExecutor(1) as pool:
        error = pool.submit(odd_tasks.fail_too_deep_to_pickle).exception(60)
        assert (type(error), error.args) == (RecursionError, ("deep",))
        assert "RecursionError: deep" in str(error.__cause__)
        assert pool.submit(abs, -1).result(60) == 1
