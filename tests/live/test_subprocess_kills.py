"""What a task has started and the kernel kills for memory, in real cgroups."""

from __future__ import annotations

import json

import pytest
from live import cgroups


pytestmark = pytest.mark.skipif(
    cgroups.missing() is not None, reason=str(cgroups.missing())
)

HEAD = """\
import json, os, signal, subprocess, sys, time
from coresize import ProcessPoolExecutor, run_batch
TAKE = "kept = bytearray(b'x') * ({} << 20); import time; time.sleep(0.3)"

def command(size):
    return [sys.executable, "-S", "-E", "-c", TAKE.format(size)]

def checked(size):
    "The tool raises what becomes of it."
    subprocess.run(command(size), check=True)
    return size

def wrapped(size):
    "The error of the task says nothing of how its tool ended."
    if subprocess.Popen(command(size)).wait():
        raise RuntimeError("no result of the tool")
    return size

def grandchild(size):
    subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *command(size)], check=True)
    return size

def forked(size):
    from multiprocessing import get_context
    process = get_context("fork").Process(target=hold, args=(size,))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(process.exitcode)
    return size

def hold(size):
    kept = bytearray(b"x") * (size << 20)
    time.sleep(0.3)

def tolerant(size):
    "Does without what the tool would have given."
    subprocess.run(command(size), check=False)
    return size

def stay(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(1000)

def broken(size):
    subprocess.run(["false"], check=True)

def outcome(future):
    error = future.exception()
    return future.result() if error is None else type(error).__name__

def killed_by_hand(pool, path):
    "What is said of a worker that is killed by hand."
    future = pool.submit(stay, path)
    while not (os.path.exists(path) and open(path).read()):
        time.sleep(0.01)
    os.kill(int(open(path).read()), signal.SIGKILL)
    return outcome(future)
"""


def run(tmp_path, body, mebibytes=400):
    """What a program says as JSON; as a file, since workers load the main module."""
    script = tmp_path / "script.py"
    body = "".join(f"    {line}\n" for line in body.splitlines())
    script.write_text(f"{HEAD}if __name__ == '__main__':\n{body}")
    done = cgroups.run(mebibytes, script, tmp_path / "note")
    assert done.code == 0, done.err
    return json.loads(done.out), done


TASKS = ["checked", "wrapped", "grandchild", "forked"]


@pytest.mark.parametrize("task", TASKS)
def test_with_memory_all_end_well(tmp_path, task):
    found, _ = run(
        tmp_path,
        "with ProcessPoolExecutor(6, memory='auto') as pool:\n"
        f"    futures = [pool.submit({task}, 300) for _ in range(6)]\n"
        "    print(json.dumps([outcome(future) for future in futures]))\n",
    )
    assert found == [300] * 6


@pytest.mark.parametrize("task", TASKS)
def test_with_too_small_a_need_they_are_run_again_alone(tmp_path, task):
    found, done = run(
        tmp_path,
        "with ProcessPoolExecutor(3, memory='10MiB') as pool:\n"
        f"    futures = [pool.submit({task}, 300) for _ in range(3)]\n"
        "    found = [[outcome(future), future.attempts] for future in futures]\n"
        "    state = pool.observe()\n"
        "    print(json.dumps([found, state.kills, state.evictions]))\n",
    )
    ended, kills, evictions = found
    assert [value for value, _ in ended] == [300] * 3
    assert sum(attempts - 1 for _, attempts in ended) >= kills > 0
    # Of a task that was ended to make room, the kernel may have ended a process first.
    assert kills <= done.kills <= kills + evictions


@pytest.mark.parametrize("task", TASKS)
def test_without_memory_who_was_killed_is_told_so(tmp_path, task):
    found, done = run(
        tmp_path,
        "with ProcessPoolExecutor(6) as pool:\n"
        f"    futures = [pool.submit({task}, 300) for _ in range(6)]\n"
        "    found = [outcome(future) for future in futures]\n"
        "    found.append(killed_by_hand(pool, sys.argv[1]))\n"
        "    print(json.dumps(found))\n",
    )
    *ended, by_hand = found
    assert set(ended) <= {300, "TaskOutOfMemoryError"}
    assert ended.count("TaskOutOfMemoryError") == done.kills > 0
    assert by_hand == "TaskKilledError"


def test_the_error_says_what_it_was_and_keeps_the_first(tmp_path):
    found, _ = run(
        tmp_path,
        "with ProcessPoolExecutor(1) as pool:\n"
        "    error = pool.submit(checked, 600).exception()\n"
        "    cause = error.__cause__\n"
        "    print(json.dumps([str(error), type(cause).__name__, cause.returncode]))\n",
    )
    assert "a process that it had started was killed for memory" in found[0]
    assert "the memory limit is 400.0 MiB" in found[0]
    assert found[1:] == ["CalledProcessError", -9]


@pytest.mark.parametrize(
    ("more", "statuses"),
    [("memory='auto'", {"ok"}), ("memory='10MiB'", {"ok"}), ("", {"ok", "oom"})],
)
@pytest.mark.parametrize("task", ["checked", "wrapped"])
def test_a_batch_says_the_same(tmp_path, task, more, statuses):
    found, done = run(
        tmp_path,
        f"batch = run_batch({task}, [300] * 6, max_workers=6, {more})\n"
        "found = [[one.status, one.message, one.traceback] for one in batch]\n"
        "print(json.dumps(found))\n",
    )
    assert {status for status, *_ in found} <= statuses
    for status, message, traceback in found:
        if status == "oom":
            assert "killed for memory" in message
            assert "checked" in traceback or "wrapped" in traceback
    if not more:
        assert sum(status == "oom" for status, *_ in found) == done.kills


def test_what_fits_nowhere_is_not_tried_for_ever(tmp_path):
    found, done = run(
        tmp_path,
        "batch = run_batch(checked, [600, 10], max_workers=2, memory='auto')\n"
        "print(json.dumps(sorted(one.status for one in batch)))\n",
    )
    assert found == ["ok", "oom"]
    assert 0 < done.kills < 4


def test_a_task_that_does_without_is_good_and_blames_nobody(tmp_path):
    found, done = run(
        tmp_path,
        "with ProcessPoolExecutor(2) as pool:\n"
        "    found = [outcome(pool.submit(tolerant, 600))]\n"
        "    found.append(killed_by_hand(pool, sys.argv[1]))\n"
        "    found.append(outcome(pool.submit(broken, 1)))\n"
        "    print(json.dumps(found))\n",
    )
    assert done.kills == 1
    assert found == [600, "TaskKilledError", "CalledProcessError"]


def test_another_process_that_was_killed_blames_nobody(tmp_path):
    """It was none of a task's: of the program itself."""
    found, done = run(
        tmp_path,
        "with ProcessPoolExecutor(2) as pool:\n"
        "    pool.submit(abs, 1).result()\n"
        "    adjusted = lambda: open('/proc/self/oom_score_adj', 'w').write('1000')\n"
        "    subprocess.run(command(600), preexec_fn=adjusted)\n"
        "    time.sleep(0.5)\n"
        "    found = [killed_by_hand(pool, sys.argv[1])]\n"
        "    found.append(outcome(pool.submit(broken, 1)))\n"
        "    print(json.dumps(found))\n",
    )
    assert done.kills == 1
    assert found == ["TaskKilledError", "CalledProcessError"]


def test_a_failure_beside_a_kill_stays_a_failure(tmp_path):
    found, done = run(
        tmp_path,
        "with ProcessPoolExecutor(2) as pool:\n"
        "    big = pool.submit(checked, 600)\n"
        "    small = []\n"
        "    while not big.done():\n"
        "        small.append(outcome(pool.submit(broken, 1)))\n"
        "    print(json.dumps([outcome(big), sorted(set(small))]))\n",
    )
    assert done.kills == 1
    assert found == ["TaskOutOfMemoryError", ["CalledProcessError"]]
