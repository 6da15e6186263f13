"""CPython's own tests of concurrent.futures, with the executors of coresize in place.

    python cpython_futures.py process|thread|serial [word of a test's name] [-word]

The classes of tests are CPython's, in one module until 3.11 and in several since; what
is left out is named below with its reason. Where they look for the standard library's
pool by its name they find ours.
"""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import importlib
import os
import sys
import types
import unittest
from multiprocessing import get_context

import coresize


BROKEN = "it demands that the pool is broken after a death, and here it is not"
PICKLE = (
    "it demands that a task whose pickle is broken breaks the pool, as a death does"
)
QUEUE = "it demands a pool that breaks where its second thread cannot start: none here"
CONCURRENT = "it demands that a call has not ended when submit() returns"
THREADS = "it looks at the threads of the standard library's pool"

#: executor: {test: why it is left out}
LEFT_OUT = {
    "process": {
        **dict.fromkeys(
            [
                "test_killed_child",
                "test_crash_at_task_unpickle",
                "test_crash_during_func_exec_on_worker",
                "test_crash_during_result_pickle_on_worker",
                "test_crash_big_data",
                "test_shutdown_deadlock",
            ],
            BROKEN,
        ),
        **dict.fromkeys(
            [
                "test_error_at_task_unpickle",
                "test_exit_at_task_unpickle",
                "test_error_during_result_unpickle_in_result_handler",
                "test_exit_during_result_unpickle_in_result_handler",
            ],
            PICKLE,
        ),
        "test_python_finalization_error": QUEUE,
    },
    "thread": {},
    "serial": {
        **dict.fromkeys(
            [
                "test_cancel_futures",
                "test_executor_map_current_future_cancel",
                "test_first_completed",
                "test_first_completed_some_already_completed",
                "test_first_exception",
                "test_first_exception_one_already_failed",
                "test_first_exception_some_already_complete",
                "test_future_times_out",
                "test_map_timeout",
                "test_pending_calls_race",
                "test_timeout",
                "test_zero_timeout",
            ],
            CONCURRENT,
        ),
        **dict.fromkeys(
            [
                "test_cancel_futures_wait_false",
                "test_context_manager_shutdown",
                "test_default_workers",
                "test_del_shutdown",
                "test_hang_global_shutdown_lock",
                "test_idle_thread_reuse",
                "test_saturation",
                "test_shutdown_no_wait",
                "test_thread_names_assigned",
                "test_thread_names_default",
                "test_threads_terminate",
            ],
            THREADS,
        ),
    },
}

PACKAGE = "test.test_concurrent_futures"
MODULES = (
    *("util", "executor", "test_wait", "test_as_completed", "test_shutdown"),
    *("test_deadlock", "test_process_pool", "test_thread_pool", "test_init"),
)


class ProcessPoolExecutor(coresize.ProcessPoolExecutor):
    """Ours, for those tests that wait for the end of a queue which it does not have."""

    _call_queue = types.SimpleNamespace(join_thread=lambda: None)


#: executor: (its class, what the tests find by the standard library's name)
EXECUTORS = {
    "process": (coresize.ProcessPoolExecutor, ProcessPoolExecutor),
    "thread": (coresize.ThreadPoolExecutor, coresize.ThreadPoolExecutor),
    "serial": (coresize.SerialExecutor, None),
}
#: executor: the mixins of CPython's tests that it takes part in
MIXINS = {
    "process": (
        *("ProcessPoolForkserverMixin", "ProcessPoolSpawnMixin"),
        "ProcessPoolForkMixin",
    ),
    "thread": ("ThreadPoolMixin",),
    "serial": ("ThreadPoolMixin",),
}
#: Tests that run other tests of a pool of processes.
RUNNERS = "FailingInitializerResourcesTest"
#: Tests whose tasks wait for a semaphore of a context.
SHARED = ("test_processes_terminate", "test_saturation")


class Futures:
    """The package concurrent.futures, with one class of ours."""

    def __init__(self, executor):
        setattr(self, executor.__name__, executor)

    def __getattr__(self, name):
        return getattr(concurrent.futures, name)


def modules():
    """CPython's modules of tests."""
    package = importlib.import_module(PACKAGE)
    if not hasattr(package, "__path__"):
        return [package]
    return [importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES]


def put_in_place(found, mixins, executor, named):
    """Let the tests use our executor, and the programs that they start as well."""
    for mixin in mixins:
        mixin.executor_type = executor
        if hasattr(mixin, "ctx"):
            mixin.get_context = sharing(mixin.get_context)
    for module in found:
        if hasattr(module, "assert_python_ok"):
            module.assert_python_ok = on_coresize(module.assert_python_ok)
        if named:
            module.futures = Futures(named)


def on_coresize(assert_python_ok):
    """Programs that import the standard library's pool import ours of the same name."""

    def run(*words):
        *flags, program = words
        program = program.replace(
            "from concurrent.futures import", "from coresize import"
        )
        if "multiprocessing." in program:  # CPython forgot it: there it is never run
            program = f"import multiprocessing\n{program}"
        return assert_python_ok(*flags, program, PYTHONPATH=os.environ["PYTHONPATH"])

    return run


def sharing(get_context):
    """With semaphores that a task can take along, where that is what tests are about.

    CPython's cannot be pickled. Its pool starts a worker all the same, in which nothing
    waits; here none is started for what fails at once.
    """

    def get(test):
        context = get_context(test)
        if test.id().rpartition(".")[2] in SHARED:
            context = copy.copy(context)
            context.Semaphore = functools.partial(semaphore, test)
        return context

    return get


def semaphore(test, value):
    manager = get_context(test.ctx).Manager()
    test.addCleanup(manager.shutdown)
    return manager.Semaphore(value)


def suite(name):
    """The tests of one of our executors, without those that are left out."""
    found = modules()
    mixins = tuple(getattr(found[0], mixin) for mixin in MIXINS[name])
    put_in_place(found, mixins, *EXECUTORS[name])
    loaded = unittest.TestSuite()
    for module in found:
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and issubclass(cls, unittest.TestCase):
                runs = name == "process" and cls.__name__ == RUNNERS
                if issubclass(cls, mixins) or runs:
                    names = unittest.defaultTestLoader.getTestCaseNames(cls)
                    left = LEFT_OUT[name]
                    loaded.addTests(cls(test) for test in names if test not in left)
    return loaded


def named(tests, words):
    """Those whose names have one of the words, and none of the words after a minus."""
    wanted = [word for word in words if not word.startswith("-")]
    unwanted = [word[1:] for word in words if word.startswith("-")]
    for test in tests:
        name = test.id().lower()
        if any(word in name for word in unwanted):
            continue
        if not wanted or any(word in name for word in wanted):
            yield test


if __name__ == "__main__":
    tests = unittest.TestSuite(named(suite(sys.argv[1]), sys.argv[2:]))
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    sys.exit(not (result.wasSuccessful() and result.testsRun))
