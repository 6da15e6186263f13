"""Large data travel once: what is shared, what workers get, and who releases it."""

from __future__ import annotations

import array
import dataclasses
import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import test_worker_start
from hypothesis import given
from hypothesis import strategies as st

import coresize
from coresize import (
    ConfigError,
    InsufficientMemoryError,
    ProcessPoolExecutor,
    SerialExecutor,
    ThreadPoolExecutor,
    TransferError,
    run_batch,
)
from coresize.executor.sharing import sharing
from coresize.processes import segments
from coresize.processes.buffers import Once, Packed
from coresize.testing import container, use_host


KIB = 1024
N = 20_000  # of 8 bytes: more than the threshold

linux = pytest.mark.skipif(not segments.is_available(), reason="needs memfd_create(2)")
pytestmark = linux


class Sub(np.ndarray):
    pass


@dataclasses.dataclass
class Pair:
    first: object
    second: object


def echo(value):
    return value


def told(array):
    """What a worker sees of an array."""
    return type(array).__name__, array.flags.writeable, float(np.sum(array))


def write(array):
    array[0] = 7.0
    return float(array[0])


def add(array, item):
    return float(array[0]) + item


def shared_sum(shared, item=0):
    return float(shared.value.sum()) + item


def writes(shared):
    return shared.value.flags.writeable


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _nothing_left():
    """No segment outlives what uses it."""
    yield
    gc.collect()


# --- Settings ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [ProcessPoolExecutor, partial(run_batch, abs, [])])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("share_from", value) for value in (0, -1, True, 1.5, "", "x", "0GB", b"1")),
        *(("writable", value) for value in ("", "yes", True, False, 0, [], "Copy")),
    ],
)
def test_a_wrong_setting_is_refused(make, name, value):
    with pytest.raises(ConfigError, match=name):
        make(**{name: value})


@pytest.mark.parametrize(
    ("share_from", "least"),
    [("64KiB", 64 * KIB), (1, 1), (np.int64(5), 5), ("1MB", 10**6), (None, None)],
)
def test_the_threshold_is_a_size_or_none(share_from, least):
    assert sharing(share_from, None).least == least


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"writable": "copy"}, True),
        ({"share_from": None}, True),
        ({"share_from": "1MiB"}, True),
    ],
)
def test_workers_write_to_what_is_their_own(options, expected):
    data = np.zeros(N)
    with ProcessPoolExecutor(1, **options) as pool:
        future = pool.submit(write, data)
        if expected:
            assert future.result() == 7.0
            assert pool.submit(write, data).result() == 7.0
            assert list(pool.map(write, [data, data])) == [7.0, 7.0]
            mapped = pool.map(partial(add, data), [0.0, 1.0])
            assert list(mapped) == [0.0, 1.0]
        else:
            with pytest.raises(ValueError, match="read-only") as caught:
                future.result()
            assert any("copy" in note for note in caught.value.__notes__)
    assert data[0] == 0.0


def test_a_batch_takes_both_settings():
    run = run_batch(write, [np.zeros(N)] * 2, max_workers=1, writable="copy")
    assert run.results() == [7.0, 7.0]
    run = run_batch(write, [np.zeros(N)] * 2, max_workers=1, share_from=None)
    assert run.results() == [7.0, 7.0]


# --- Types ------------------------------------------------------------------------


def _values():
    data = np.arange(N, dtype=float)
    frozen = data.copy()
    frozen.setflags(write=False)
    fields = [("a", "i4"), ("b", "f8")]
    return {
        "array": data,
        "two dimensions": data.reshape(100, -1),
        "fortran": np.asfortranarray(data.reshape(100, -1)),
        "strided": data[::2],
        "transposed": data.reshape(100, -1).T,
        "read only": frozen,
        "zero-dimensional": np.array(3.0),
        "empty": np.empty((0, 5)),
        "structured": np.zeros(N, dtype=fields),
        "records": np.rec.array(np.zeros(N, dtype=fields)),
        "objects": np.array([{"a": 1}, None, "x"] * N, dtype=object),
        "texts": np.array(["abc"] * N),
        "dates": np.arange(N).astype("M8[s]"),
        "big endian": data.astype(">f8"),
        "subclass": data.view(Sub),
        "masked": np.ma.array(data, mask=data > 5),
        "bytes": bytes(N * 8),
        "bytearray": bytearray(N * 8),
        "view of bytes": memoryview(bytes(N * 8)),
        "typed view": memoryview(data),
        "view of two dimensions": memoryview(data.reshape(100, -1)),
        "strided view": memoryview(data)[::2],
        "fortran view": memoryview(np.asfortranarray(data.reshape(100, -1))),
        "view of a scalar": memoryview(np.array(2.0)),
        "array.array": array.array("d", data),
        "text": "ä" * N * 8,
        "pickle": pickle.dumps(list(range(N))),
        "dataclass": Pair(data, [data, {"x": data[10:]}]),
        "list of small": list(range(N)),
    }


VALUES = _values()


def same(first, second):
    """Whether two values are equal, with their types."""
    if type(first) is not type(second):
        return False
    if isinstance(first, np.ndarray):
        layout = first.dtype, first.shape, first.flags.f_contiguous
        other = second.dtype, second.shape, second.flags.f_contiguous
        equal = bool(np.all(np.asarray(first) == np.asarray(second)))
        return equal and (
            layout == other or not (first.flags.forc and second.flags.forc)
        )
    if isinstance(first, memoryview):
        return first.format == second.format and first.tolist() == second.tolist()
    if isinstance(first, Pair):
        first, second = vars(first), vars(second)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(value, second[key]) for key, value in first.items()
        )
    return first == second


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_travel_there_and_back(pool, value):
    assert same(pool.submit(echo, value).result(), value)
    assert same(list(pool.map(partial(echo), [value, value])), [value, value])


@pytest.mark.parametrize("name", ["pandas", "polars", "pyarrow", "scipy.sparse"])
def test_tables_travel_there_and_back(pool, name):
    module = pytest.importorskip(name)
    numbers = np.arange(N, dtype=float)
    texts = [f"x{number}" for number in range(N)]
    if name == "scipy.sparse":
        table = module.csr_matrix(numbers.reshape(100, -1))
        assert (pool.submit(echo, table).result() != table).nnz == 0
        return
    if name == "pyarrow":
        table = module.table({"a": numbers, "b": texts})
    elif name == "pandas":
        table = module.DataFrame({"a": numbers, "b": texts})
        table["c"] = table["b"].astype("category")
    else:
        table = module.DataFrame({"a": numbers, "b": texts})
    back = pool.submit(echo, table).result()
    assert type(back) is type(table)
    assert back.equals(table)


def test_a_view_that_cannot_be_rebuilt_is_an_error_that_says_so(pool):
    view = memoryview(np.zeros(N, dtype=">i4"))
    with pytest.raises(TransferError, match=r"format '>i'.*pass the object"):
        pool.submit(echo, view).result()


def _segments_of(value):
    packed = sharing("64KiB", None).pack(value, echo)
    assert isinstance(packed, Packed)
    return packed


def test_arrays_that_share_a_base_go_once():
    base = np.arange(4 * N, dtype=float)
    packed = _segments_of([base[:N], base, base[N:], base[N : 2 * N]])
    assert packed.mapped == base.nbytes
    again = _segments_of(base[10:])
    assert again.segments == packed.segments
    assert again.fresh == 0


def test_a_call_has_the_state_at_its_submission(pool):
    data = np.zeros(N)
    futures = []
    for number in range(5):
        data[-1] = number
        futures.append(pool.submit(told, data))
    data[:] = 1e9
    sums = [future.result()[2] for future in futures]
    assert sums == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_an_array_at_the_address_of_a_freed_one_is_another(pool):
    for number in range(20):
        data = np.full(N, float(number))
        assert pool.submit(told, data).result()[2] == N * number
        del data


def test_what_another_thread_changes_is_seen_by_the_next_call(pool):
    data = np.zeros(N)
    first = pool.submit(told, data)
    changer = threading.Thread(target=data.fill, args=(2.0,))
    changer.start()
    changer.join()
    assert first.result()[2] == 0.0
    assert pool.submit(told, data).result()[2] == 2.0 * N


def _descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


class Unwilling:
    def __reduce__(self):
        msg = "not this one"
        raise OSError(msg)


def test_a_pickle_that_fails_in_the_middle_leaves_nothing(pool):
    gc.collect()
    before, open_before = segments.count(), _descriptors()
    for _ in range(3):
        with pytest.raises(TransferError, match="not this one"):
            pool.submit(echo, [np.ones(N), Unwilling()]).result()
        with pytest.raises(TransferError, match="not this one"):
            list(pool.map(partial(add, [np.ones(N), Unwilling()]), [1]))
        with pytest.raises(TransferError, match="not this one"):
            coresize.share([np.ones(N), Unwilling()])
    gc.collect()
    assert segments.count() == before
    assert _descriptors() <= open_before


SIZES = st.sampled_from([0, 1, 100, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 200 * KIB])
LEAVES = st.one_of(
    st.builds(bytes, SIZES),
    st.builds(bytearray, SIZES),
    st.builds(lambda size: np.arange(size // 8), SIZES),
    st.builds(lambda size: np.arange(size // 4)[::2], SIZES),
    st.builds(lambda size: "é" * (size // 2), SIZES),
    st.builds(lambda size: list(range(size // 100)), SIZES),
    st.builds(lambda size: b"\x80\x05\x95" + bytes(size), SIZES),
)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=6,
)


@given(
    NESTED,
    st.sampled_from(["64KiB", 1, 1000, "100KiB", None]),
    st.sampled_from(["copy", None]),
)
def test_any_structure_is_rebuilt(value, share_from, writable):
    way = sharing(share_from, writable)
    packed = way.pack((value, value), echo)
    loaded = packed.load() if isinstance(packed, Packed) else pickle.loads(packed)
    assert same(loaded, (value, value))
    sent = way.pack((way.once(value), 1), echo)
    loaded = sent.load() if isinstance(sent, Packed) else pickle.loads(sent)
    assert same(loaded, (value, 1))


# --- A function is packed once ----------------------------------------------------


def test_a_map_copies_the_function_once():
    data = np.zeros(N)
    with ProcessPoolExecutor(1) as pool:
        values = pool.map(
            partial(add, data), iter(range(200)), chunksize=1, buffersize=2
        )
        found = [next(values)]
        data[:] = 1e9  # the calls that follow have the state at map()
        found += values
    assert found == list(range(200))


def test_a_batch_copies_the_function_once():
    data = np.zeros(N)
    with run_batch(partial(add, data), range(30), max_workers=1, buffersize=1) as run:
        outcomes = iter(run)
        found = [next(outcomes).value]
        data[:] = 1e9
        found += [outcome.value for outcome in outcomes]
    assert sorted(found) == list(range(30))


@pytest.mark.parametrize("what", [dict.fromkeys(range(N)), "é" * N * 8, bytes(N * 8)])
def test_a_function_of_any_large_data_goes_once(pool, what):
    once = sharing("64KiB", None).once(partial(len, what))
    assert len(sharing("64KiB", None).pack(once, len)) < 2 * KIB
    assert list(pool.map(partial(_length, what), range(3))) == [len(what)] * 3


def _length(what, _item):
    return len(what)


# --- share() ----------------------------------------------------------------------


def test_a_share_is_read_by_every_executor(pool):
    data = np.arange(N, dtype=float)
    total = float(data.sum())
    executors = [pool, ThreadPoolExecutor(2), SerialExecutor()]
    with coresize.share(data) as shared:
        assert shared.nbytes >= data.nbytes
        assert not shared.value.flags.writeable
        for executor in executors:
            assert executor.submit(shared_sum, shared).result() == total
            mapped = executor.map(partial(shared_sum, shared), [0, 1])
            assert list(mapped) == [total, total + 1]
        batch = run_batch(partial(shared_sum, shared), [0, 1], max_workers=1)
        assert batch.results() == [total, total + 1]
        batch = run_batch(shared_sum, [shared], max_workers=1)
        assert batch.results() == [total]
    for executor in executors[1:]:
        executor.shutdown()


def test_a_share_is_not_copied_for_a_call():
    with coresize.share(np.ones(N)) as shared:
        packed = _segments_of((shared, [shared, shared.value[5:]]))
        assert packed.fresh == 0
        assert len(packed.segments) == 1
        assert packed.load()[0] is shared


def test_a_share_comes_back_as_itself(pool):
    with coresize.share(np.ones(N)) as shared:
        assert pool.submit(echo, shared).result() is shared
        assert pool.submit(pickle.dumps, shared).result()  # a reference to its owner


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_share_is_read_by_processes_of_other_libraries(method):
    context = multiprocessing.get_context(method)
    with coresize.share(np.ones(N)) as shared, context.Pool(1) as workers:
        assert len(pickle.dumps(shared)) < 2 * KIB
        assert workers.map(shared_sum, [shared, shared]) == [N, N]


@pytest.mark.parametrize("value", [5, "x", None, [], {"a": [1, 2]}, np.ones(3)])
def test_small_objects_are_shared_too(pool, value):
    with coresize.share(value) as shared:
        assert same(pool.submit(_value, shared).result(), value)
        assert same(pickle.loads(pickle.dumps(shared)).value, value)


def _value(shared):
    return shared.value


def test_a_share_of_many_small_objects_is_one_segment(pool):
    value = {number: str(number) for number in range(N)}
    with coresize.share(value) as shared:
        assert len(_segments_of(shared)) < 2 * KIB
        assert pool.submit(_value, shared).result() == value


def test_a_closed_share_says_so(pool):
    with coresize.share(np.ones(N)) as shared:
        reference = pickle.dumps(shared)
        kept = shared.value
    with pytest.raises(ValueError, match="closed"):
        _ = shared.value
    with pytest.raises(TransferError, match="closed"):
        pool.submit(shared_sum, shared).result()
    assert kept.sum() == N  # a reader keeps the memory
    del shared
    gc.collect()
    with pytest.raises(TransferError, match=r"cannot be opened.*with block"):
        pickle.loads(reference)


def test_the_memory_is_released_at_the_end():
    gc.collect()
    before, mapped = segments.count(), segments.mapped()
    with coresize.share([np.ones(N), bytes(N * 8)]) as shared:
        assert segments.count() == before + 1
        assert len(shared.value) == 2
    del shared
    gc.collect()
    assert segments.count() == before
    assert segments.mapped() == mapped


def test_a_share_that_does_not_fit_is_refused_before_it_is_copied(tmp_path):
    data = np.ones(40 * KIB * KIB // 8)
    with use_host(container(memory="64MiB", used="40MiB")):
        before = segments.count()
        with pytest.raises(
            InsufficientMemoryError, match="the share does not"
        ) as caught:
            coresize.share(data)
        assert caught.value.needed >= data.nbytes > caught.value.budget
        assert segments.count() == before
        with coresize.share(data, spill=tmp_path) as shared:
            assert not list(tmp_path.iterdir())
            assert shared.value.sum() == data.sum()
            assert pickle.loads(pickle.dumps(shared)) is shared


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="spill"):
        coresize.share(1, spill=tmp_path / "none")


# --- Where there are no segments --------------------------------------------------

WITHOUT = """
import numpy as np
from coresize import ProcessPoolExecutor, diagnose, share

def total(data, shared):
    return float(data.sum() + shared.value.sum())

if __name__ == "__main__":
    data = np.ones(20_000)
    with share(data) as shared, ProcessPoolExecutor(1) as pool:
        print(pool.submit(total, data, shared).result(), shared.nbytes >= data.nbytes)
    codes = [finding.code for finding in diagnose(measure=False).findings]
    print("memory-not-shared" in codes)
"""


@pytest.mark.parametrize("refused", [True, False])
def test_where_memfd_create_is_refused_data_go_with_the_calls(refused, tmp_path):
    if not test_worker_start.CALLS:
        pytest.skip("the numbers of its system calls are not known")
    (tmp_path / "program.py").write_text(WITHOUT)
    names = ["memfd_create"] if refused else []
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        preexec_fn=lambda: test_worker_start._refuse(names),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["40000.0", "True", str(refused)], done.stderr


def test_what_has_no_large_buffer_is_sent_as_it_is():
    """No map of a small function is packed once, and no small share has a segment."""
    made = sharing("64KiB", None)
    assert made.once(abs) is abs
    assert type(made.once(np.zeros(N))) is Once
    before = segments.count()
    with coresize.share([1, 2]) as shared:
        assert segments.count() == before
        assert shared.value == [1, 2]
