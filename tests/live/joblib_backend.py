"""joblib's own tests of its backends, with the backend "coresize" in loky's place.

    pytest -p joblib_backend --pyargs joblib.test.test_parallel

A plugin of pytest. Of joblib's tests those are run that are parametrised over backends,
loky among them; what is left out is named below with its reason. loky's own tests are
not run: its wheel does not bring them, and every one begins with loky's private flags,
its arguments context= and kill_workers=, and a pool whose workers start all at once;
what they say of executors in general is in CPython's, which cpython_futures.py runs.
"""

from __future__ import annotations

import subprocess
import types

import pytest

from coresize.adapters import joblib as adapter


MEMMAPS = (
    "it is about memory maps of large arguments, which loky and joblib's pool make"
)

#: test: why it is left out
LEFT_OUT = {
    "test_auto_memmap_on_arrays_from_generator": MEMMAPS,
    "test_memmapping_leaks": MEMMAPS,
    "test_parallel_isolated_temp_folders": MEMMAPS,
    "test_managed_backend_reuse_temp_folder": MEMMAPS,
    "test_memmap_returned_as_regular_array": MEMMAPS,
    "test_child_raises_parent_exits_cleanly": MEMMAPS,
}

#: joblib gives a program 10 s to start its workers, which a busy machine exceeds.
PATIENCE = 10

#: What programs that tests start have to do first.
REGISTER = "from coresize.adapters.joblib import register; register()\n"
PROGRAMS = (
    "UNPICKLABLE_CALLABLE_SCRIPT_TEMPLATE_MAIN",
    "UNPICKLABLE_CALLABLE_SCRIPT_TEMPLATE_NO_MAIN",
)

adapter.register()


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    """Put our backend where loky is one of the values of a parameter."""
    marks = metafunc.definition.own_markers
    for place, mark in enumerate(marks):
        if mark.name == "parametrize" and "," not in mark.args[0]:
            name, values = mark.args
            if "loky" in [value for value in values if isinstance(value, str)]:
                marks[place] = pytest.mark.parametrize(name, [adapter.NAME]).mark


def pytest_collection_modifyitems(config, items):
    """Keep the tests that have our backend, but for those that are left out."""
    kept = [item for item in items if _has_ours(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
    for module in {item.module for item in kept}:
        for name in PROGRAMS:
            if hasattr(module, name):
                setattr(module, name, REGISTER + getattr(module, name))
        if hasattr(module, "check_subprocess_call"):
            module.check_subprocess_call = _patient(module.check_subprocess_call)
        if getattr(module, "subprocess", None) is subprocess:  # programs in tests
            module.subprocess = types.SimpleNamespace(
                **{**vars(subprocess), "Popen": _start}
            )


def _start(command, **options):
    *words, program = command
    return subprocess.Popen([*words, REGISTER + program], **options)


def _patient(check):
    def patient(*args, timeout, **expected):
        limit = None if timeout is None else PATIENCE * timeout
        return check(*args, timeout=limit, **expected)

    return patient


def _has_ours(item):
    callspec = getattr(item, "callspec", None)
    ours = callspec is not None and adapter.NAME in map(str, callspec.params.values())
    return ours and item.originalname not in LEFT_OUT
