"""Errors of other executors: what they say of a task, and who runs again alone."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
import time

import pytest

from coresize import run_batch
from coresize.executor.traits import of_cluster, submit_to
from coresize.executor.verdicts import verdict_of


def error_named(name, **attributes):
    """An error of a class that another library would have."""
    module, _, qualname = name.rpartition(".")
    cls = type(qualname, (Exception,), {"__module__": module})
    error = cls("it is said")
    vars(error).update(attributes)
    return error


VERDICTS = [
    ("distributed.scheduler.KilledWorker", {}, "killed"),
    ("ray.exceptions.WorkerCrashedError", {}, "killed"),
    ("ray.exceptions.NodeDiedError", {}, "killed"),
    ("ray.exceptions.OutOfMemoryError", {}, "oom"),
    ("ray.exceptions.TaskCancelledError", {}, "cancelled"),
    ("parsl.executors.high_throughput.errors.WorkerLost", {}, "killed"),
    ("parsl.executors.high_throughput.errors.ManagerLost", {}, "killed"),
    ("submitit.core.utils.UncompletedJobError", {}, "killed"),
    ("ipyparallel.error.RemoteError", {"ename": "EngineError"}, "killed"),
    ("ipyparallel.error.RemoteError", {"ename": "ValueError"}, None),
    ("builtins.ValueError", {}, None),
    ("elsewhere.KilledWorker", {}, None),
]


@pytest.mark.parametrize(("name", "attributes", "verdict"), VERDICTS)
def test_an_error_is_known_by_the_name_of_its_class(name, attributes, verdict):
    assert verdict_of(error_named(name, **attributes)) == verdict


def test_a_subclass_is_known_as_well():
    base = type(error_named("distributed.scheduler.KilledWorker"))
    assert verdict_of(type("Mine", (base,), {})("x")) == "killed"


class Blaming(concurrent.futures.Executor):
    """Two workers of two threads; where a task dies, both of its worker's do."""

    traits = of_cluster(4)

    def __init__(self, *, deadly):
        self._deadly = deadly
        self._pool = concurrent.futures.ThreadPoolExecutor(4)
        self._lock = threading.Lock()
        self._now: dict[int, list] = {0: [], 1: []}
        self.together: list[set] = []

    def submit(self, fn, /, item):
        future = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        self._pool.submit(self._run, fn, item, future)
        return future

    def _run(self, fn, item, future):
        with self._lock:
            worker = min(self._now, key=lambda one: len(self._now[one]))
            mine = self._now[worker]
            mine.append(future)
            self.together.append(sum(map(len, self._now.values())))
        time.sleep(0.01)
        with self._lock:
            if item in self._deadly:
                dead, mine[:] = list(mine), []
            else:
                dead = []
                if future in mine:
                    mine.remove(future)
        for each in dead:
            if not each.done():
                each.set_exception(error_named("distributed.scheduler.KilledWorker"))
        if not dead and not future.done():
            future.set_result(fn(item))

    def shutdown(self, wait=True):  # noqa: FBT002 - as in the standard library
        self._pool.shutdown(wait)


@pytest.mark.parametrize("deadly", [set(), {3}, {0, 5, 39}], ids=str)
def test_who_dies_with_another_task_runs_again_alone(deadly):
    with Blaming(deadly=deadly) as executor:
        found = list(run_batch(abs, range(40), executor=executor, progress=False))
    assert {one.index for one in found if one.status == "killed"} == deadly
    assert {one.status for one in found if one.index not in deadly} == {"ok"}
    assert all(one.attempts == 2 for one in found if one.index in deadly)


def test_a_failure_of_a_task_that_ran_alone_has_its_retries():
    calls = []

    def fail_once(item):
        calls.append(item)
        if calls.count(item) == 1:
            raise ValueError(item)
        return item

    class Once(Blaming):
        def _run(self, fn, item, future):
            super()._run(fn, item, future)
            self._deadly = set()  # it dies the first time only

    with Once(deadly={0}) as executor:
        found = list(
            run_batch(fail_once, range(3), executor=executor, retries=1, progress=False)
        )
    assert [one.status for one in found] == ["ok"] * 3


class ClientExecutor(concurrent.futures.Executor):
    """As that of Dask: it keeps some keyword arguments, and forgets no answer."""

    def __init__(self):
        self._answers = {}

    def submit(self, fn, *args, pure=True, key=None, **kwargs):  # noqa: ARG002 - its own
        done = (fn, args) if pure else object()
        if done not in self._answers:
            future = concurrent.futures.Future()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - as an executor does
                future.set_exception(error)
            self._answers[done] = future
        return self._answers[done]


ClientExecutor.__module__ = "distributed.cfexecutor"


def test_each_call_is_made_and_gets_its_arguments():
    executor, calls = ClientExecutor(), []

    def note(*args, **kwargs):
        calls.append((args, kwargs))

    for _ in range(2):
        submit_to(executor, note, (1,), {"key": "mine"})
    assert calls == [((1,), {"key": "mine"})] * 2


def test_a_retry_is_a_call_of_its_own():
    failed = functools.partial(fail_until, [])
    run = run_batch(failed, [2], executor=ClientExecutor(), retries=2, progress=False)
    assert [(one.status, one.attempts) for one in run] == [("ok", 3)]


def fail_until(calls, most):
    calls.append(1)
    if len(calls) <= most:
        raise ValueError(most)
