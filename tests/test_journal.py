"""Journals: what has ended is there at the next start, and nothing else is."""

from __future__ import annotations

import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Lock

import pytest
import tasks

from coresize import ConfigError, JournalError, TransferError, run_batch
from coresize.batch.journal import overview, reader, status


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.sqlite"


def start(path, items, function=tasks.square, **words):
    """One start of a batch with a journal, in the caller unless told otherwise."""
    words = {"executor": "serial", "progress": False, **words}
    return list(run_batch(function, items, journal=path, **words))


def statuses(outcomes):
    return {outcome.key: outcome.status for outcome in outcomes}


# --- The next start -----------------------------------------------------------


def test_what_was_ok_is_skipped_and_gives_its_value(path):
    function = functools.partial(tasks.note_call, str(path.parent))
    first = start(path, [1, 2, 3], function)
    second = start(path, [1, 2, 3], function)
    assert [one.status for one in first + second] == ["ok"] * 3 + ["skipped"] * 3
    assert [one.value for one in second] == [1, 2, 3]
    assert [(path.parent / str(n)).read_text() for n in (1, 2, 3)] == ["x"] * 3
    same = [("attempts", "wall", "cpu", "worker", "key", "index")] * 3
    for one, two, names in zip(first, second, same, strict=True):
        assert [getattr(one, name) for name in names] == [
            getattr(two, name) for name in names
        ]


def test_results_have_the_values_of_earlier_starts(path):
    start(path, [1, 2, 3])
    words = {"executor": "serial", "journal": path, "progress": False}
    assert run_batch(tasks.square, [1, 2, 3, 4], **words).results() == [1, 4, 9, 16]


def test_what_failed_stays_so_unless_it_is_to_be_tried_again(path):
    assert statuses(start(path, [1, 2], tasks.square_unless_odd)) == {
        "1": "failed",
        "2": "ok",
    }
    (failed, skipped) = start(path, [1, 2], tasks.square_unless_odd)
    assert (failed.status, skipped.status) == ("failed", "skipped")
    assert str(failed.error) == "ValueError: 1"
    assert "tasks.py" in failed.traceback
    again = start(path, [1, 2], tasks.square_unless_odd, retry=("failed",))
    assert {one.key: type(one.error) for one in again} == {
        "1": ValueError,
        "2": type(None),
    }
    other = start(path, [1, 2], tasks.square_unless_odd, retry="timeout")
    assert {type(one.error).__name__ for one in other} == {"CoresizeError", "NoneType"}


def test_what_failed_before_is_counted_and_named_apart(path):
    start(path, [1, 2, 3], tasks.square_unless_odd)
    words = {"executor": "serial", "journal": path, "progress": False}
    report = run_batch(tasks.square_unless_odd, [1, 2, 3, 4], **words).wait()
    assert report.line.startswith("1 done in ")
    assert report.line.endswith(" | 2 failed, 2 before | 1 skipped")
    assert (report.done, report.failed) == (4, 2)


def test_an_input_may_be_reordered_and_extended_between_starts(path):
    start(path, ["a", "b", "c"], str.upper)
    found = start(path, ["d", "c", "b", "a"], str.upper)
    assert statuses(found) == {
        "a": "skipped",
        "b": "skipped",
        "c": "skipped",
        "d": "ok",
    }
    assert sorted((one.index, one.value) for one in found) == [
        (0, "D"),
        (1, "C"),
        (2, "B"),
        (3, "A"),
    ]
    rows = [(row["item"], row["key"]) for row in reader.read(str(path))]
    assert rows == [(0, "d"), (1, "c"), (2, "b"), (3, "a")]


def test_a_start_that_was_left_early_goes_on(path):
    for expected in (3, 6, 9):
        with run_batch(
            tasks.square, range(10), executor="serial", journal=path, progress=False
        ) as run:
            for outcome in run:
                if outcome.index == expected:
                    break
    assert [one.status for one in start(path, range(10))] == ["skipped"] * 10


def test_how_many_items_there_are_is_of_the_last_start(path):
    start(path, range(5))
    assert reader.describe(str(path))[1] == 5
    with run_batch(
        tasks.square, range(8), executor="thread", journal=path, progress=False
    ) as run:
        next(iter(run))
    start(path, range(8))
    assert reader.describe(str(path))[1] == 8
    endless = iter(lambda: 0, 1)
    with run_batch(
        tasks.square,
        (number for number, _ in enumerate(endless)),
        executor="thread",
        journal=path,
        progress=False,
    ) as run:
        next(iter(run))
    assert reader.describe(str(path))[1] is None


def test_a_journal_of_many_keys_gives_each_its_own(path):
    """In the order they were written, in another, and with some missing."""
    start(path, range(3000))
    for items in (range(3000), range(2999, -1, -1), range(0, 6000, 2)):
        for one in start(path, items):
            assert one.value == int(one.key) ** 2
            assert one.status == "skipped" or int(one.key) >= 3000


def test_a_program_that_is_interrupted_goes_on(tmp_path):
    """Ctrl-C in a terminal reaches the program and its workers."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tasks\n"
        "from coresize import run_batch\n"
        "print('begun', flush=True)\n"
        "run = run_batch(tasks.nap, [n / 1000 for n in range(300)], max_workers=2,\n"
        "                journal=sys.argv[2], progress=False)\n"
        "for outcome in run:\n"
        "    print(outcome.key, flush=True)\n"
    )
    path = tmp_path / "out.sqlite"
    words = [sys.executable, "-c", program, str(Path(tasks.__file__).parent), str(path)]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        seen = [process.stdout.readline() for _ in range(20)][1:]
        os.killpg(process.pid, signal.SIGINT)
        rest, err = process.communicate(timeout=20)
        assert process.returncode != 0
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    reported = {line.strip() for line in [*seen, *rest.splitlines()]} - {""}
    counts = reader.count(str(path))
    assert set(counts) <= {"ok", None}
    assert len(reported) <= counts["ok"] < 300
    done = {row["key"] for row in reader.read(str(path)) if row["status"] == "ok"}
    assert reported <= done
    assert overview.look(str(path)).state == "stopped"


# --- Whose journal it is ------------------------------------------------------


SCALED = functools.partial(tasks.scaled, factor=2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"function": tasks.echo}, "it is of function 'tasks:scaled', not 'tasks:echo"),
        ({"function": functools.partial(tasks.scaled, factor=3)}, "other arguments"),
        ({"function": tasks.scaled}, "other arguments"),
        ({"shard": "0/2"}, "it is of shard '0/1', not '0/2': each shard has a file"),
        ({"serializer": "pickle"}, "it is of serializer 'json', not 'pickle'"),
    ],
)
def test_a_journal_of_another_run_is_refused(path, words, reason):
    start(path, [1, 2], SCALED)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=reason):
        start(path, [1, 2], **{"function": SCALED, **words})
    assert path.read_bytes() == before
    assert statuses(start(path, [1, 2], SCALED)) == {"1": "skipped", "2": "skipped"}


def test_the_arguments_of_a_journal_must_be_plain(path):
    with pytest.raises(ConfigError, match=r"functools\.partial with plain values"):
        start(path, [1], functools.partial(tasks.scaled, factor=object()))
    assert not path.exists()


def _not_sqlite(path):
    path.write_text("a text that is long enough to be no head of SQLite" * 30)


def _other_sqlite(path):
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE tasks (key)")
    file.commit()
    file.close()


def _older(path):
    _of_format(path, 1)


def _newer(path):
    _of_format(path, 3)


def _of_format(path, number):
    start(path, [1])
    file = sqlite3.connect(path)
    file.execute(f"PRAGMA user_version = {number}")
    file.commit()
    file.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_not_sqlite, "it is no SQLite file"),
        (_other_sqlite, "it is an SQLite file, but no journal of coresize"),
        (_newer, "it is of format 3, and 2 is known: update coresize"),
        (_older, "it is of format 1, and 2 is known: take another file"),
        (Path.mkdir, "it cannot be opened"),
    ],
)
def test_what_is_no_journal_is_refused_and_left(path, make, reason):
    make(path)
    before = path.is_file() and path.read_bytes()
    with pytest.raises(JournalError, match=reason) as caught:
        start(path, [1])
    assert caught.value.path == str(path)
    with pytest.raises(JournalError):
        reader.describe(str(path))
    assert (path.is_file() and path.read_bytes()) == before


def test_a_journal_where_no_folder_can_be_is_refused(path):
    path.write_text("a file")
    with pytest.raises(JournalError, match=r"journal .*: (Not a dir|File exists)"):
        start(path / "below.sqlite", [1])


def test_its_folder_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "out.sqlite"
    assert statuses(start(path, [1])) == {"1": "ok"}


def test_a_second_writer_is_refused_while_the_first_runs(path):
    program = (
        "import sys; from coresize import JournalError, run_batch\n"
        "try:\n"
        "    run_batch(abs, [1], executor='serial', journal=sys.argv[1]).wait()\n"
        "    print('ran')\n"
        "except JournalError as error:\n"
        "    print(error.reason)\n"
    )

    def second():
        words = [sys.executable, "-c", program, str(path)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    with run_batch(abs, [1, 2], executor="serial", journal=path) as run:
        next(iter(run))
        assert second().startswith("another process is writing to it")
        with pytest.raises(JournalError, match="a run of this very program"):
            run_batch(abs, [1], executor="serial", journal=path)
        assert reader.count(str(path))["ok"] >= 1  # to look is allowed
    assert second() == "ran\n"


def test_no_journal_is_made_of_a_run_that_could_not_begin(path):
    with pytest.raises(ConfigError):
        run_batch(abs, [1], executor="fork", journal=path)
    with pytest.raises(TransferError):
        run_batch(functools.partial(tasks.echo, Lock()), [1], journal=path)
    assert list(path.parent.iterdir()) == []


# --- Values -------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [{1: 2}, {"a": [{None: 1}]}, [({2.5: 0},)], object(), {1, 2}, b"bytes", 1j],
)
def test_what_json_would_lose_fails_its_task_alone_with_advice(path, value):
    lossy, good = start(
        path, ["first", "second"], tasks.table({"first": value, "second": 1})
    )
    assert (lossy.status, good.status) == ("failed", "ok")
    assert "cannot be written to the journal as JSON" in str(lossy.error)
    assert 'choose serializer="pickle"' in str(lossy.error)


def test_without_a_journal_any_value_is_fine():
    run = run_batch([{1: 2}].__getitem__, [0], executor="serial", progress=False)
    assert run.results() == [{1: 2}]


@pytest.mark.parametrize("value", [(1, 2), {1: (2,)}, {"a"}, b"bytes", None, 1.5, ""])
def test_pickles_keep_what_json_does_not(path, value):
    for _ in range(2):
        (one,) = start(
            path, ["first"], tasks.table({"first": value}), serializer="pickle"
        )
        assert one.value == value
        assert type(one.value) is type(value)


@pytest.mark.parametrize(
    "value", [None, True, 0, 1.5, "", "\u2028\ud800", [1, [2]], {"a": {"b": None}}]
)
def test_plain_values_come_back_as_they_were(path, value):
    for _ in range(2):
        (one,) = start(path, ["first"], tasks.table({"first": value}))
        assert (one.ok, one.value) == (True, value)


def test_a_value_is_the_same_before_and_after_it_was_written(path):
    first, second = (start(path, [1], tasks.pair)[0].value for _ in range(2))
    assert first == second == [1, 2]


def outer(factor):
    return lambda number: factor * number


@pytest.mark.parametrize(
    "function",
    [outer(2), "text".count, Ellipsis.__eq__, outer],
)
def test_a_function_that_its_name_does_not_tell_is_refused(path, function):
    if function is outer:  # the only one that a name says all about
        assert start(path, [1], function, serializer="pickle")[0].status == "failed"
        return
    with pytest.raises(ConfigError, match="a journal knows it by its name"):
        start(path, [1], function)
    assert not path.exists()


def test_an_error_that_cannot_tell_itself_is_an_outcome(path):
    found = start(path, [1, 2], tasks.raise_mute)
    assert [one.message for one in found] == ["MuteError", "MuteError"]
    assert statuses(start(path, [1, 2], tasks.raise_mute)) == {
        "1": "failed",
        "2": "failed",
    }


def test_a_run_that_is_left_and_dropped_ends_at_once(path):
    run = run_batch(
        tasks.square, range(50), journal=path, executor="serial", progress=False
    )
    for outcome in run:
        assert outcome.ok
        break
    with pytest.raises(JournalError, match="a run of this very program has it"):
        start(path, range(50))
    del run, outcome
    assert len(start(path, range(50))) == 50


# --- Keys ---------------------------------------------------------------------


def test_keys_that_come_twice_are_named_before_anything_runs(path):
    function = functools.partial(tasks.note_call, str(path.parent))
    with pytest.raises(ConfigError) as caught:
        start(path, ["a", "b", "a", "c", "b"], function)
    assert "'a' of items 0 and 2, 'b' of items 1 and 4" in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_many_of_them_are_counted():
    words = {"key": lambda _: "k", "executor": "serial"}
    with pytest.raises(ConfigError, match="'k' of items 0 and 10 and 89 more"):
        run_batch(tasks.square, list(range(100)), **words)


def test_of_a_generator_a_key_that_comes_twice_is_met_on_the_way(path):
    with pytest.raises(ConfigError, match="'1' of items 1 and 3"):
        start(path, iter([0, 1, 2, 1, 4]))
    assert statuses(start(path, [0, 1, 2, 4])) == {
        "0": "skipped",
        "1": "skipped",
        "2": "skipped",
        "4": "ok",
    }


def test_more_keys_than_memory_is_for_are_told_apart(path):
    words = {"key": str, "executor": "thread", "progress": False}
    items = [*range(50_100), 50_050, 3]
    with pytest.raises(ConfigError, match="'50050' of items 50050 and 50100, '3' of"):
        run_batch(tasks.square, items, **words)
    assert not path.exists()


@pytest.mark.parametrize(
    ("items", "key", "keys"),
    [
        ([{"id": 7}, {"id": "x"}], "id", ["7", "x"]),
        ([("a", 1), ("b", 2)], lambda item: item[0], ["a", "b"]),
        ([3, 4], lambda item: item * 10, ["30", "40"]),
        ([3, "x", {"a": 1}], None, ["3", "x", "5b05fa2c9d1d3d8a"]),
    ],
)
def test_a_key_is_a_field_a_function_or_the_content(path, items, key, keys):
    found = start(path, items, tasks.nothing, key=key)
    assert [one.key for one in found][:2] == keys[:2]
    assert statuses(start(path, items, tasks.nothing, key=key)) == {
        one.key: "skipped" for one in found
    }


@pytest.mark.parametrize(
    ("items", "key", "text"),
    [
        ([{"a": 1}], "id", "key='id' is not valid: use a field of every item"),
        ([5], "id", "a field of every item"),
        (
            [5],
            lambda _: None,
            "key=None is not valid: use a text of UTF-8, or a whole number",
        ),
        ([5], lambda _: True, "key=True"),
        ([5], lambda _: 1.5, "key=1.5"),
        ([5], lambda _: "\ud800", "a text of UTF-8"),
        ([object()], None, "key=, a function that gives each item a text"),
    ],
)
def test_a_key_that_is_none_is_an_error_that_names_its_item(path, items, key, text):
    with pytest.raises(ConfigError) as caught:
        start(path, items, key=key)
    assert text in str(caught.value)
    assert caught.value.__notes__[0].startswith("while taking the key of item 0: ")


def test_without_a_journal_or_a_key_anything_is_an_item():
    run = run_batch(type, [object()], executor="serial", progress=False)
    assert [one.key for one in run] == ["0"]


# --- Beside it ----------------------------------------------------------------


def test_a_status_stands_beside_the_journal(path):
    start(path, range(4), tasks.square_unless_odd)
    beside = Path(f"{path}{status.SUFFIX}")
    content = json.loads(beside.read_text())
    assert {name: content[name] for name in ("state", "done", "total", "failed")} == {
        "state": "done",
        "done": 4,
        "total": 4,
        "failed": 2,
    }
    assert content["counts"]["ok"] == 2
    assert (content["pid"], content["shard"]) == (os.getpid(), "0/1")
    assert content["started"] <= content["updated"]
    names = {one.name for one in path.parent.iterdir()}
    assert names == {path.name, f"{path.name}.lock", beside.name}
