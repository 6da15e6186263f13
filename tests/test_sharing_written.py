"""Objects that cannot be read only, such as tensors: each reader writes to its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

from coresize import ProcessPoolExecutor, run_batch, share
from coresize.executor.sharing import sharing
from coresize.processes import buffers, segments


pytestmark = pytest.mark.skipif(
    not segments.is_available(), reason="needs memfd_create(2)"
)

N = 100_000


class Own:
    """Bytes that are written to by everyone who has them."""

    def __init__(self, data):
        self.data = memoryview(data)

    def __reduce__(self):
        return Own, (buffers.for_writing(self.data),)


def write(own, array=None):
    own.data[0] += 1
    return own.data[0], array is not None and array.flags.writeable


def write_shared(shared):
    return write(shared.value), write(shared.value)


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1) as pool:
        yield pool


def _here(packed):
    return packed.load()


def _attached(packed):
    descriptors = [os.dup(each) for each in packed.descriptors]
    rows = ATTACHED.attach(packed.table(), descriptors)
    return buffers.load(packed.content, rows)


def _by_contents(packed):
    return buffers.load(packed.content, buffers.read(packed.contents()))


ATTACHED = buffers.Attached()


@pytest.mark.parametrize("load", [_here, _attached, _by_contents])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("writable", [None, "copy"])
def test_every_reader_gets_its_own(load, nested, writable):
    way = sharing("64KiB", writable)
    value = Own(bytearray(N)), np.ones(N)
    packed = way.pack((way.once(value) if nested else value, 1), write)
    assert packed.mapped >= 9 * N  # both are in segments
    for _ in range(3):
        (own, array), _ = load(packed)
        assert write(own, array) == (1, load is not _here and writable is not None)
        assert array.sum() == N
    assert value[0].data[0] == 0


def test_what_a_task_writes_is_its_own(pool):
    own = Own(bytearray(N))
    for _ in range(3):
        assert pool.submit(write, own, np.ones(N)).result() == (1, False)
    assert list(pool.map(write, [own, own], chunksize=1)) == [(1, False)] * 2
    assert run_batch(write, [own, own], max_workers=1).results() == [(1, False)] * 2
    own.data[0] = 8
    assert pool.submit(write, own).result() == (9, False)


def test_the_value_of_a_share_is_written_by_nobody(pool):
    expected = ((1, False), (2, False))
    with share(Own(bytearray(N))) as shared:
        assert write_shared(shared) == expected
        assert pool.submit(write_shared, shared).result() == expected
        assert pool.submit(write_shared, shared).result() == expected
        with multiprocessing.get_context("spawn").Pool(1) as workers:
            assert workers.map(write_shared, [shared]) == [expected]


def test_a_fork_has_the_value_of_a_share(pool):
    with share(Own(bytearray(N))) as shared:
        child = os.fork()
        if not child:
            os._exit(0 if write(shared.value)[0] == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert pool.submit(write_shared, shared).result()[0] == (1, False)


INCOMPLETE = """
import sys, types
sys.modules["torch"] = types.ModuleType("torch")
from coresize.processes import tensors, transfer
assert tensors.reducers() == {}
assert transfer.dump([1], None)
"""


def test_a_torch_that_is_not_complete_has_no_reducers():
    """Another thread may be importing it; and others have taken the name."""
    subprocess.run([sys.executable, "-c", INCOMPLETE], check=True)
