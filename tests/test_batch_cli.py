"""The commands for batches."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import commands
import pytest

from coresize import processes
from coresize.batch.journal import status


JOBS = """\
import os, signal, sys, time
def double(item):
    return item * 2
def shout(text):
    return text.upper()
def scaled(item, factor):
    return item * factor
def picky(item):
    if item == 3:
        raise ValueError("three")
    return item
def where(item):
    return os.getpid()
def fields(row):
    return row
def interrupt(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    return item
"""


@pytest.fixture(autouse=True)
def folder(tmp_path):
    """With a module and items."""
    (tmp_path / "jobs.py").write_text(JOBS)
    lines = [json.dumps(item) for item in range(5)]
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n\n")
    return tmp_path


@pytest.fixture
def begin(folder):
    """Begin to run it, and end it when the test has."""
    begun = []

    def begin(*words, env=None):
        begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "coresize", *map(str, words)],
                cwd=folder,
                env=commands.environment(folder, env),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return begun[-1]

    yield begin
    for process in begun:
        with process:
            process.kill()


def values(done):
    found = sorted(map(json.loads, done.stdout.splitlines()), key=_index)
    return [outcome["value"] for outcome in found]


def _index(outcome):
    return outcome["index"]


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- batch --------------------------------------------------------------------

SERIAL = ("--executor", "serial")


@pytest.mark.parametrize("executor", ["process", "thread", "serial", "joblib"])
def test_a_batch_prints_an_outcome_a_line(run, executor):
    done = run("batch", "jobs:double", "--items", "items.jsonl", "--executor", executor)
    assert done.returncode == 0, done.stderr
    assert values(done) == [0, 2, 4, 6, 8]
    assert set(json.loads(done.stdout.splitlines()[0])) >= {"key", "status", "error"}
    assert "5 done in " in done.stderr


ODD_TEXT = "a\u2028b\x0bc\x85d"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.jsonl", '{"a": 1}\n\n[2]\n', [{"a": 1}, [2]]),
        ("a.ndjson", '"a\u2028b"\r\n"é"', ["a\u2028b", "é"]),
        (
            "a.csv",
            '\ufeffa,b\n1,"x\ny"\n,z\n',
            [{"a": "1", "b": "x\ny"}, {"a": "", "b": "z"}],
        ),
        ("a.csv", f"a\n{ODD_TEXT}\n", [{"a": ODD_TEXT}]),
        ("a.txt", f"one\n\ntwo \r\n{ODD_TEXT}", ["one", "two ", ODD_TEXT]),
    ],
)
def test_items_are_read_by_the_suffix(call, folder, name, content, found):
    (folder / name).write_bytes(content.encode())
    done = call("batch", "jobs:fields", "--items", name, *SERIAL)
    assert done.returncode == 0, done.stderr
    assert values(done) == found


def test_items_may_be_the_paths_of_files(call, folder):
    (folder / "in").mkdir()
    for name in ("b.dat", "a.dat", "c.other"):
        (folder / "in" / name).touch()
    done = call("batch", "jobs:shout", "--items", "@in/**/*.dat", *SERIAL)
    assert values(done) == ["IN/A.DAT", "IN/B.DAT"]


def test_failures_are_named_and_counted(run):
    done = run("batch", "jobs:picky", "--items", "items.jsonl", *SERIAL)
    assert done.returncode == 1
    assert values(done) == [0, 1, 2, None, 4]
    assert "failed: 3: ValueError: three" in done.stderr
    assert "coresize: 1 of 5 tasks have failed" in done.stderr


def test_with_a_journal_nothing_is_printed_and_it_is_gone_on_with(run, call, folder):
    words = ("batch", "jobs:picky", "--items", "items.jsonl", "--journal", "out/a.db")
    first = run(*words, *SERIAL)
    assert (first.returncode, first.stdout) == (1, "")
    again = call(*words, *SERIAL)
    assert again.returncode == 1
    assert "1 failed, 1 before | 4 skipped" in again.stderr
    assert "failed: 3: ValueError: three\n" in again.stderr
    assert "1 of 5 tasks have failed; --retry failed runs them again" in again.stderr
    (folder / "jobs.py").write_text(JOBS.replace("item == 3", "item == 90"))
    fixed = call(*words, *SERIAL, "--retry", "failed,timeout")
    assert (fixed.returncode, fixed.stdout) == (0, "")


CONFIG = """\
function: jobs:scaled
items: items.jsonl
parameters: {factor: 3}
parallel_execution: %s
num_workers: 2
"""


def test_a_file_says_all_of_it_and_other_names_are_noted(run, folder):
    (folder / "run.yaml").write_text(CONFIG % "true")
    done = run("batch", "--config", "run.yaml")
    assert done.returncode == 0, done.stderr
    assert values(done) == [0, 3, 6, 9, 12]
    for name, known in (
        ("parallel_execution", "parallel"),
        ("num_workers", "max_workers"),
    ):
        note = f"coresize: note: run.yaml: {name} is read as {known}\n"
        assert note in done.stderr


def test_max_workers_is_the_word_and_workers_is_read_with_a_note(run):
    words = ("jobs:double", "--items", "items.jsonl", "--executor", "thread")
    new, old = (
        run("batch", *words, "--max-workers", "1"),
        run("batch", *words, "--workers", "1"),
    )
    assert values(new) == values(old)
    note = "coresize: note: --workers is read as --max-workers\n"
    assert (note in new.stderr, note in old.stderr) == (False, True)
    both = run("batch", *words, "--max-workers", "1", "--workers", "1")
    assert (both.returncode, both.stdout) == (2, "")
    assert "--workers cannot be used with --max-workers" in both.stderr


@pytest.mark.parametrize(
    ("file", "given", "serial"),
    [
        ("false", ((), {}), True),
        ("true", ((), {}), False),
        ("true", (("--no-parallel",), {}), True),
        ("false", (("--parallel",), {}), False),
        ("true", ((), {"CORESIZE_PARALLEL": "0"}), True),
        ("false", ((), {"CORESIZE_PARALLEL": "1"}), False),
        ("true", (("--parallel",), {"CORESIZE_PARALLEL": "0"}), False),
    ],
)
def test_the_command_line_goes_before_the_variable_and_that_before_the_file(
    call, folder, file, given, serial
):
    words, env = given
    content = f'[batch]\nparallel = {file}\nworkers = 2\nexecutor = "thread"\n'
    (folder / "run.toml").write_text(content)
    config = ("batch", "jobs:where", "--config", "run.toml", "--items", "items.jsonl")
    begun = call(*config, *words, env=env)
    assert begun.returncode == 0, begun.stderr
    workers = {json.loads(line)["worker"] for line in begun.stdout.splitlines()}
    assert (workers == {"MainThread"}) is serial


def test_the_command_line_goes_before_the_file(call, folder):
    (folder / "run.toml").write_text(
        'function = "jobs:picky"\nitems = "nowhere.txt"\nexecutor = "joblib"\n'
        'key = "id"\n'
    )
    (folder / "rows.jsonl").write_text('{"id": 5, "name": "x"}\n')
    words = ("jobs:fields", "--items", "rows.jsonl", *SERIAL)
    done = call("batch", *words, "--config", "run.toml")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["key"], outcome["worker"]) == ("5", "MainThread")


@pytest.mark.parametrize("retry", ["failed", '"timeout, failed"', "[failed, oom]"])
def test_what_is_run_again_may_be_a_text_in_a_file(call, folder, retry):
    words = ("batch", "jobs:picky", "--items", "items.jsonl", "--journal", "a.db")
    assert call(*words, *SERIAL).returncode == 1
    (folder / "jobs.py").write_text(JOBS.replace("item == 3", "item == 90"))
    (folder / "run.yaml").write_text(f"retry: {retry}\n")
    done = call(*words, *SERIAL, "--config", "run.yaml")
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_done_in_serial_is_left_out(call):
    words = ("--items", "items.jsonl", "--timeout", "5", "--memory", "1GiB")
    done = call("batch", "jobs:double", *words, "--no-parallel")
    assert (done.returncode, values(done)) == (0, [0, 2, 4, 6, 8])


def test_a_shard_is_a_part(call):
    words = ("batch", "jobs:double", "--items", "items.jsonl", *SERIAL)
    assert values(call(*words, "--shard", "1/2")) == [2, 6]
    env = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1"}
    env |= {"SLURM_ARRAY_TASK_MAX": "2", "SLURM_ARRAY_TASK_COUNT": "2"}
    assert values(call(*words, "--shard", "auto", env=env)) == [0, 4, 8]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("jobs:double", "no items are named: give --items, or `items` in the file"),
        ("--items items.jsonl", "no function is named: give it on the command line"),
        ("jobs --items items.jsonl", "function='jobs' is not valid: use \"module:func"),
        ("jobs:nope --items items.jsonl", "a function of jobs"),
        ("nope:x --items items.jsonl", "a module that can be imported from here"),
        ("jobs:double --items nope.txt", "No such file"),
        ("jobs:double --items items.xml", "a JSON value per line"),
        ("jobs:double --items @*.nope", "a pattern that matches some file"),
        ("jobs:double --items jobs.jsonl", "jobs.jsonl, line 2"),
        ("jobs:double --items jobs.csv", "jobs.csv, line 4' is not valid: use as many"),
        ("jobs:double --items twice.csv", "'b' occurs twice"),
        ("jobs:double --items long.csv", "long.csv, line 2' is not valid: use valid C"),
        ("jobs:double --items items.jsonl --workers 0", "command line: max_workers=0"),
        ("jobs:double --items items.jsonl --max-workers 0", "line: max_workers=0"),
        ("jobs:double --items items.jsonl --executor x", "command line: executor='x'"),
        ("jobs:double --items items.jsonl --memory 2apples", "memory='2apples'"),
        ("jobs:double --items items.jsonl --retries -1", "command line: retries=-1"),
        ("jobs:double --items items.jsonl --retry oom,faild", "retry='faild' is not"),
        ("jobs:double --items items.jsonl --jurnal x", "usage: coresize batch "),
        ("jobs:double --items items.jsonl --jurnal x", "arguments: --jurnal x"),
        ("jobs:double --items items.jsonl --shard 2/2", "shard='2/2'"),
        ("jobs:double --items items.jsonl --shard auto", "this is no array job"),
        ("jobs:double --items items.jsonl --config nope.toml", "nope.toml"),
        ("jobs:double --items items.jsonl --config odd.toml", "'max_workers' instead"),
        (
            "jobs:double --items items.jsonl --config two.yaml",
            "one name of max_workers alone",
        ),
        ("jobs:double --items items.jsonl --journal jobs.py", "it is no SQLite file"),
    ],
)
def test_bad_usage_exits_2_with_a_message(call, folder, words, message):
    (folder / "jobs.jsonl").write_text("1\n{\n")
    (folder / "jobs.csv").write_text('a,b\n1,"2\n3"\n1\n')
    (folder / "twice.csv").write_text("a,b,c,b\n1,2,3,4\n")
    (folder / "long.csv").write_text("a\n" + "x" * 200_000 + "\n")
    (folder / "odd.toml").write_text("wrokers = 3\n")
    (folder / "two.yaml").write_text("n_jobs: 3\nnum_workers: 3\n")
    (folder / "jobs.py").write_text(JOBS + "#" * 4096)
    done = call("batch", *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import os\nimport nowhere_at_all\n", "ModuleNotFoundError: No module named"),
        ("import od\n", "ModuleNotFoundError: No module named 'od'"),
        ("def broken(:\n", "SyntaxError: "),
        ("1 / 0\n", "ZeroDivisionError: division by zero ("),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines ("),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_in_one_line(
    call, folder, content, reason
):
    (folder / "odd.py").write_text(content)
    done = call("batch", "odd:x", "--items", "items.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("coresize: error: the module odd cannot be imported: ")
    assert reason in line
    assert f"odd.py, line {content.count(chr(10))})" in line


def test_ctrl_c_stops_a_batch_that_can_go_on(run, call):
    words = ("batch", "jobs:interrupt", "--items", "items.jsonl", *SERIAL)
    done = run(*words, "--journal", "out.db")
    assert done.returncode == 130
    assert done.stderr.endswith("; run the same command again to continue\n")
    assert "Traceback" not in done.stderr
    assert json.loads(call("status", "out.db", "--json").stdout)[0]["done"] == 3


# --- shards -------------------------------------------------------------------

#: A part of a batch: a program that says what it was given, or does as it is told.
PART = "echo {shard} {index} {count} $CORESIZE_SHARD $CORESIZE_MAX_CORES"


def test_all_parts_run_each_with_its_own(run, folder):
    env = {"CORESIZE_OVERRIDE_CORES": "6"}
    done = run("shards", "3", "--", "sh", "-c", PART, env=env)
    assert done.returncode == 0, done.stderr
    for index in range(3):
        head, *rest = (
            (folder / "shards" / f"shard-{index}-of-3.log").read_text().splitlines()
        )
        assert f" shard {index}/3: sh -c " in head
        assert rest == [f"{index}/3 {index} 3 {index}/3 2"]
    table = done.stdout.splitlines()
    assert table[0].split()[:3] == ["SHARD", "STATE", "PID"]
    assert [line.split()[1] for line in table[-3:]] == ["done"] * 3


def test_each_part_has_its_share_of_memory_and_as_many_run_as_fit(run, call, folder):
    env = {"CORESIZE_MAX_MEMORY": "1GiB", "CORESIZE_OVERRIDE_CORES": "4"}
    program = "echo $CORESIZE_MAX_CORES $CORESIZE_MAX_MEMORY; mkdir one || exit 1; "
    program += "sleep 0.2; rmdir one"
    words = ("shards", "2", "--logs", "logs", "--", "sh", "-c", program)
    done = run(*words[:2], "--memory", "500MiB", *words[2:], env=env)
    assert done.returncode == 0, done.stdout
    lines = (folder / "logs" / "shard-1-of-2.log").read_text().splitlines()
    cores, memory = map(int, lines[-1].split())
    assert cores == 4
    assert memory == int(1024**3 * 0.8)
    none = call(*words[:2], "--memory", "2GiB", *words[2:], env=env)
    assert none.returncode == 12
    assert "not even one task fits" in none.stderr


def test_what_has_not_ended_well_is_told_with_how_to_go_on(run):
    program = 'echo "part {index}"; exit $((3 * ({index} % 2)))'
    done = run("shards", "3", "--at-once", "2", "--", "sh", "-c", program)
    assert done.returncode == 1
    states = [line.split()[1] for line in done.stdout.splitlines()[-3:]]
    assert states == ["done", "failed", "done"]
    assert "failed (3)" in done.stdout
    hint, command = done.stderr.splitlines()
    assert hint == "coresize: to resume the shards that have not succeeded:"
    assert command.startswith("  CORESIZE_SHARD=1/3 sh -c ")
    again = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False
    )
    assert (again.stdout, again.returncode) == ("part 1\n", 3)


@pytest.mark.usefixtures("folder")
def test_what_has_failed_is_passed_over_and_that_is_told(run, call):
    words = ("jobs:picky", "--items", "items.jsonl", "--executor", "serial")
    batch = (sys.executable, "-m", "coresize", "batch", *words)
    done = run("shards", "1", "--", *batch, "--journal", "out-{index}.db")
    assert done.returncode == 1
    assert "skip tasks that have failed" in done.stderr.splitlines()[-1]
    merged = call("merge", "out-0.db", "-o", "all.csv")
    assert merged.stdout == "5 tasks in all.csv, 1 of them failed\n"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("output", "said"), [("all.txt", "of no known kind"), ("out.db", "is one of them")]
)
def test_what_no_option_mends_is_not_told_to_be(call, output, said):
    words = ("jobs:double", "--items", "items.jsonl", "--executor", "serial")
    call("batch", *words, "--journal", "out.db")
    for more in ((), ("--allow-partial",)):
        done = call("merge", "out.db", "-o", output, *more)
        problem, last = done.stderr.splitlines()
        assert said in problem
        assert last == "coresize: error: nothing is written"


def test_batches_in_parts_are_merged_and_their_progress_is_shown(run, folder):
    words = ("jobs:double", "--items", "items.jsonl", "--executor", "serial")
    batch = (sys.executable, "-m", "coresize", "batch", *words)
    done = run("shards", "2", "--", *batch, "--journal", "out-{index}.db")
    assert done.returncode == 0, done.stdout
    assert [line.split()[3] for line in done.stdout.splitlines()[-2:]] == ["3/3", "2/2"]
    merged = run("merge", "out-1.db", "out-0.db", "-o", "all.jsonl")
    assert (merged.stdout, merged.returncode) == ("5 tasks in all.jsonl\n", 0)
    rows = map(json.loads, (folder / "all.jsonl").read_text().splitlines())
    assert [(row["key"], row["value"]) for row in rows] == [
        (str(number), 2 * number) for number in range(5)
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("shards 0 -- true", "shards=0"),
        ("shards 2 --at-once 0 -- true", "at_once=0"),
        ("shards 2", "no program is named"),
        ("shards 2 --memory 2apples -- true", "memory='2apples'"),
        ("shards 2 --logs jobs.py/logs -- true", "the log jobs.py/logs/shard-0-of-2"),
        ("status nowhere.db", "there is no such file"),
        ("merge nowhere.db -o all.csv", "there is no such file"),
    ],
)
def test_bad_usage_of_the_others_exits_2_too(call, words, message):
    done = call(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("./nowhere", 127, "./nowhere: No such file or directory"),
        ("no-such-program", 127, "no-such-program: No such file or directory"),
        ("./part-{index}.py", 126, "./part-0.py: Permission denied"),
    ],
)
def test_a_program_that_cannot_be_started_is_told_before_any_part_is(
    call, folder, word, code, message
):
    (folder / "part-0.py").write_text("")
    done = call("shards", "2", "--", word)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"coresize: error: {message}\n"
    assert not (folder / "shards").exists()


def test_a_part_that_a_signal_has_ended_is_said_with_its_name(run):
    done = run("shards", "1", "--", "sh", "-c", "kill -USR1 $$")
    assert done.returncode == 1
    assert "killed (SIGUSR1)" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_parts_and_what_they_started(begin, folder, number):
    """The child of a shell, which gets no signal from the shell."""
    program = "sleep 60 & echo $! > pid-{index}; wait; exit 5"
    process = begin("shards", "3", "--at-once", "2", "--", "sh", "-c", program)
    notes = [folder / "pid-0", folder / "pid-1"]
    wait_for(lambda: all(note.exists() and note.read_text() for note in notes))
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    pids = [int(note.read_text()) for note in notes]
    wait_for(lambda: not any(_is_alive(pid) for pid in pids))
    assert not (folder / "pid-2").exists()
    assert out.splitlines()[-1].split()[1] == "waiting"
    assert err.count("CORESIZE_SHARD=") == 3


def _is_alive(pid):
    state = processes.read(pid, "stat").rpartition(")")[2].split()[:1]
    return state not in ([], ["Z"])


def test_a_second_signal_ends_what_did_not_heed_the_first(begin, folder):
    program = "trap ': > heard' TERM; : > begun; while :; do sleep 0.1; done"
    process = begin("shards", "1", "--", "sh", "-c", program)
    wait_for((folder / "begun").exists)
    process.send_signal(signal.SIGTERM)
    wait_for((folder / "heard").exists)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert out.splitlines()[-1].split()[1] == "stopped"


def test_what_a_part_leaves_behind_is_ended_with_it(run, folder):
    done = run("shards", "1", "--", "sh", "-c", "sleep 60 & echo $! > pid")
    assert done.returncode == 0
    pid = int((folder / "pid").read_text())
    wait_for(lambda: not _is_alive(pid))


# --- status and merge -----------------------------------------------------------


@pytest.fixture
def journals(call):
    words = ("batch", "jobs:picky", "--items", "items.jsonl", *SERIAL)
    for index in range(2):
        call(*words, "--journal", f"out-{index}.db", "--shard", f"{index}/2")
    return "out-0.db", "out-1.db"


def test_status_is_a_table_or_json(run, call, journals):
    lines = run("status", *journals).stdout.splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["SHARD", "STATE", "DONE", "FAILED"],
        ["0/2", "done", "3/3", "0"],
        ["1/2", "done", "2/2", "1"],
    ]
    rows = json.loads(call("status", "--json", *journals).stdout)
    assert [(row["path"], row["failed"]) for row in rows] == [
        ("out-0.db", 0),
        ("out-1.db", 1),
    ]


def test_status_passes_over_what_stands_beside_a_journal(call, folder, journals):
    (folder / "out-1.db-journal").touch()
    paths = sorted(path.name for path in folder.glob("out-*"))
    assert len(paths) == 7
    done = call("status", *paths)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == [*journals]
    assert call("status", "out-0.db.lock").returncode == 2


def test_status_watches_what_has_not_written_yet(begin, folder, journals):
    beside = folder / f"out-0.db{status.SUFFIX}"
    content = beside.read_text()
    beside.unlink()
    with contextlib.closing(
        sqlite3.connect(folder / "out-0.db.lock", isolation_level=None)
    ) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        process = begin("status", "--watch", *journals)
        seen = process.stdout.readline() + process.stdout.readline()
        assert "starting" in seen
    beside.write_text(content)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "starting" not in out.split("SHARD")[-1]


def test_status_can_be_watched_until_all_have_ended(begin, folder, journals):
    beside = folder / f"out-0.db{status.SUFFIX}"
    content = json.loads(beside.read_text())
    running = {"state": "running", "pid": os.getpid(), "updated": time.time()}
    beside.write_text(json.dumps({**content, **running}))
    process = begin("status", "--watch", *journals)
    seen = process.stdout.readline() + process.stdout.readline()
    assert "running" in seen
    beside.write_text(json.dumps(content))
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "running" not in out.split("SHARD")[-1]


def test_merge_names_what_is_missing(run, call, folder, journals):
    done = run("merge", journals[0], "-o", "all.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "coresize: no journal of shard 1/2" in done.stderr
    assert "--allow-partial merges what there is" in done.stderr
    assert not (folder / "all.csv").exists()
    part = call("merge", journals[0], "-o", "all.csv", "--allow-partial")
    assert (part.returncode, part.stdout) == (0, "3 tasks in all.csv\n")
    assert "coresize: warning: no journal of shard 1/2" in part.stderr
    assert len((folder / "all.csv").read_text().splitlines()) == 4
