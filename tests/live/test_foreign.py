"""The executors of loky, dask and ipyparallel, as they are."""

from __future__ import annotations

import time

import distributed
import ipyparallel
import loky

from coresize import limit_memory, run_batch
from coresize.executor.traits import traits_of


def check(executor):
    """A gate in front of it, and batches over both."""
    run = run_batch(abs, range(20), executor=executor, progress=False)
    assert run.wait().counts["ok"] == 20
    with limit_memory(executor, memory="1MiB") as gate:
        assert list(gate.map(abs, [-1, -2])) == [1, 2]
        run = run_batch(abs, range(20), executor=gate, progress=False)
        assert run.wait().counts["ok"] == 20


def cancel(executor):
    """Its ``shutdown`` knows no ``cancel_futures``."""
    gate = limit_memory(executor, memory="1MiB")
    gate.submit(abs, -1).result(60)
    gate.shutdown(cancel_futures=True)


def test_loky():
    executor = loky.ProcessPoolExecutor(2)
    assert (traits_of(executor).place, traits_of(executor).slots) == ("processes", 2)
    check(executor)
    cancel(loky.ProcessPoolExecutor(1))


def fail_first(folder):
    """Fail at the first call with a folder."""
    if not (folder / "called").exists():
        (folder / "called").mkdir()
        raise ValueError(folder)
    return folder.name


def test_dask(tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=4, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        assert (traits_of(executor).place, traits_of(executor).slots) == ("cluster", 8)
        start = time.monotonic()
        naps = run_batch(time.sleep, [0.3] * 32, executor=executor, progress=False)
        assert naps.wait().counts["ok"] == 32
        assert time.monotonic() - start < 32 * 0.3 / 2  # it was not kept idle
        run = run_batch(
            fail_first, [tmp_path], executor=executor, retries=1, progress=False
        )
        assert [(one.status, one.attempts) for one in run] == [("ok", 2)]
        check(executor)
        cancel(client.get_executor())


def test_ipyparallel():
    with ipyparallel.Cluster(n=2, log_level=40) as client:
        executor = client.load_balanced_view().executor
        assert (traits_of(executor).place, traits_of(executor).slots) == ("cluster", 2)
        check(executor)
        cancel(client.load_balanced_view().executor)
