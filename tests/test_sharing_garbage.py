"""Reference cycles with large data are collected: no finalizer reads freed memory.

Each program runs alone, since its failure is SIGSEGV.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from coresize.processes import segments


pytestmark = pytest.mark.skipif(
    not segments.is_available(), reason="needs memfd_create(2)"
)

HEAD = """
import gc, sys
from coresize import InsufficientMemoryError, ProcessPoolExecutor, share
from coresize.testing import container, use_host

def give():
    return memoryview(bytearray(b"x" * 2_000_000))

class Reader:
    "Reads its memory, or keeps it, when the cycle that it belongs to is collected."
    kept = []

    def __init__(self, view):
        self.view, self.itself = view, self

    def __del__(self):
        assert bytes(self.view[:3]) == b"xxx"
        self.kept.append(self.view)

class Refuses:
    def __reduce__(self):
        raise ValueError

class Exhausts:
    def __reduce__(self):
        raise MemoryError
"""

PROGRAMS = {
    "a result": """
        with ProcessPoolExecutor(1) as pool:
            Reader(pool.submit(give).result())
        gc.collect()
        assert len(Reader.kept) == 1
        assert bytes(Reader.kept[0][-3:]) == b"xxx"
    """,
    "a share": """
        with share(give()) as shared:
            Reader(shared.value)
            gc.collect()
        assert len(Reader.kept) == 1
        assert bytes(Reader.kept[0][-3:]) == b"xxx"
    """,
    "errors": """
        def fail(kind, *others):
            data, errors = give(), []
            with ProcessPoolExecutor(1) as pool:
                futures = [pool.submit(len, [data, *others]) for _ in range(3)]
                for future in futures:
                    try:
                        future.result()
                    except kind as error:
                        errors.append(error)  # its frames have this list
            assert len(errors) == 3

        from coresize import TransferError
        fail(TransferError, Refuses())
        fail(MemoryError, Exhausts())
        with use_host(container(memory=100 << 20, used=99 << 20)):
            fail(InsufficientMemoryError)
        gc.collect()
    """,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_garbage_is_collected(program, tmp_path):
    path = tmp_path / "program.py"
    main = textwrap.indent(textwrap.dedent(program), "    ")
    path.write_text(f"{HEAD}\nif __name__ == '__main__':\n{main}")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
