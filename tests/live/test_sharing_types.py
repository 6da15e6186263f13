"""Objects of other libraries go by shared memory: see test_sharing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
from functools import partial

import joblib
import numpy as np
import pytest
from test_sharing import pool, test_tables_travel_there_and_back

import coresize
from coresize import ProcessPoolExecutor, run_batch
from coresize.adapters.joblib import register
from coresize.executor.sharing import sharing
from coresize.processes import segments
from coresize.processes.buffers import Packed


__all__ = ["pool", "test_tables_travel_there_and_back"]

N = 100_000


# --- Tensors of PyTorch -------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def base(torch):
    return torch.arange(N, dtype=torch.float32)


def echo(value):
    return value, segments.mapped() > 0


def write(tensor):
    tensor[0] = 9
    return float(tensor[0] + tensor[1])


def write_shared(shared):
    return write(shared.value), float(shared.value[0])


def write_both(tensor, array):
    tensor.fill_(5)
    return array.flags.writeable, float(array.sum()), float(tensor.sum())


def write_one_of(tensors):
    tensors[0].fill_(7)
    return [float(each[0]) for each in tensors]


def at(tensor, index):
    return float(tensor[index])


TENSORS = {
    "tensor": lambda t: t.clone(),
    "view": lambda t: t[10:90_000:3],
    "transposed": lambda t: t.view(100, -1).T,
    "expanded": lambda t: t.expand(3, N),
    "bfloat16": lambda t: t.bfloat16(),
    "bool": lambda t: t > 5,
    "gradient": lambda t: t.clone().requires_grad_(),
    "small": lambda t: t[:3].clone(),
    "empty": lambda t: t[:0].clone(),
    "complex": lambda t: t.view(-1, 2).to(dtype=t.dtype.to_complex()).conj(),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("by_value", [False, True])
def test_tensors_travel_there_and_back(torch, base, pool, name, by_value):
    tensor = TENSORS[name](base)

    def local(value):
        return echo(value)

    back, is_shared = pool.submit(local if by_value else echo, tensor).result(120)
    assert torch.equal(back, tensor)
    assert (back.dtype, back.requires_grad) == (tensor.dtype, tensor.requires_grad)
    assert is_shared == (tensor.untyped_storage().nbytes() > _least())
    assert not tensor.is_shared()  # the caller's own is as it was


def _least():
    return sharing("64KiB", None).least


def test_a_module_travels_with_its_parameters(torch, pool):
    module = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.Linear(300, 3))
    back, is_shared = pool.submit(echo, module).result(120)
    assert is_shared
    assert all(map(torch.equal, back.parameters(), module.parameters()))
    assert all(each.requires_grad for each in back.parameters())
    state, is_shared = pool.submit(echo, module.state_dict()).result(120)
    assert is_shared
    assert state.keys() == module.state_dict().keys()


def test_what_a_task_writes_to_a_tensor_is_its_own(base, pool):
    data = base.clone()
    assert [pool.submit(write, data).result(120) for _ in range(3)] == [10.0] * 3
    assert list(pool.map(write, [data, data])) == [10.0, 10.0]
    assert run_batch(write, [data, data], max_workers=1).results() == [10.0, 10.0]
    assert data[0] == 0
    assert [pool.submit(at, data, 0).result(120) for _ in range(3)] == [0.0] * 3


def test_arrays_are_read_only_beside_a_tensor(base, pool):
    found = pool.submit(write_both, base, np.ones(N)).result(120)
    assert found == (False, N, 5 * N)


@pytest.mark.parametrize("options", [{"writable": "copy"}, {"share_from": None}])
def test_tensors_travel_in_every_pool(base, options):
    with ProcessPoolExecutor(1, **options) as pool:
        assert [pool.submit(write, base).result(120) for _ in range(2)] == [10.0] * 2


def test_tensors_that_share_a_storage_share_it_afterwards(base, pool):
    tensors = [base[5:], base, base[5:10]]
    assert pool.submit(write_one_of, tensors).result(120) == [7.0, 0.0, 7.0]
    first, second, _ = pool.submit(echo, tensors).result(120)[0]
    first[0] = -1
    assert second[5] == -1
    packed = sharing("64KiB", None).pack(tensors, echo)
    assert isinstance(packed, Packed)
    assert packed.mapped == base.untyped_storage().nbytes()


def test_a_change_of_a_tensor_is_seen_by_the_next_call(base, pool):
    data = base.clone()
    futures = []
    for number in range(4):
        data[7] = number
        futures.append(pool.submit(at, data, 7))
    data[7] = 100
    assert [future.result(120) for future in futures] == [0.0, 1.0, 2.0, 3.0]


def test_a_function_with_a_tensor_goes_once(base, pool):
    assert list(pool.map(partial(at, base), [3, 4])) == [3.0, 4.0]
    once = sharing("64KiB", None).once(partial(at, base))
    assert len(sharing("64KiB", None).pack(once, at)) < 2048


def test_a_share_of_a_tensor_is_written_by_nobody(base, pool):
    """Neither by the tasks, nor by the program that has made it."""
    with coresize.share(base) as shared:
        assert [pool.submit(write_shared, shared).result(120) for _ in range(2)] == [
            (10.0, 9.0)
        ] * 2
        assert list(pool.map(write_shared, [shared, shared])) == [(10.0, 9.0)] * 2
        shared.value[1] = 77
        assert pool.submit(write_shared, shared).result(120) == (10.0, 9.0)
        assert pool.submit(at, shared.value, 1).result(120) == 77  # this is a copy
        with multiprocessing.get_context("spawn").Pool(1) as workers:
            assert workers.map(write_shared, [shared, shared]) == [(10.0, 9.0)] * 2
        assert len(pickle.dumps(shared)) < 2048
    assert base[1] == 1


def test_a_fork_reads_a_share_of_a_tensor(base):
    with coresize.share(base) as shared:
        child = os.fork()
        if not child:
            os._exit(0 if at(shared.value, 5) == 5 else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_joblib_passes_tensors(base):
    register()
    with joblib.parallel_config("coresize"):
        values = joblib.Parallel(2)(joblib.delayed(write)(base) for _ in range(4))
        assert values == [10.0] * 4


def test_the_memory_of_tensors_is_given_back(torch, pool):
    before = segments.count()
    for number in range(5):
        result, _ = pool.submit(echo, torch.full((N * 4,), float(number))).result(120)
        assert result[0] == number
    del result
    pool.submit(abs, -1).result(120)
    gc.collect()
    assert segments.count() <= before
