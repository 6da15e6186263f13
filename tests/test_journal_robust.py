"""Journals: what is no file is refused, one file has one writer, one task one row."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import tasks
from hypothesis import given
from hypothesis import strategies as st

from coresize import ConfigError, CoresizeError, JournalError, run_batch
from coresize.batch import task
from coresize.batch.journal import (
    locks,
    overview,
    schema,
    status,
)
from coresize.batch.journal import (
    reader as reading,
)
from coresize.batch.journal import (
    writer as journal,
)
from coresize.batch.journal.merge import merge
from coresize.batch.outcomes import Outcome
from coresize.errors import MergeError


def start(path, items=(1, 2, 3), function=tasks.square, **words):
    words = {"executor": "serial", "progress": False, **words}
    return list(run_batch(function, items, journal=path, **words))


IDENTITY = schema.Identity(
    function="tasks:square",
    parameters="",
    shard="0/1",
    shard_by="index",
    serializer="json",
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.sqlite"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path):
    with contextlib.chdir(tmp_path):
        yield


# --- What is no file that is kept ---------------------------------------------


def _device(_path):
    return Path(os.devnull)


def _stream(_path):
    return Path("/dev/stdout")


def _descriptor(_path):
    return Path("/proc/self/fd/1")


def _socket(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path.name)
    server.close()
    return path


def _pipe(path):
    os.mkfifo(path)
    return path


def _folder(path):
    path.mkdir()
    return path


def _link_to_device(path):
    path.symlink_to(os.devnull)
    return path


def _ring(path):
    path.symlink_to(path)
    return path


@pytest.mark.parametrize(
    "name",
    ["", b"", "folder/", ":memory:", "file:out.sqlite", "file::memory:?cache=shared"],
    ids=repr,
)
def test_a_name_of_no_file_is_refused(name, tmp_path, path):
    with pytest.raises(ConfigError, match="journal"):
        start(name)
    start(path)
    with pytest.raises(ConfigError, match="output"):
        merge([path], name)
    assert not [one for one in tmp_path.iterdir() if one.name.startswith((":", "file"))]


def test_a_name_with_a_nul_is_refused(path):
    with pytest.raises(ConfigError, match="NUL"):
        start("out\0.sqlite")
    start(path)
    with pytest.raises(ConfigError, match="NUL"):
        merge([path], "all\0.csv")
    with pytest.raises(CoresizeError):
        merge(["out\0.sqlite"], "all.csv")


ODD = [_device, _stream, _descriptor, _socket, _pipe, _folder, _link_to_device, _ring]


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_plain_file_is_refused_by_all_and_left(path, make, tmp_path):
    odd = make(path)
    before = odd.lstat().st_mode
    good = tmp_path / "good.sqlite"
    start(good)
    for use in (
        lambda: start(odd),
        lambda: reading.describe(str(odd)),
        lambda: overview.look(str(odd)),
        lambda: merge([odd], "all.csv"),
        lambda: merge([good], odd),
    ):
        with pytest.raises((JournalError, MergeError), match=odd.name):
            use()
    assert odd.lstat().st_mode == before
    assert not list(tmp_path.glob("all.csv"))


def test_an_empty_path_is_the_folder():
    with pytest.raises(JournalError, match="it is a folder"):
        start(Path())


@pytest.mark.parametrize(
    "name", [b"out.sqlite", "dir/../out.sqlite", "caf\udce9.db"], ids=repr
)
def test_other_names_of_files_are_kept(name):
    Path("dir").mkdir()
    assert [one.status for one in start(name)] == ["ok"] * 3
    assert [one.status for one in start(name)] == ["skipped"] * 3
    text = os.fsdecode(name)
    assert overview.look(text).done == 3
    assert merge([text], "all.csv").tasks == 3


def test_a_name_that_is_no_utf8_is_printed_with_escapes(call):
    with pytest.raises(JournalError) as caught:
        reading.describe("caf\udce9\n.db")
    assert str(caught.value) == r"journal caf\udce9\n.db: there is no such file"
    assert caught.value.path == "caf\udce9\n.db"
    told = call("status", "caf\udce9\nforged.db")
    assert told.returncode == 2
    assert len(told.stderr.splitlines()) == 1


EMPTY = {
    "key": {"key": ""},
    "history": {"history": ""},
    "shard": {"shard": ""},
    "executor": {"executor": ""},
    "journal": {"journal": ""},
}


@pytest.mark.parametrize("words", EMPTY.values(), ids=EMPTY)
def test_an_empty_name_is_no_name(words):
    words = {"executor": "serial", "progress": False, **words}
    (name,) = {*words} - {"progress"} - ({"executor"} if len(words) > 2 else set())
    with pytest.raises(ConfigError, match=name):
        run_batch(tasks.square, [1], **words)


COMMANDS = [
    ("batch", "tasks:square", "--items", ""),
    *(
        ("batch", "tasks:square", "--items", "i.txt", f"--{name}", "")
        for name in ("journal", "key", "shard", "config", "memory", "executor", "retry")
    ),
    ("batch", "", "--items", "i.txt"),
    ("shards", "2", "--logs", "", "--", "true"),
    ("merge", "out.sqlite", "-o", ""),
    ("merge", "", "-o", "all.csv"),
    ("status", ""),
    ("workers", "--config", ""),
    ("workers", "--profile", ""),
    ("workers", "--kind", ""),
    ("report", "--host", ""),
    ("history", ""),
    ("history", "", "--export"),
    ("history", "", "--forget"),
    ("record", ""),
    ("sweep", "--from", ""),
    ("profile", "--save", "", "--", "true"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_empty_word_of_a_command_is_refused(call, words):
    Path("i.txt").write_text("1\n")
    start("out.sqlite")
    told = call(*words)
    assert told.returncode == 2
    assert "error" in told.stderr
    assert not Path("all.csv").exists()


# --- What a row can hold ------------------------------------------------------


class OddError(Exception):
    def __str__(self):
        return "caf\udce9 \0 \ud800"


def raise_odd(_item):
    raise OddError


def open_odd(_item):
    Path("caf\udce9").read_text()


def return_odd(_item):
    return "caf\udce9 \0 \ud800"


def count_long(length):
    return "x" * length


@pytest.mark.parametrize("function", [raise_odd, open_odd])
@pytest.mark.parametrize("executor", ["serial", "process"])
def test_an_error_that_no_database_holds_is_one_failed_task(path, function, executor):
    outcomes = start(path, [1, 2], function, executor=executor)
    assert [one.status for one in outcomes] == ["failed"] * 2
    again = start(path, [1, 2], function, executor=executor)
    assert [one.status for one in again] == ["failed"] * 2
    assert r"caf\udce9" in str(again[0].error)
    assert merge([path], "all.jsonl").failed == 2


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_value_of_odd_texts_comes_back(path, serializer):
    for expected in ("ok", "skipped"):
        (one,) = start(path, [1], return_odd, serializer=serializer)
        assert (one.status, one.value) == (expected, return_odd(1))


@given(
    key=st.text(st.characters(exclude_categories=["Cs"])),
    error=st.text(st.characters()),
    numbers=st.tuples(st.integers(), st.integers(), st.floats(), st.floats()),
)
def test_whatever_is_told_of_a_task_can_be_written(
    tmp_path_factory, key, error, numbers
):
    path = str(tmp_path_factory.mktemp("law") / "out.sqlite")
    attempts, peak, wall, cpu = numbers
    outcome = Outcome(
        key=key,
        index=0,
        status="failed",
        value=None,
        error=CoresizeError(error),
        traceback=error,
        attempts=attempts,
        peak_memory=peak,
        shared_memory=peak,
        wall=wall,
        cpu=cpu,
        waited=0.0,
        worker=error,
    )
    with contextlib.closing(journal.Journal(path, IDENTITY)) as file:
        file.write([(outcome, None)])
    (row,) = reading.read(path)
    assert row["key"] == key
    assert row["error"] == schema.storable(error)
    assert row["error"].encode("utf-8") is not None


@pytest.mark.parametrize(
    "key", ["a\0b", "\0", "a\nb", "\x1b", "é\u2028", 2**70, -(2**64)], ids=ascii
)
def test_a_key_of_any_text_is_found_again(path, key):
    for expected in ("ok", "skipped"):
        (one,) = start(path, [1], key=lambda _item: key)
        assert (one.status, one.key) == (expected, str(key))


@pytest.mark.parametrize("key", ["x" * 1_000_001, "caf\udce9"], ids=["long", "odd"])
def test_a_key_that_no_journal_holds_is_refused(path, key):
    with pytest.raises(ConfigError, match="key"):
        start(path, [1], key=lambda _item: key)


def test_a_text_of_any_length_is_cut():
    text = schema.storable("x" * 5_000_000 + "end")
    assert len(text) < 1_100_000
    assert text.endswith("end")
    assert "5000003" in text


def test_a_value_that_no_journal_holds_is_told_by_who_ran_the_task():
    """Of the true length in tests/live: it takes gigabytes."""
    assert task.checked(range(task.LONGEST)) == range(task.LONGEST)
    with pytest.raises(CoresizeError, match="too long for the journal"):
        task.checked(range(task.LONGEST + 1))


def test_a_value_that_this_sqlite_refuses_fails_alone(path):
    with contextlib.closing(journal.Journal(str(path), IDENTITY)) as file:
        file._file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 20_000)
        file._limit = 20_000
        ended = [
            outcome(index, "x" * length) for index, length in enumerate((9, 30_000, 9))
        ]
        fitted = [file.fitted(one, f'"{one.value}"') for one in ended]
        file.write(fitted)
    assert [one.status for one, _ in fitted] == ["ok", "failed", "ok"]
    rows = list(reading.read(str(path)))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert "too long" in rows[1]["error"]


def outcome(index, value):
    return Outcome(
        key=str(index),
        index=index,
        status="ok",
        value=value,
        error=None,
        traceback="",
        attempts=1,
        peak_memory=None,
        shared_memory=None,
        wall=0.0,
        cpu=0.0,
        waited=0.0,
        worker="1",
    )


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("executor", ["serial", "process"])
def test_a_value_that_cannot_be_read_back_fails_alone(path, executor):
    words = {"serializer": "pickle", "executor": executor}
    for _ in range(2):
        kinds = start(path, [1, 2], give_unloadable, **words)
        assert sorted(one.status for one in kinds) in (
            ["failed", "ok"],
            ["failed", "skipped"],
        )


def give_unloadable(item):
    return tasks.unloadable_result() if item == 1 else item


@pytest.mark.parametrize("depth", [100, 900, 960, 980, 1000, 10_000])
def test_a_value_of_any_depth_ends_no_batch(path, depth):
    outcomes = start(path, [depth, 1], nested)
    assert outcomes[-1].status == "ok"
    assert [one.key for one in start(path, [depth, 1], nested)] == [str(depth), "1"]


# --- One file, one writer -----------------------------------------------------


def _symbolic(path, other):
    other.symlink_to(path)


def _relative(path, other):
    other.symlink_to(path.name)


def _hard(path, other):
    os.link(path, other)


def _chain(path, other):
    _symbolic(path, other.with_suffix(".1"))
    _symbolic(other.with_suffix(".1"), other)


NAMES = [_symbolic, _relative, _hard, _chain]

#: A program that holds a journal until its standard input ends.
HOLD = """
    import sys, tasks
    from coresize import run_batch
    run = run_batch(tasks.square, [1, 2], journal=sys.argv[1], executor="serial")
    first = next(iter(run))
    print(first.status, flush=True)
    sys.stdin.read()
    run.close()
"""


@contextlib.contextmanager
def held(path):
    program = textwrap.dedent(HOLD)
    folders = os.pathsep.join([str(Path(tasks.__file__).parent)])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": folders},
    ) as process:
        assert process.stdout.readline()
        try:
            yield process
        finally:
            process.stdin.close()


@pytest.mark.parametrize("link", NAMES)
@pytest.mark.parametrize("first", ["path", "other"])
def test_other_names_of_one_file_have_one_writer(path, tmp_path, link, first):
    start(path, [0])
    folder = tmp_path / "elsewhere" if link is not _relative else tmp_path
    folder.mkdir(exist_ok=True)
    other = folder / "other.sqlite"
    link(path, other)
    names = {"path": (path, other), "other": (other, path)}[first]
    with held(names[0]) as process:
        with pytest.raises(JournalError, match="another process"):
            start(names[1], [1, 2])
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert {one.key for one in start(names[1], [1, 2])} == {"1", "2"}


@pytest.mark.parametrize("link", NAMES)
def test_within_one_program_too(path, tmp_path, link):
    start(path, [0])
    other = tmp_path / "other.sqlite"
    link(path, other)
    run = run_batch(tasks.square, [1, 2], journal=path, executor="serial")
    next(iter(run))
    with pytest.raises(JournalError, match=r"this very program|another process"):
        start(other, [1, 2])
    run.close()
    start(other, [1, 2])


def test_a_journal_that_is_dropped_is_unlocked(path):
    start(path, [0])
    file = journal.Journal(str(path), IDENTITY)
    file._file.close()
    file._lock._beside.close()
    del file
    gc.collect()
    start(path, [1])


def test_a_refused_writer_ends_no_lock(path, tmp_path):
    """The system drops all locks on a file when any descriptor of it is closed."""
    start(path, [0])
    other = tmp_path / "other.sqlite"
    os.link(path, other)
    run = run_batch(tasks.square, [1, 2], journal=path, executor="serial")
    next(iter(run))
    for name in (path, other) * 2:
        with pytest.raises(JournalError):
            start(name, [1])
    with held_is_refused(other):
        pass
    run.close()


@contextlib.contextmanager
def held_is_refused(path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tasks.__file__).parent)},
        input="",
        check=False,
        timeout=60,
    )
    assert "another process is writing to it" in done.stderr
    yield


def test_a_link_to_a_journal_tells_of_its_run(path, tmp_path):
    start(path, [0])
    other = tmp_path / "other.sqlite"
    other.symlink_to(path)
    run = run_batch(tasks.square, [1, 2], journal=other, executor="serial")
    next(iter(run))
    for name in (path, other):
        assert overview.look(str(name)).state == "running"
        assert locks.is_locked(str(name))
    with pytest.raises(JournalError, match="a run is writing to it"):
        merge([_copy(path)], path)
    run.close()


def _copy(path):
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    return copy


def test_a_copy_is_another_file(path):
    start(path, [0])
    run = run_batch(tasks.square, [1, 2], journal=path, executor="serial")
    next(iter(run))
    start(_copy(path), [5])
    run.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_keeps_no_journal_locked(path):
    reader, writer = os.pipe()
    program = textwrap.dedent("""
        import os, sys, tasks
        from coresize import run_batch
        run = run_batch(tasks.square, [1, 2], journal=sys.argv[1], executor="serial")
        next(iter(run))
        child = os.fork()
        if child:
            print(child, flush=True)
            os.kill(os.getpid(), 9)
        os.close(1)
        os.read(int(sys.argv[2]), 1)
        os._exit(0)
    """)
    with os.fdopen(writer, "wb"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), str(reader)],
            pass_fds=[reader],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(tasks.__file__).parent)},
            check=False,
            timeout=60,
        )
        os.kill(int(done.stdout), 0)  # it is alive
        assert [one.key for one in start(path, [1, 2])] == ["1", "2"]
    os.close(reader)


# --- What becomes of a file that is open --------------------------------------


def test_another_folder_changes_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    run = run_batch(tasks.square, [1, 2], journal="out.sqlite", executor="serial")
    outcomes = iter(run)
    next(outcomes)
    os.chdir("there")
    assert len(list(outcomes)) == 1
    os.chdir(tmp_path)
    assert not list((tmp_path / "there").iterdir())
    assert [one.status for one in start("out.sqlite", [1, 2])] == ["skipped"] * 2
    assert overview.look("out.sqlite").state == "done"


def _replace(path):
    path.with_suffix(".new").write_bytes(path.read_bytes())
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("lose", [Path.unlink, _replace])
@pytest.mark.parametrize("before", ["write", "end"])
def test_a_journal_that_is_lost_is_told(path, lose, before):
    items = iter([1]) if before == "end" else iter(range(5))
    run = run_batch(
        tasks.square, items, journal=path, executor="serial", progress=False
    )
    outcomes = iter(run)
    next(outcomes)
    lose(path)
    with pytest.raises(JournalError, match="removed, renamed or replaced"):
        list(outcomes)
    assert status.read(status.beside(str(path)))["state"] == "stopped"


def test_a_journal_that_is_renamed_keeps_what_was_reported(path):
    run = run_batch(
        tasks.square, iter([1, 2]), journal=path, executor="serial", progress=False
    )
    outcomes = iter(run)
    next(outcomes)
    path.rename(path.with_name("kept.sqlite"))
    with pytest.raises(JournalError, match="renamed"):  # so says SQLite
        list(outcomes)
    (row,) = reading.read("kept.sqlite")
    assert row["status"] == "ok"


def test_a_status_pipe_is_not_waited_for(path):
    os.mkfifo(status.beside(str(path)))
    assert len(start(path)) == 3
    assert overview.look(str(path)).done == 3


def test_functions_of_a_program_with_an_odd_name(tmp_path):
    program = tmp_path / "caf\udce9.py"
    program.write_text(
        textwrap.dedent("""
            from coresize import run_batch
            def double(item):
                return 2 * item
            if __name__ == "__main__":
                run = run_batch(double, [1, 2], journal="o.db", executor="serial",
                                history=True, progress=False)
                print([one.status for one in run])
        """)
    )
    for expected in ("ok", "skipped"):
        done = subprocess.run(
            [sys.executable, program],
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
            check=False,
            timeout=60,
        )
        assert done.stdout == f"{[expected] * 2}\n", done.stderr
    assert reading.describe("o.db")[0].function == r"caf\udce9:double"
