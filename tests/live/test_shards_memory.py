"""Tasks whose own programs are killed for memory: told, kept, and run again."""

from __future__ import annotations

import json

import pytest
from live import cgroups


pytestmark = pytest.mark.skipif(
    cgroups.missing() is not None, reason=str(cgroups.missing())
)

HEAD = """\
import json, os, subprocess, sys
from coresize import ProcessPoolExecutor, run_batch
TAKE = "kept = bytearray(b'x') * ({} << 20); import time; time.sleep(0.2)"

def command(size):
    return [sys.executable, "-S", "-E", "-c", TAKE.format(size)]

def checked(size):
    subprocess.run(command(size), check=True)
    return size

def wrapped(size):
    if subprocess.Popen(command(size)).wait():
        raise RuntimeError("no result of the tool")
    return size

def by_a_shell(size):
    subprocess.run(["sh", "-c", '"$@" || exit 1', "sh", *command(size)], check=True)
    return size

def tolerant(size):
    subprocess.run(command(size), check=False)
    return size

def broken(size):
    subprocess.run(["false"], check=True)

def ended(function, sizes, **words):
    run = run_batch(function, sizes, progress=False, **words)
    return [[one.status, type(one.error).__name__, one.message]
            for one in sorted(run, key=lambda one: one.index)]

"""


def script(tmp_path, body):
    path = tmp_path / "script.py"
    text = "".join(f"    {line}\n" for line in body.splitlines())
    path.write_text(f"{HEAD}if __name__ == '__main__':\n{text}")
    return path


EXECUTORS = {
    "serial": "'serial'",
    "thread": "'thread'",
    "loky": "__import__('loky').ProcessPoolExecutor(2)",
}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_any_executor_tells_that_a_tool_was_killed(tmp_path, executor):
    if executor == "loky":
        pytest.importorskip("loky")
    functions = ["wrapped", *["checked", "by_a_shell"] * (executor == "serial")]
    body = (
        f"executor = {EXECUTORS[executor]}\n"
        f"found = [ended(function, [300, 5], executor=executor, max_workers=1)\n"
        f"         for function in [{', '.join(functions)}]]\n"
        "found.append(ended(broken, [1], executor=executor, max_workers=1))\n"
        "found.append(ended(tolerant, [300], executor=executor, max_workers=1))\n"
        "print(json.dumps(found))\n"
    )
    done = cgroups.run(200, script(tmp_path, body))
    assert done.code == 0, done.err
    *found, failed, good = json.loads(done.out)
    for (status, kind, message), other in found:
        assert (status, kind) == ("oom", "TaskOutOfMemoryError")
        assert "a process that it had started was" in message
        assert "killed for memory" in message
        assert other[0] == "ok"
    assert failed[0][:2] == ["failed", "CalledProcessError"]
    assert good[0][0] == "ok"
    assert "the task has succeeded without it" in done.err
    assert done.kills > len(functions)


@pytest.mark.parametrize(("retries", "attempts"), [(1, {1, 2}), (3, {4})])
def test_a_task_is_tried_as_often_as_is_said(tmp_path, retries, attempts):
    body = (
        f"words = dict(memory='10MiB', oom_retries={retries})\n"
        "with ProcessPoolExecutor(2, **words) as pool:\n"
        "    future = pool.submit(checked, 300)\n"
        "    name = type(future.exception()).__name__\n"
        "    print(json.dumps([name, future.attempts]))\n"
    )
    done = cgroups.run(200, script(tmp_path, body))
    name, found = json.loads(done.out)
    assert (name, found in attempts) == ("TaskOutOfMemoryError", True)
    assert done.kills >= found


#: Beside the other shards, the tool of one task is too large; alone it is not.
SHARD = """\
import os, sys
sys.path.insert(0, os.getcwd())
from script import *

def task(item):
    with open(f"tries-{item}", "a") as file:
        file.write("x")
    if item == 7:
        raise ValueError(item)
    return checked(600 if item == 4 and os.path.getsize("tries-4") == 1 else 5)

if __name__ == "__main__":
    shard = os.environ["CORESIZE_SHARD"]
    run = run_batch(task, range(8), journal=f"out-{shard[0]}.sqlite",
                    executor=sys.argv[1], max_workers=1, progress=False)
    run.wait()
    if sys.argv[2] == "fails":
        sys.exit(run.report.failed and 1)
"""


@pytest.mark.parametrize(
    ("executor", "how"), [("serial", "succeeds"), ("process", "fails")]
)
def test_shards_run_lost_tasks_again_and_no_others(tmp_path, executor, how):
    script(tmp_path, "pass")
    (tmp_path / "shard.py").write_text(SHARD)
    body = (
        "words = [sys.executable, '-m', 'coresize', 'shards', '3', '--retry-oom']\n"
        f"words += ['--', sys.executable, 'shard.py', {executor!r}, {how!r}]\n"
        "done = subprocess.run(words, cwd=sys.argv[1], capture_output=1, text=1)\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr]))\n"
    )
    start = tmp_path / "start"
    start.mkdir()
    done = cgroups.run(400, script(start, body), tmp_path)
    code, out, err = json.loads(done.out)
    tries = [(tmp_path / f"tries-{item}").stat().st_size for item in range(8)]
    assert tries == [1, 1, 1, 1, 2, 1, 1, 1], (out, err)
    assert done.kills >= 1
    # Of the shard 1/3: the items 1, 4 and 7, of which the last fails as it did before.
    assert code == (1 if how == "fails" else 0), (out, err)
    logs = [(tmp_path / "shards" / f"shard-{one}-of-3.log") for one in range(3)]
    assert [log.read_text().count("--- ") for log in logs] == [1, 2, 1]
