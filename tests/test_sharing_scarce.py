"""Where memory is scarce: no copy that is not needed, and errors that say so."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pytest

from coresize import ProcessPoolExecutor, ThreadPoolExecutor, TransferError, run_batch
from coresize.processes import segments


pytestmark = pytest.mark.skipif(
    not segments.is_available(), reason="needs memfd_create(2)"
)

MIB = 1024**2


class Exhausts:
    """There is no memory to pickle it."""

    def __reduce__(self):
        raise MemoryError


class Explains(Exhausts):
    def __reduce__(self):
        msg = "the cache is too large"
        raise MemoryError(msg)


def exhaust():
    raise MemoryError


class Unreadable:
    """There is no memory to unpickle it."""

    def __reduce__(self):
        return exhaust, ()


def give(kind):
    return kind()


def first(array, item):
    return float(array[0]) + item


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("value", [Exhausts(), [np.ones(20_000), Explains()]])
@pytest.mark.parametrize("by_value", [False, True])
def test_a_call_that_takes_too_much_is_a_memory_error(pool, value, by_value):
    function = (lambda value: value) if by_value else id
    text = "no memory to pickle the data.*less data"
    with pytest.raises(MemoryError, match=text) as caught:
        pool.submit(function, value).result()
    assert not isinstance(caught.value, TransferError)
    if isinstance(value, list):
        assert "the cache is too large" in str(caught.value)
    with pytest.raises(MemoryError, match=text):
        list(pool.map(function, [value]))
    with pytest.raises(MemoryError, match=text):
        run_batch(partial(function, value), [1], executor=pool)


def test_only_the_call_fails_for_which_there_is_no_memory(pool):
    values = pool.map(type, [1, Exhausts(), 2], chunksize=3)
    assert next(values) is int
    with pytest.raises(MemoryError):
        next(values)
    found = run_batch(len, [[1], Exhausts(), [2]], executor=pool)
    assert [outcome.status for outcome in found].count("failed") == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Exhausts, "no memory to pickle the result"),
        (Explains, "the cache is too large"),
        (Unreadable, "the result cannot be unpickled"),
    ],
)
def test_a_result_that_takes_too_much_is_a_memory_error(pool, kind, text):
    with pytest.raises(MemoryError, match=text):
        pool.submit(give, kind).result()
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("executor", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_a_batch_makes_no_copy_of_its_function_in_this_process(executor):
    array = np.ones(40 * MIB // 8)
    with executor(1) as pool:
        pool.submit(abs, -1).result()
        tracemalloc.start()
        try:
            values = run_batch(partial(first, array), [1, 2], executor=pool).results()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert values == [2.0, 3.0]
    assert peak < array.nbytes // 2
