"""Data of others: never code, never obeyed unasked, never more than an error."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import os
import pickle
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tasks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import coresize
from coresize import (
    CoresizeError,
    JournalError,
    load_profile,
    load_settings,
    run_batch,
)
from coresize.batch.journal import export, overview, schema, status
from coresize.batch.journal import reader as reading
from coresize.batch.journal.merge import merge
from coresize.cli import batch_sources
from coresize.errors import MergeError
from coresize.planning.history import store
from coresize.planning.settings_files import read_table
from coresize.testing import load_host


ROOT = Path(__file__).parents[1]
SOURCE = Path(coresize.__path__[0])


def start(path, items=(1, 2, 3), function=tasks.square, **words):
    words = {"executor": "serial", "progress": False, **words}
    return list(run_batch(function, items, journal=path, **words))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path):
    with contextlib.chdir(tmp_path):
        yield


# --- Pickles ------------------------------------------------------------------

#: What makes objects of bytes; names that some module might import as.
LOADERS = re.compile(
    r"(pickle|marshal|shelve|dill|joblib|np|numpy)\.(load|loads|open|Unpickler)\b"
    r"|\bUnpickler\b|(pipe|connection|conn)\.recv$|\bregister_converter\b"
)


def test_every_place_that_unpickles_is_in_the_table():
    page = (ROOT / "docs/reference/security.md").read_text()
    told = set(re.findall(r"^\| `([\w/]+\.py)` \|", page, re.MULTILINE))
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any(LOADERS.search(ast.unparse(node)) for node in _code(path))
    }
    assert found == told


def _code(path):
    """The attributes and calls of a module, without its texts."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Attribute, ast.Name))
    ]


def test_the_security_policy_leads_to_the_table():
    assert "docs/reference/security.md" in (ROOT / "SECURITY.md").read_text()


class Mine:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("mark"),)


def _planted(path, serializer, value):
    """A journal as an attacker might have written it."""
    start(path, [1], serializer="json" if serializer == "json" else "pickle")
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE tasks SET value = ?", (value,))
    return path


@pytest.mark.parametrize("name", ["all.csv", "all.jsonl", "all.ndjson"])
def test_a_journal_does_not_decide_that_it_is_unpickled(name, call):
    _planted("in.db", "pickle", pickle.dumps(Mine()))
    with pytest.raises(MergeError, match="allow_pickle=True"):
        merge(["in.db"], name)
    told = call("merge", "in.db", "-o", name)
    assert told.returncode == 2
    assert "--allow-pickle" in told.stderr
    assert not Path("mark").exists()
    assert not Path(name).exists()
    assert merge(["in.db"], name, allow_pickle=True).tasks == 1
    assert Path("mark").exists()
    assert call("merge", "in.db", "-o", name, "--allow-pickle").returncode == 0


def test_who_only_looks_or_merges_into_a_journal_unpickles_nothing():
    _planted("in.db", "pickle", pickle.dumps(Mine()))
    assert merge(["in.db"], "all.db").tasks == 1
    overview.look("in.db")
    list(reading.read("in.db"))
    assert not Path("mark").exists()


@pytest.mark.parametrize("changes_identity", [False, True])
def test_a_json_journal_is_never_unpickled(changes_identity):
    _planted("in.db", "json", pickle.dumps(Mine()))
    if changes_identity:
        with contextlib.closing(sqlite3.connect("in.db")) as file, file:
            file.execute("UPDATE run SET value = 'pickle' WHERE name = 'serializer'")
    with pytest.raises(JournalError, match=r"in\.db"):
        start("in.db", [1])
    with pytest.raises((JournalError, MergeError), match=r"in\.db"):
        merge(["in.db"], "all.csv")
    assert not Path("mark").exists()


def test_ones_own_pickles_are_read_as_the_argument_says():
    start("in.db", [1], tasks.pair, serializer="pickle")
    (one,) = start("in.db", [1], tasks.pair, serializer="pickle")
    assert (one.status, one.value) == ("skipped", (1, 2))


# --- Damaged journals ---------------------------------------------------------


def _sample():
    """A journal with all kinds of rows."""
    name = "sample.db"
    items = ["a", "b", "x" * 150, *map(str, range(40))]
    start(name, items, tasks.table({name: name * 30 for name in items[:-9]}))
    content = Path(name).read_bytes()
    for beside in ("", ".lock", status.SUFFIX):
        Path(name + beside).unlink(missing_ok=True)
    return content, items


READERS = {
    "look": lambda path, _items: overview.look(path),
    "read": lambda path, _items: list(reading.read(path)),
    "describe": lambda path, _items: reading.describe(path),
    "export": lambda path, _items: merge([path], "all.csv", allow_partial=True),
    "merge": lambda path, _items: merge([path], "all.db", allow_partial=True),
    "resume": lambda path, items: start(path, items, tasks.looked_up),
}


def _clear(folder):
    for file in folder.iterdir():
        if not file.is_dir():
            file.unlink()


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_damaged_journals_are_told_as_such(reader, tmp_path):
    content, items = _sample()

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def law(data):
        _clear(tmp_path)
        Path("in.db").write_bytes(data.draw(_damage(content)))
        try:
            reader("in.db", items)
        except (JournalError, MergeError) as error:
            assert "in.db" in str(error) or isinstance(error, MergeError)
        assert not [one.name for one in tmp_path.iterdir() if one.name.startswith(".")]

    law()


@st.composite
def _damage(draw, content):
    size = len(content)
    place = draw(st.integers(0, size - 1))
    end = draw(st.integers(place, min(size, place + 5000)))
    kind = draw(st.sampled_from(["flip", "cut", "zero", "text", "several"]))
    damaged = bytearray(content)
    if kind == "cut":
        return content[:place]
    if kind == "zero":
        damaged[place:end] = bytes(end - place)
    elif kind == "text":
        at = content.find(draw(st.sampled_from([b"tasks.py", b'"a', b"ok", b"json"])))
        damaged[at : at + 2] = b"\xff\xfe"
    else:
        for _ in range(1 if kind == "flip" else 20):
            damaged[draw(st.integers(0, size - 1))] ^= draw(st.integers(1, 255))
    return bytes(damaged)


#: What SQLite would hold, and coresize never writes.
WRONG = {
    "status of another program": "UPDATE tasks SET status = 'melted'",
    "status is a number": "UPDATE tasks SET status = 3",
    "status is bytes": "UPDATE tasks SET status = x'ff'",
    "item is a text": "UPDATE tasks SET item = 'first'",
    "item is a fraction": "UPDATE tasks SET item = 1.5",
    "item below 0": "UPDATE tasks SET item = -1",
    "key is bytes": "UPDATE tasks SET key = CAST(key AS BLOB)",
    "value is a number": "UPDATE tasks SET value = 3",
    "value is no JSON": "UPDATE tasks SET value = '{'",
    "value is deep": "UPDATE tasks SET value = '{}'".format("[" * 200_000),
    "value is bytes": "UPDATE tasks SET value = x'00'",
    "value is none": "UPDATE tasks SET value = NULL",
    "error is bytes": "UPDATE tasks SET error = x'00'",
    "no text in UTF-8": "UPDATE tasks SET error = CAST(x'ff' AS TEXT)",
    "attempts is a text": "UPDATE tasks SET attempts = 'many'",
    "peak is a text": "UPDATE tasks SET peak_memory = 'much'",
    "wall is a text": "UPDATE tasks SET wall = 'long'",
    "worker is bytes": "UPDATE tasks SET worker = x'00'",
    "ended is a text": "UPDATE tasks SET ended = 'soon'",
    "no identity": "DELETE FROM run",
    "identity is none": "UPDATE run SET value = NULL",
    "identity is bytes": "UPDATE run SET value = x'ff'",
    "shard is none": "UPDATE run SET value = 'a/b' WHERE name = 'shard'",
    "shard is of another input": "UPDATE run SET value = '4/4' WHERE name = 'shard'",
    "dealt out by luck": "UPDATE run SET value = 'luck' WHERE name = 'shard_by'",
    "serializer unknown": "UPDATE run SET value = 'yaml' WHERE name = 'serializer'",
    "items are a text": "UPDATE run SET value = 'many' WHERE name = 'items'",
    "items are endless": "UPDATE run SET value = '9' || hex(zeroblob(90)) "
    "WHERE name = 'items'",
    "items below 0": "UPDATE run SET value = '-3' WHERE name = 'items'",
    "no table of tasks": "DROP TABLE tasks",
    "no table of runs": "DROP TABLE run",
}


@pytest.mark.parametrize("statement", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("use", ["merge", "export", "resume"])
def test_what_is_never_written_is_damage(statement, use):
    start("in.db", [1, 2])
    with contextlib.closing(sqlite3.connect("in.db")) as file, file:
        file.execute(statement)
    Path(status.beside("in.db")).unlink()
    with contextlib.suppress(JournalError):
        overview.look("in.db")
    try:
        if use == "resume":
            start("in.db", [1, 2, 3])
        else:
            merge(["in.db"], "all.csv" if use == "export" else "all.db")
    except (JournalError, MergeError) as error:
        assert "in.db" in str(error) or isinstance(error, MergeError)
    else:
        # What one start does not ask for is no error of it.
        assert use != "export"
    assert not Path("all.csv").exists()


def test_a_number_of_items_that_is_wrong_takes_no_memory():
    start("in.db", [1, 2])
    with contextlib.closing(sqlite3.connect("in.db")) as file, file:
        file.execute(f"UPDATE run SET value = '{10**17}' WHERE name = 'items'")
        file.execute(f"UPDATE tasks SET item = {10**16} WHERE key = '2'")
    with pytest.raises(MergeError, match=r"99999999999999998 items .* 1, 2, 3"):
        merge(["in.db"], "all.csv")


# --- Files of other kinds -----------------------------------------------------

SHAPES = {
    "empty": b"",
    "list": b"[]",
    "number": b"17",
    "text": b'"x"',
    "null": b"null",
    "deep": b"[" * 300_000,
    "deep table": b'{"a":' * 300_000,
    "no UTF-8": b"\xff\xfe\x00",
    "zeros": bytes(5000),
    "a long number": b"9" * 100_000,
    "wrong kinds": json.dumps(
        {
            **dict.fromkeys(("done", "failed", "workers", "rate", "eta"), "x"),
            "state": "running",
            "pid": [],
            "updated": {},
        }
    ).encode(),
    "large": json.dumps(
        {
            **dict.fromkeys(("done", "failed", "workers", "rate", "pid"), 10**400),
            **dict.fromkeys(("state", "shard", "host"), "running"),
            "updated": 0,
        }
    ).encode(),
    "not finite": b'{"state": "running", "shard": "0/1", "host": null, "done": 1, '
    b'"failed": 0, "workers": 1, "rate": NaN, "eta": Infinity, "updated": -Infinity}',
}


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
def test_status_files_of_another_shape(content, call):
    start("in.db", [1, 2])
    beside = Path(status.beside("in.db"))
    beside.write_bytes(content)
    assert overview.look("in.db").done == 2  # the journal knows it
    beside.rename(f"alone{status.SUFFIX}")
    with pytest.raises(JournalError, match=r"alone.*no status file"):
        overview.look(f"alone{status.SUFFIX}")
    told = call("status", f"alone{status.SUFFIX}")
    assert (told.returncode, len(told.stderr.splitlines())) == (2, 1)
    assert call("status", "in.db").returncode == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(overview.RunStatus.__slots__), JSON), JSON)
@settings(suppress_health_check=list(HealthCheck))
def test_whatever_a_status_says_can_be_shown(found, updated):
    path = f"alone{status.SUFFIX}"
    text = json.dumps({"state": "running", **found, "updated": updated})
    Path(path).write_text(text)
    with contextlib.suppress(JournalError):
        assert overview.table([overview.look(path)]).count("\n") == 1


def test_a_pipe_is_not_waited_for(call):
    for name in (f"in.db{status.SUFFIX}", "p.toml", "p.json", "c.toml", "in.db"):
        os.mkfifo(name)
    for use in (
        lambda: overview.look("in.db"),
        lambda: overview.look(f"in.db{status.SUFFIX}"),
        lambda: load_profile("./p.toml"),
        lambda: load_profile("./p.json"),
        lambda: load_settings(file="c.toml"),
        lambda: read_table("c.toml", "config"),
        lambda: load_host("c.toml"),
    ):
        with pytest.raises(CoresizeError, match="pipe"):
            use()
    assert call("batch", "--config", "c.toml").returncode == 2


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("p.toml", load_profile),
        ("p.json", load_profile),
        ("h.toml", load_host),
        ("s.toml", lambda name: load_settings(file=name)),
        ("b.toml", lambda name: read_table(name, "config")),
        ("s.yaml", lambda name: load_settings(file=name)),
        ("i.jsonl", batch_sources.read_items),
        ("i.csv", batch_sources.read_items),
        ("i.txt", batch_sources.read_items),
    ],
    ids=[
        *("profile", "profile in JSON", "host", "settings", "batch", "YAML"),
        *("items", "items in CSV", "lines"),
    ],
)
def test_files_of_another_shape(content, name, use):
    Path(name).write_bytes(content)
    with contextlib.suppress(CoresizeError):
        use(f"./{name}")


def test_a_damaged_history_is_told(tmp_path, call):
    env = {"XDG_STATE_HOME": str(tmp_path)}
    function = tasks.padded
    words = {"executor": "process", "history": True, "progress": False}
    assert call("history", env=env).returncode == 0
    del function, words
    path = tmp_path / "coresize" / "history.sqlite"
    for number, values in enumerate(("'x', 1, 1", "1, 'x', 1", "1, 1, 9e999")):
        with contextlib.closing(sqlite3.connect(path)) as file, file:
            file.execute(
                "INSERT INTO tasks (name, size, peak_memory, wall, cpu, workers, "
                f"throughput, ended) VALUES ('f{number}', {values}, 1, 1, 1, 1)"
            )
        told = call("history", f"f{number}", env=env)
        assert told.returncode == 2
        assert "history.sqlite is damaged" in told.stderr
    content = path.read_bytes()
    for cut in (0, 50, 1000, 5000, len(content) - 100):
        path.write_bytes(content[:cut])
        assert call("history", "f0", env=env).returncode == 2
    assert store.path()


def test_names_that_are_no_utf8_work(call):
    name = "caf\udce9"
    Path(f"{name}.txt").write_text("1\n2\n")
    Path(f"{name}.toml").write_text("[profiles.small]\npeak_memory = '1MB'\n")
    told = call(
        *("batch", "tasks:echo", "--items", f"{name}.txt", "--executor", "serial"),
        *("--journal", f"{name}.db"),
    )
    assert (told.returncode, told.stdout) == (0, "")
    assert call("status", f"{name}.db").stdout.endswith(r"caf\udce9.db" + "\n")
    assert call("merge", f"{name}.db", "-o", f"{name}.csv").returncode == 0
    assert Path(f"{name}.csv").read_text().count("\n") == 3
    assert call("workers", "--config", f"{name}.toml").returncode == 0
    told = call("profile", "--save", f"./{name}.json", "--", "true")
    assert told.returncode == 0
    assert call("workers", "--profile", f"./{name}.json").returncode == 0
    assert call("record", f"{name}.host").returncode == 0
    assert call("report", "--host", f"{name}.host").returncode == 0


def test_the_log_of_a_shard_holds_any_word(run):
    word = "caf\udce9"
    assert run("shards", "1", "--", "echo", word).returncode == 0
    assert rb"caf\udce9" in Path("shards/shard-0-of-1.log").read_bytes()


# --- Settings of another user -------------------------------------------------

#: Nobody's number, as no other user need be known here.
OTHER = 54321

only_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can give files away",
)

TEXTS = {
    "coresize.toml": "workers = 7\n",
    "pyproject.toml": "[tool.coresize]\nworkers = 7\n",
}


def _given_away(path):
    os.chown(path, OTHER, -1)


def _writable(path):
    path.chmod(0o666)


def _linked(path):
    """Another user's link to a file of one's own, which is meant for elsewhere."""
    path.rename(path.with_suffix(".own"))
    path.symlink_to(path.with_suffix(".own"))
    os.lchown(path, OTHER, -1)


def _led_away(path):
    _given_away(path)
    path.rename(path.with_suffix(".theirs"))
    path.symlink_to(path.with_suffix(".theirs"))


@only_root
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("do", [_given_away, _writable, _linked, _led_away])
def test_settings_of_another_user_are_not_obeyed(tmp_path, name, do, call):
    shared, mine = tmp_path / "shared", tmp_path / "shared" / "mine"
    mine.mkdir(parents=True)
    file = shared / name
    file.write_text(TEXTS[name])
    (tmp_path / "coresize.toml").write_text("reserve_cores = 1\n")
    with contextlib.chdir(mine):
        assert load_settings().workers == 7
        do(file)
        found = load_settings()
        assert (found.workers, found.reserve_cores) == (None, 1)
        (warning,) = found.warnings
        assert str(file) in warning
        assert do is _writable or str(OTHER) in warning
        assert load_settings(file=file).workers == 7
    told = call("workers", "--config", file)
    assert (told.stdout, told.stderr) == ("7\n", "")
    told = call("workers", env={"CORESIZE_CONFIG": str(file)})
    assert (told.stdout, told.stderr) == ("7\n", "")


@only_root
@pytest.mark.parametrize(
    "text", ["[tool.other]\nworkers = 7\n", "this is no TOML", "tool = 3"]
)
def test_a_project_of_another_user_without_settings_is_not_mentioned(text):
    Path("pyproject.toml").write_text(text)
    _given_away("pyproject.toml")
    assert load_settings().warnings == ()


@only_root
def test_what_the_user_of_sudo_owns_is_obeyed(call):
    Path("coresize.toml").write_text("workers = 7\n")
    _given_away("coresize.toml")
    told = call("workers", env={"SUDO_UID": str(OTHER)})
    assert (told.stdout, told.stderr) == ("7\n", "")
    for other in ("", "12", "x"):
        told = call("workers", env={"SUDO_UID": other})
        assert told.stderr.count("not obeyed") == 1


# --- What is written for others -----------------------------------------------

CELLS = {
    "=1+1": "'=1+1",
    "+cmd": "'+cmd",
    "-cmd|' /C calc'!A0": "'-cmd|' /C calc'!A0",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\r=1": "'\r=1",
    "\n=1": "'\n=1",
    "\uff1d1": "'\uff1d1",
    "-1": "-1",
    "+1.5e3": "+1.5e3",
    "plain": "plain",
    "1-2": "1-2",
}


def _table(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_texts_that_look_like_formulas_are_texts_on_request(call):
    values = {str(place): value for place, value in enumerate(CELLS)}
    start("in.db", [*values, "number"], tasks.table({**values, "number": -1}))
    merge(["in.db"], "plain.csv")
    assert [row["value"] for row in _table("plain.csv")] == [*CELLS, "-1"]
    merge(["in.db"], "safe.csv", csv_safe=True)
    assert [row["value"] for row in _table("safe.csv")] == [*CELLS.values(), "-1"]
    assert call("merge", "in.db", "-o", "cli.csv", "--csv-safe").returncode == 0
    assert Path("cli.csv").read_bytes() == Path("safe.csv").read_bytes()
    merge(["in.db"], "safe.jsonl", csv_safe=True)
    lines = Path("safe.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [*CELLS, -1]


@pytest.mark.parametrize("key", ["=1+1", "@key"])
def test_keys_and_errors_too(key):
    start("in.db", [key], raise_formula)
    merge(["in.db"], "safe.csv", csv_safe=True)
    (row,) = _table("safe.csv")
    assert row["key"] == f"'{key}"
    assert row["error"] == "=Error: 1" or row["error"].startswith("KeyError")


def raise_formula(item):
    raise KeyError(item)


FORGED = "no\nok: all is well\r\nok: 2\x1b[2K\u2028ok: 3\x85ok: 4\x0bok: 5"


def raise_forged(_item):
    raise ValueError(FORGED)


@pytest.mark.parametrize("key", ["1", "a\nok: b"])
def test_a_newline_in_an_error_forges_no_line(run, key):
    Path("evil.py").write_text(
        f"def run(item):\n    raise ValueError({FORGED!r})\n", encoding="utf-8"
    )
    Path("i.jsonl").write_text(json.dumps({"k": key}) + "\n")
    told = run(
        *("batch", "evil:run", "--items", "i.jsonl", "--journal", "in.db"),
        *("--executor", "serial", "--key", "k"),
    )
    assert told.returncode == 1
    lines = told.stderr.splitlines()
    assert not [line for line in lines if line.startswith("ok")]
    assert "\x1b" not in told.stderr
    for name in ("all.csv", "all.jsonl"):
        assert run("merge", "in.db", "-o", name).returncode == 0
    assert len(Path("all.jsonl").read_bytes().splitlines()) == 1
    (row,) = _table("all.csv")
    assert row["error"] == f"ValueError: {FORGED}"
    text = Path("all.csv").read_bytes().decode()
    assert len(list(csv.reader(io.StringIO(text, newline="")))) == 2


def test_a_carriage_return_is_quoted():
    file = io.StringIO()
    row = dict.fromkeys(schema.COLUMNS, "x") | {"error": "a\rb", "worker": "c\nd"}
    export.EXPORTS["csv"](file, lambda: iter([row]), False)  # noqa: FBT003
    assert '"a\rb"' in file.getvalue()
    assert '"c\nd"' in file.getvalue()
    assert file.getvalue().count("\n") == 3


def test_a_status_forges_no_line(call):
    start("in.db", [1])
    path = Path(status.beside("in.db"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "state": "done\nall  is well\x1b[2K"}))
    told = call("status", "in.db")
    assert len(told.stdout.splitlines()) == 2
    assert r"done\nall" in told.stdout


@pytest.mark.parametrize("name", ["all.csv", "all.jsonl", "all.db"])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_merging_again_keeps_the_mode(name, mode):
    start("in.db", [1])
    before = os.umask(0o027)
    try:
        merge(["in.db"], name)
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o640
        Path(name).chmod(mode)
        merge(["in.db"], name)
        assert stat.S_IMODE(Path(name).stat().st_mode) == mode
    finally:
        os.umask(before)


@only_root
def test_merging_again_keeps_the_owner():
    start("in.db", [1])
    merge(["in.db"], "all.csv")
    _given_away("all.csv")
    merge(["in.db"], "all.csv")
    assert Path("all.csv").stat().st_uid == OTHER


def test_merging_over_a_link_replaces_what_it_leads_to():
    start("in.db", [1])
    Path("there").mkdir()
    Path("all.csv").symlink_to("there/all.csv")
    for _ in range(2):
        merge(["in.db"], "all.csv")
        assert Path("all.csv").is_symlink()
        assert len(_table("there/all.csv")) == 1


@pytest.mark.parametrize("name", ["all.csv", "all.jsonl", "all.db"])
def test_a_merge_that_fails_leaves_nothing(name, tmp_path):
    start("good.db", [1])
    merge(["good.db"], name)
    before = Path(name).read_bytes()
    start("in.db", [1, 2])
    with contextlib.closing(sqlite3.connect("in.db")) as file, file:
        file.execute("UPDATE tasks SET value = '{', wall = 'x' WHERE item = 1")
    files = sorted(tmp_path.iterdir())
    with pytest.raises(JournalError, match=r"in\.db.*damaged"):
        merge(["in.db"], name)
    assert Path(name).read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files


def test_a_merge_that_is_ended_leaves_nothing(tmp_path):
    """The journal is locked, so the merge waits in the midst of it."""
    start("in.db", [1])
    folder = tmp_path / "out"
    folder.mkdir()
    program = (
        "import sys\n"
        "from coresize.batch.journal import export\n"
        "from coresize.cli import main\n"
        "def endless(file, rows, safe):\n"
        "    print('begun', flush=True)\n"
        "    import time\n"
        "    time.sleep(600)\n"
        "export.EXPORTS['csv'] = endless\n"
        "sys.exit(main(['merge', 'in.db', '-o', 'out/all.csv']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"begun\n"
        assert len(list(folder.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"nothing is written" in text
    assert list(folder.iterdir()) == []


class Odd:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "value",
    [{(1, 2): 3}, {1, 2}, 10**5000, [10**5000], Odd(), [Odd()], b"\xff"],
    ids=[
        "keys",
        "set",
        "digits",
        "digits in a list",
        "mute",
        "mute in a list",
        "bytes",
    ],
)
def test_pickled_values_of_any_kind_are_written(value):
    start("in.db", [1], tasks.table({1: value}), serializer="pickle")
    for name in ("all.csv", "all.jsonl"):
        assert merge(["in.db"], name, allow_pickle=True).tasks == 1


# --- Modules of the working folder --------------------------------------------


def test_parts_import_nothing_of_the_working_folder():
    for name in ("argparse", "json", "coresize", "shlex"):
        Path(f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    words = [sys.executable, "-P", "-m", "coresize"]
    done = subprocess.run(
        [*words, "shards", "1", "--", "echo", "well"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    log = Path("shards/shard-0-of-1.log").read_text()
    assert (done.returncode, "shadowed" in log) == (0, False), log
    assert "well" in log


def test_fresh_interpreters_neither():
    for name in ("argparse", "json", "time", "random"):
        Path(f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "coresize", "diagnose", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "shadowed" not in done.stdout + done.stderr
    checks = {one["check"] for one in json.loads(done.stdout)["findings"]}
    assert "start methods" in checks


def test_a_batch_imports_its_function_from_the_working_folder():
    Path("argparse.py").write_text("raise SystemExit('shadowed')\n")
    Path("mine.py").write_text("import other\ndef run(item):\n    return other.x\n")
    Path("other.py").write_text("x = 1\n")
    Path("i.txt").write_text("1\n")
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "coresize", "batch", "mine:run"),
            *("--items", "i.txt", "--max-workers", "1")[:2],
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == 1
