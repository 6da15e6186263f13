"""Shares large data in one place, in every way; prints what became of each as JSON.

shared.py MIB [NAME VALUE ...]

A way has succeeded if the values are right; otherwise its error is told. The names are
limits of the resource module, such as RLIMIT_FSIZE, in MiB, and settings of the kernel,
such as vm.overcommit_memory. The program needs the standard library and coresize.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path


sys.path[:0] = ["/payload/src", "/payload/libraries"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

from coresize import ProcessPoolExecutor, run_batch, share  # noqa: E402
from coresize.processes import segments  # noqa: E402


MIB = 1024**2
TASKS = 8
SECONDS = 300

#: Another Python, which opens a share by its reference.
READER = """
import pickle, sys
sys.path[:0] = sys.argv[1:]
print(sum(pickle.load(sys.stdin.buffer).value[::4096]))
"""


def made(size: int, seed: int) -> memoryview:
    """A buffer of which no two pages are equal."""
    return memoryview(bytearray(bytes(range(seed, 251)) * (size // (251 - seed))))


def read(data: memoryview, _number: int = 0) -> tuple[int, bool]:
    """What a worker sees of a buffer, and whether it lies in shared memory."""
    return sum(data[::4096]), segments.mapped() > 0


def read_share(shared: object) -> tuple[int, bool]:
    """What a worker sees of a share."""
    return read(shared.value)


def change(data: memoryview) -> tuple[int, bool]:
    """Write to a buffer, which is this task's own."""
    right = read(data)
    data[0] = 255
    return right


def _arguments(data: memoryview) -> list[tuple[int, bool]]:
    with ProcessPoolExecutor(2, memory="auto") as pool:
        futures = [pool.submit(read, data, number) for number in range(TASKS)]
        return [future.result(SECONDS) for future in futures]


def _map(data: memoryview) -> list[tuple[int, bool]]:
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(partial(read, data), range(TASKS), timeout=SECONDS))


def _copies(data: memoryview) -> list[tuple[int, bool]]:
    with ProcessPoolExecutor(1, writable="copy") as pool:
        return [pool.submit(change, data).result(SECONDS) for _ in range(2)]


def _results(data: memoryview) -> list[tuple[int, bool]]:
    with ProcessPoolExecutor(1) as pool:
        return [read(pool.submit(made, len(data), 1).result(SECONDS)) for _ in range(3)]


def _share(data: memoryview) -> list[tuple[int, bool]]:
    with share(data) as shared, ProcessPoolExecutor(1) as pool:
        return [pool.submit(read_share, shared).result(SECONDS) for _ in range(2)]


def _reference(data: memoryview) -> list[tuple[int, bool]]:
    with share(bytearray(data)) as shared:
        reference = pickle.dumps(shared)
        done = subprocess.run(
            [sys.executable, "-c", READER, *sys.path],
            input=reference,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        raise ChildProcessError(done.stderr.decode())
    return [(int(done.stdout), len(reference) < MIB)]


def _batch(data: memoryview) -> list[tuple[int, bool]]:
    return run_batch(partial(read, data), range(4), max_workers=2).results()


WAYS = {
    way.__name__[1:]: way
    for way in (_arguments, _map, _copies, _results, _share, _reference, _batch)
}


def tell(
    way: Callable[[memoryview], list[tuple[int, bool]]], data: memoryview
) -> list[str]:
    """What became of a way: "right", and how the data went; or the error."""
    try:
        found = way(data)
    except Exception as error:  # noqa: BLE001 - it is the answer
        return [type(error).__name__, str(error)]
    assert {value for value, _ in found} == {sum(data[::4096])}, found
    return ["right", "shared" if any(shared for _, shared in found) else "in band"]


def main(size: str, *limits: str) -> None:
    """Go all ways."""
    with contextlib.ExitStack() as undo:
        for name, value in zip(limits[::2], limits[1::2], strict=True):
            if name.startswith("RLIMIT_"):
                most = int(value) * MIB
                resource.setrlimit(getattr(resource, name), (most, most))
            else:
                path = Path("/proc/sys", *name.split("."))
                undo.callback(path.write_text, path.read_text())
                path.write_text(value)
        data = made(int(size) * MIB, 1)
        answers = {name: tell(way, data) for name, way in WAYS.items()}
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
