"""What is read from outside is wrong in every way: an error of ours, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys

import pytest
from chaos import batches
from chaos.harness import dice

from coresize import CoresizeError, available_cores, available_memory, plan_workers
from coresize.batch.journal import merge, overview, status
from coresize.batch.journal import reader as reading
from coresize.detection import environ
from coresize.executor import protocol
from coresize.planning.settings import NAMES as SETTINGS
from coresize.testing import container, use_host


# --- Frames ------------------------------------------------------------------------


def test_frames_arrive_whole_however_they_are_cut():
    number = dice("frames")
    for _ in range(100):
        payloads = [
            number.randbytes(number.choice([0, 1, 40, 4000, 70_000]))
            for _ in range(number.randrange(1, 6))
        ]
        sent = b"".join(
            part
            for payload in payloads
            for part in protocol.pack(protocol.VALUE, payload=payload)
        )
        cuts = sorted(number.sample(range(len(sent)), min(len(sent), 6)))
        assert _received(sent, cuts) == payloads


def _received(content, cuts):
    """The payloads that an inbox takes of a stream that comes in pieces."""
    there, here = socket.socketpair()
    inbox, found = protocol.Inbox(), []
    with there, here:
        for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
            piece = content[start:end]
            while piece:
                piece = piece[there.send(piece) :]
                here.settimeout(0)
                with contextlib.suppress(BlockingIOError):
                    while inbox.receive(here):
                        found += [message[-1] for message in inbox.messages()]
    return [bytes(payload) for payload in found]


# --- Files -------------------------------------------------------------------------


def _damage(content, number):
    """The content of a file as a bad disk, a full one or another program leaves it."""
    place = number.randrange(len(content))
    length = number.choice([1, 1, 8, 100, 4096])
    return number.choice(
        [
            content[:place],
            content[place:],
            content[:place] + number.randbytes(length) + content[place + length :],
            content[:place] + bytes(length) + content[place + length :],
            content[:place] + number.randbytes(length) + content[place:],
            content[:place] + content[place + length :],
            number.randbytes(min(len(content), 10_000)),
            b"",
        ]
    )


#: What reads a journal, and what may then be raised.
READERS = {
    "describe": reading.describe,
    "count": reading.count,
    "read": lambda path: list(reading.read(path)),
    "look": overview.look,
    "merge": lambda path: merge.merge([path], f"{path}.jsonl", allow_partial=True),
    "run": lambda path: batches.run(path, "serial", 8).wait(),
}


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    path = tmp_path_factory.mktemp("journals") / "whole.sqlite"
    batches.run(path, "serial", 8).wait()
    return path.read_bytes()


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_journal_is_an_error_that_names_it(tmp_path, journal, reader):
    number = dice(f"journals {reader}")
    wrong = {}
    for round_ in range(120):
        path = tmp_path / f"{round_}.sqlite"
        path.write_bytes(_damage(journal, number))
        try:
            READERS[reader](str(path))
        except CoresizeError as error:
            if path.name not in str(error):
                wrong[round_] = f"no name in {error}"
        except Exception as error:  # noqa: BLE001 - all of them are told
            wrong[round_] = repr(error)
    assert wrong == {}


@pytest.mark.parametrize("reader", READERS)
def test_a_journal_with_other_content_is_an_error_that_names_it(
    tmp_path, journal, reader
):
    """SQLite has nothing against it: each cell holds what it never should."""
    wrong = {}
    for round_, (table, column, value) in enumerate(_cells(tmp_path, journal)):
        path = tmp_path / f"{round_}.sqlite"
        path.write_bytes(journal)
        file = sqlite3.connect(path)
        with contextlib.suppress(sqlite3.IntegrityError), file:  # SQLite refuses it
            file.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", [value])
        file.close()
        try:
            READERS[reader](str(path))
        except CoresizeError as error:
            if path.name not in str(error):
                wrong[f"{table}.{column} = {value!r}"] = f"no name in {error}"
        except Exception as error:  # noqa: BLE001 - all of them are told
            wrong[f"{table}.{column} = {value!r}"] = repr(error)
    assert wrong == {}


def _cells(folder, journal):
    path = folder / "whole"
    path.write_bytes(journal)
    file = sqlite3.connect(path)
    names = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = [name for (name,) in names]
    for table in tables:
        for _, column, *_ in file.execute(f"PRAGMA table_info({table})").fetchall():
            for value in (None, "", "x", -1, 1.5, 2**62, b"\xff\x80", "[", "{}", "\0"):
                yield table, column, value
    file.close()


#: What JSON may hold where something else is wanted.
VALUES = [None, True, -1, 1e400, 0.5, 2**70, "", "x", "\udcff", [], [1], {}, {"a": 1}]


def test_a_status_file_of_another_shape_is_understood_or_an_error(tmp_path, journal):
    number = dice("status files")
    path = tmp_path / "run.sqlite"
    path.write_bytes(journal)
    beside = tmp_path / f"run.sqlite{status.SUFFIX}"
    names = [*overview.RunStatus.__slots__, "updated", "started", "other"]
    for _ in range(400):
        content = {
            name: number.choice([*VALUES, "running", os.getpid()])
            for name in number.sample(names, number.randrange(len(names)))
        }
        text = json.dumps(number.choice([content, content, content, *VALUES]))
        damaged = number.random() < 0.2
        beside.write_bytes(_damage(text.encode(), number) if damaged else text.encode())
        try:
            overview.table([overview.look(str(path))])
        except CoresizeError as error:
            assert beside.name in str(error) or path.name in str(error)


# --- Variables ------------------------------------------------------------------------


def test_any_variable_may_hold_anything():
    """What they hold is obeyed, passed over, or an error that names the variable."""
    number = dice("variables")
    names = sorted(environ.NAMES | SETTINGS - {"CORESIZE_CONFIG"})
    for _ in range(600):
        chosen = number.sample(names, number.randrange(1, 5))
        env = {name: _text(number) for name in chosen}
        with use_host(container(env=env)):
            for ask in (available_cores, available_memory, plan_workers):
                try:
                    assert ask() > 0
                except CoresizeError as error:
                    assert any(name in str(error) for name in env), (env, error)


def _text(number):
    whole = str(number.choice([0, 1, -1, 3, 10**9, 10**30]))
    parts = ["", " ", "x", "nan", "inf", "1e3", "٣", "²", "0x10", "GiB", "m", "%", ",",
             "-", "(x2)", "\n", "\0", "\udcff", "=", whole, whole]  # fmt: skip
    return "".join(number.choice(parts) for _ in range(number.randrange(4)))


@pytest.mark.skipif(sys.platform == "win32", reason="variables are text there")
def test_variables_that_are_no_text_are_passed_over_or_told():
    """A program with variables of bytes starts, and says what it says of others."""
    env = {
        **os.environb,
        b"CORESIZE_WORKERS": b"\xff\xfe",
        b"SLURM_CPUS_PER_TASK": b"\x80",
    }
    done = subprocess.run(
        [sys.executable, "-m", "coresize", "workers"],
        env=env,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1, 2)
    assert b"Traceback" not in done.stderr
