"""Bounds of memory and of workers: what is said, and what can really be taken."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import sys
from pathlib import Path


sys.path[:0] = ["/payload/src", "/payload/libraries"]

STEP = 1024**2
OWN = Path("/sys/fs/cgroup/p/own")
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def granted() -> int:
    """The bytes of address space that this process gets until it is refused more."""
    kept = []
    try:
        while True:
            kept.append(mmap.mmap(-1, STEP, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error:
        assert error.errno == errno.ENOMEM
    return len(kept) * STEP


def taken() -> int:
    """The bytes that a child gets until it is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with open(reader, "rb") as steps:  # noqa: PTH123
            count = len(steps.read())
        os.waitpid(child, 0)
        return count * STEP
    Path("/proc/self/oom_score_adj").write_text("1000")
    kept = []
    page = mmap.PAGESIZE
    while True:
        kept.append(mmap.mmap(-1, STEP, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        for place in range(0, STEP, page):
            kept[-1][place] = 1
        os.write(writer, b".")


def on_one_node() -> dict:
    """The process may use node 1 alone."""
    from coresize import detect

    memory = detect().memory
    binding = memory.binding.source if memory.binding else None
    return {
        "told": memory.available,
        "taken": taken(),
        "total": memory.total,
        "binding": binding,
    }


def by_policy() -> dict:
    """The cpuset has all nodes, and a policy binds to node 1."""
    (OWN / "cpuset.mems").write_text("0-1")
    bind(0b10)
    try:
        return on_one_node()
    finally:
        bind(0)


def bind(nodes: int) -> None:
    """Bind memory to a mask of nodes, or to none (set_mempolicy(2), x86-64)."""
    mask = ctypes.c_uint64(nodes)
    mode = ctypes.c_long(2 if nodes else 0)
    code = ctypes.CDLL(None).syscall(
        ctypes.c_long(238), mode, ctypes.byref(mask), ctypes.c_ulong(64)
    )
    assert code == 0


def strictly() -> dict:
    """The kernel promises no more than it has."""
    from coresize import available_memory

    OVERCOMMIT.write_text("2")
    try:
        available_memory()  # with all that it imports
        return {"told": available_memory(), "taken": granted()}
    finally:
        OVERCOMMIT.write_text("0")


def in_a_pool() -> dict:
    """The cgroup has room for few processes."""
    from coresize import ProcessPoolExecutor, plan_workers

    plan = plan_workers()
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(abs, range(-20, 0)))
        workers = len(pool._processes or ())
        refused = pool._refused
    return {
        "binding": plan.binding,
        "reason": plan.reason,
        "planned": int(plan),
        "results": results,
        "workers": workers,
        "refused": refused,
    }


def main() -> None:
    """Print all of it."""
    answers = {
        "node": on_one_node(),
        "policy": by_policy(),
        "strict": strictly(),
        "pool": in_a_pool(),
    }
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
