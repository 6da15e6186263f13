"""CPython's own tests of concurrent.futures, with the executors of coresize in place.

    python cpython_futures.py [unittest's arguments]

The classes of tests are CPython's; what is left out is named below with its reason.
"""

from __future__ import annotations

import importlib
import sys
import unittest

import coresize


BROKEN = "it demands that the pool is broken after a death, and here it is not"
STDLIB = "it starts a program that imports the standard library's pool by name"
METHOD = "it demands spawn by default, and here that is forkserver"
UNPICKLABLE = (
    "its tasks cannot be pickled, and no worker is started for what fails at once"
)

LEFT_OUT = {
    **dict.fromkeys(
        [
            "test_killed_child",
            "test_crash_at_task_unpickle",
            "test_crash_during_func_exec_on_worker",
            "test_crash_during_result_pickle_on_worker",
            "test_exit_at_task_unpickle",
            "test_exit_during_func_exec_on_worker",
            "test_exit_during_result_pickle_on_worker",
            "test_error_at_task_unpickle",
            "test_error_during_result_unpickle_in_result_handler",
            "test_exit_during_result_unpickle_in_result_handler",
            "test_shutdown_deadlock",
            "test_gh105829_should_not_deadlock_if_wakeup_pipe_full",
        ],
        BROKEN,
    ),
    "test_hang_gh83386": STDLIB,
    "test_hang_gh94440": STDLIB,
    "test_interpreter_shutdown": STDLIB,
    "test_submit_after_interpreter_shutdown": STDLIB,
    "test_run_after_system_exit": STDLIB,
    "test_max_tasks_per_child_defaults_to_spawn_context": METHOD,
    **dict.fromkeys(["test_processes_terminate", "test_saturation"], UNPICKLABLE),
}

#: executor: (its class, the mixins of CPython's tests that it takes part in)
EXECUTORS = {
    "process": (
        coresize.ProcessPoolExecutor,
        ("ProcessPoolForkserverMixin", "ProcessPoolSpawnMixin", "ProcessPoolForkMixin"),
    ),
    "thread": (coresize.ThreadPoolExecutor, ("ThreadPoolMixin",)),
}
PACKAGE = "test.test_concurrent_futures"
MODULES = (
    *("util", "test_wait", "test_as_completed", "test_shutdown", "test_deadlock"),
    *("test_process_pool", "test_thread_pool", "test_init"),
)


def modules():
    """CPython's modules of tests: one until 3.11, several since."""
    package = importlib.import_module(PACKAGE)
    if not hasattr(package, "__path__"):
        return [package]
    return [importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES]


def suite(name):
    """The tests of one of our executors, without those that are left out."""
    executor, mixins = EXECUTORS[name]
    found = modules()
    taking = [getattr(found[0], mixin) for mixin in mixins]
    for mixin in taking:
        mixin.executor_type = executor
    loaded = unittest.TestSuite()
    for module in found:
        for cls in list(vars(module).values()):
            if not isinstance(cls, type) or not issubclass(cls, unittest.TestCase):
                continue
            if issubclass(cls, tuple(taking)):
                names = unittest.defaultTestLoader.getTestCaseNames(cls)
                loaded.addTests(cls(name) for name in names if name not in LEFT_OUT)
    return loaded


if __name__ == "__main__":
    tests = suite(sys.argv[1])
    if len(sys.argv) > 2:
        tests = unittest.TestSuite(
            test for test in tests if any(word in test.id() for word in sys.argv[2:])
        )
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    sys.exit(not (result.wasSuccessful() and result.testsRun))
