"""What imports cost, counted in modules: the front door, the command, a worker."""

from __future__ import annotations

import subprocess
import sys

import pytest


PROGRAM = """\
import sys, os
before, environ = set(sys.modules), dict(os.environ)
from coresize import available_cores
{call}
assert dict(os.environ) == environ
print(*sorted(set(sys.modules) - before))
"""
FORBIDDEN = {
    *("psutil", "pydantic", "logging", "pathlib", "dataclasses", "enum", "re"),
    *(
        "typing",
        "typing_extensions",
        "collections",
        "subprocess",
        "tomllib",
        "argparse",
    ),
}


#: What is imported: modules that it does not load.
LIGHT = {
    "launch.local": {"pydantic"},
    "batch.run": {"pydantic"},
    "cli": {"hashlib", "pydantic", "secrets", "subprocess", "tempfile", "tomllib"},
    "executor.pool.worker": {"psutil", "pydantic", "subprocess"},
    "measuring.child": {"psutil", "pydantic", "subprocess"},
}


@pytest.mark.parametrize("module", LIGHT)
def test_what_is_not_loaded(module):
    program = (
        "import sys; before = {*sys.modules}\n"
        f"import coresize.{module}; print(*({{*sys.modules}} - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert LIGHT[module] & set(done.stdout.split()) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil is asked")
@pytest.mark.parametrize("call", ["", "available_cores()"], ids=["import", "call"])
def test_modules(call):
    command = [sys.executable, "-I", "-S", "-c", _with_path(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "coresize.detection.available" in loaded
    assert not {name.partition(".")[0] for name in loaded} & FORBIDDEN
    assert len(loaded) <= 22, sorted(loaded)


def _with_path(call: str) -> str:
    """Without ``site``, which loads modules of its own for editable installs."""
    import coresize

    folder = coresize.__path__[0].removesuffix("/coresize")
    return f"import sys; sys.path.insert(0, {folder!r})\n" + PROGRAM.format(call=call)
