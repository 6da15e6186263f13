"""Large data in a cgroup: peaks, a kill half-way, and a pool that lives long."""

from __future__ import annotations

from live import test_sharing
from live.test_sharing import run


pytestmark = test_sharing.pytestmark


def test_large_results_fit_one_after_another():
    """Four workers, each of which needs its result and one copy of it for a moment."""
    found = run(
        1024,
        """
from concurrent.futures import as_completed

def fresh(n):
    return np.full(100 * MIB // 8, float(n))

with ProcessPoolExecutor(4, memory="auto") as pool:
    futures = {pool.submit(fresh, n): n for n in range(16)}
    right = 0
    for future in as_completed(list(futures)):
        right += bool((future.result() == futures.pop(future)).all())
        del future
print(json.dumps([right, number("max_usage_in_bytes") // MIB]))
""",
    )
    right, peak = found
    assert right == 16
    assert peak <= 1024


def test_a_worker_that_is_killed_while_it_packs_leaves_nothing():
    found = run(
        1024,
        """
import os, signal

def packed():
    "Bytes of the segments that this process writes."
    size = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            if "memfd:coresize" in os.readlink(link):
                size += 512 * os.stat(link).st_blocks
        except OSError:
            continue
    return size

def kill():
    while packed() < 10 * MIB:
        pass
    os.kill(os.getpid(), signal.SIGKILL)

def fresh():
    array = np.ones(200 * MIB // 8)
    threading.Thread(target=kill, daemon=True).start()
    return array

with ProcessPoolExecutor(1) as pool:
    pool.submit(abs, -1).result()
    before, kinds, after = shmem(), [], []
    for _ in range(3):
        error = pool.submit(fresh).exception()
        kinds.append(type(error).__name__)
        end = time.monotonic() + 60
        while shmem() > before + MIB and time.monotonic() < end:
            time.sleep(0.02)
        after.append((shmem() - before) // MIB)
    right = pool.submit(abs, -1).result()
print(json.dumps([kinds, after, right]))
""",
    )
    kinds, after, right = found
    # A worker that was stopped for long may have sent its result, just before.
    assert set(kinds) <= {"TaskKilledError", "NoneType"}
    assert max(after) <= 1
    assert right == 1


def test_a_pool_that_lives_long_takes_no_more():
    found = run(
        600,
        """
import os

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def seen(array):
    maps = Path("/proc/self/maps").read_text().count("memfd:coresize")
    return float(array[0] + array[-1]), maps, descriptors()

with ProcessPoolExecutor(2) as pool:
    wrong, rows = 0, []
    for n in range(300):
        array = np.full(8 * MIB // 8, float(n))
        value, maps, there = pool.submit(seen, array).result()
        wrong += value != 2 * n
        rows.append((shmem() // MIB, number("usage_in_bytes") // MIB, maps,
            descriptors(), there))
first = [max(column) for column in zip(*rows[:100])]
last = [max(column) for column in zip(*rows[200:])]
print(json.dumps([wrong, first, last]))
""",
    )
    wrong, first, last = found
    assert wrong == 0
    shared, usage, *counts = (b - a for a, b in zip(first, last, strict=True))
    assert last[0] <= 40  # two or three arrays at a time
    assert shared <= 16
    assert usage <= 40
    assert max(counts) <= 2
