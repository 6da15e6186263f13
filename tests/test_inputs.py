"""Files of users with odd texts: byte order marks, other encodings, NUL, line ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import commands
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import ConfigError, run_batch
from coresize.batch.journal.merge import merge
from coresize.cli.batch_sources import read_items
from coresize.texts import decode


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "data", "items"),
    [
        ("a.txt", MARK + b"one\ntwo", ["one", "two"]),
        ("a.txt", MARK, []),
        ("a.txt", b"", []),
        ("a.txt", b"a\r\nb\r\n\r\n \nc", ["a", "b", "c"]),
        ("a.txt", b"a\rb", ["a", "b"]),
        ("a.txt", "a\u2028b\x0cc\n".encode(), ["a\u2028b\x0cc"]),
        ("a.txt", b"x" * 300_000, ["x" * 300_000]),
        ("a.TXT", b"one\n", ["one"]),
        ("a.jsonl", MARK + b'{"a": 1}\r\n\r\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        ("a.jsonl", rb'"a\u0000b"', ["a\0b"]),
        ("a.csv", MARK + b"a,b\n1,2", [{"a": "1", "b": "2"}]),
        ("a.csv", MARK + b'"a",b\r\n1,2\r\n\r\n', [{"a": "1", "b": "2"}]),
        ("a.csv", b'a\n"1\r\n2"\n"3\r4"\n', [{"a": "1\r\n2"}, {"a": "3\r4"}]),
        # A mark that is not at the head is a character like others.
        ("a.txt", "a\ufeffb\n\ufeffc".encode(), ["a\ufeffb", "\ufeffc"]),
    ],
)
def test_items_are_read_as_they_were_meant(tmp_path, name, data, items):
    path = tmp_path / name
    path.write_bytes(data)
    assert read_items(str(path)) == items


WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
OTHERS = [
    *((encoding, encoding[:6].upper()) for encoding in WIDE),
    ("latin-1", "iconv -f LATIN1"),
    ("cp1252", "CP1252"),
]
TEXTS = {
    "items.txt": "café\nno\n",
    "items.jsonl": '{"a": "café"}\n',
    "items.csv": "a,b\ncafé,2\n",
    "settings.toml": "# café\nmemory_fraction = 0.5\nparallel = true\n",
    "settings.yaml": "# café\nmemory_fraction: 0.5\nparallel: true\n",
    "profile.toml": "# café\npeak_memory = 1000000000\n",
    "points.json": '{"2": 82.98, "5": 153.94, "é": 1}',
    "host.toml": "# café\nformat = 1\n[host]\ncpu_count = 4\n",
}


def words_for(path):
    return {
        "items": ("batch", "jobs:echo", "--executor", "serial", "--items", path),
        "settings": ("workers", "--config", path),
        "profile": ("workers", "--profile", path),
        "points": ("sweep", "--from", path),
        "host": ("cores", "--host", path),
    }[path.stem]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(("encoding", "told"), OTHERS)
def test_another_encoding_is_named_with_what_converts_it(
    tmp_path, name, encoding, told
):
    path = tmp_path / name
    path.write_bytes(TEXTS[name].encode(encoding))
    (tmp_path / "jobs.py").write_text("def echo(item): return item")
    done = commands.call(tmp_path, *words_for(path))
    assert done.returncode == 2
    assert told in done.stderr
    assert "iconv -f" in done.stderr
    assert path.name in done.stderr


@pytest.mark.parametrize("name", TEXTS)
def test_a_mark_is_no_part_of_any_file(tmp_path, name):
    path = tmp_path / name
    text = TEXTS[name].replace(', "é": 1', "")
    path.write_bytes(MARK + text.encode())
    (tmp_path / "jobs.py").write_text("def echo(item): return item")
    done = commands.call(tmp_path, *words_for(path))
    assert (done.returncode, "ufeff" in done.stdout) == (0, False), done.stderr


@pytest.mark.parametrize("words", [("cores", "--host"), ("sweep", "--from")])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_standard_input_is_read_as_a_file_is(tmp_path, words, encoding):
    text = TEXTS["host.toml"] if words[0] == "cores" else '{"2": 82.98, "5": 153.94}'
    done = subprocess.run(
        [sys.executable, "-m", "coresize", *words, "-"],
        input=text.encode(encoding),
        env=commands.environment(tmp_path, None),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (0 if encoding == "utf-8-sig" else 2), done.stderr
    assert (b"UTF-16" in done.stderr) == (encoding == "utf-16")


@pytest.mark.parametrize("name", ["items.txt", "items.jsonl", "items.csv"])
def test_a_nul_is_refused_with_its_line(tmp_path, name):
    """Such as of ``find -print0``, whose names would be one item."""
    path = tmp_path / name
    path.write_bytes(b'"first"\n"name of\0a file"\n')
    with pytest.raises(ConfigError, match="without NUL characters: line 2 has one"):
        read_items(str(path))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_text_in_utf_8_is_what_it_is(text):
    text = text.removeprefix("\ufeff")
    assert decode(text.encode()) == decode(MARK + text.encode()) == text


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1))
@pytest.mark.parametrize("encoding", WIDE)
def test_no_other_encoding_is_taken_for_text(encoding, text):
    with pytest.raises(UnicodeError, match=encoding[:6].upper()):
        decode(text.encode(encoding))


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux")
def test_names_that_are_no_utf_8_keep_their_bytes(tmp_path):
    with contextlib.chdir(tmp_path):
        keep_odd_names(tmp_path)


def keep_odd_names(tmp_path):
    names = sorted([b"caf\xe9.dat", "naïve.dat".encode(), b"\xff\xfe.dat"])
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    items = read_items("@*.dat")
    for _start in range(2):  # the second reads what the first has written
        run = run_batch(os.fspath, items, executor="serial", journal="out.sqlite")
        values = [one.value for one in run]
        assert sorted(map(os.fsencode, values)) == names
    merge(["out.sqlite"], "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line)["value"] for line in lines]
    assert sorted(map(os.fsencode, values)) == names
    merge(["out.sqlite"], "out.csv")
    assert "caf\\udce9.dat" in (tmp_path / "out.csv").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux")
def test_in_the_locale_c_items_are_the_same(tmp_path):
    (tmp_path / "items.txt").write_bytes("café\n".encode())
    (tmp_path / "jobs.py").write_text("def echo(item): return ascii(item)")
    words = ("batch", "jobs:echo", "--executor", "serial", "--items", "items.txt")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = commands.run(tmp_path, *words, env=plain)
    assert json.loads(done.stdout)["value"] == r"'caf\xe9'"
