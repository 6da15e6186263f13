"""Arguments that are no error of type and yet not what was meant."""

from __future__ import annotations

import csv
import functools
import re
from pathlib import Path

import commands
import pytest

import coresize
from coresize import (
    ConfigError,
    ProcessPoolExecutor,
    SerialExecutor,
    TaskProfile,
    ThreadPoolExecutor,
    available_memory,
    limit_memory,
    parallel_map,
    plan_workers,
    profile_task,
    run_batch,
    sweep,
)
from coresize.batch.journal.merge import merge
from coresize.testing import container, use_host
from coresize.texts import format_left, format_short
from coresize.units import format_bytes, format_count


SMALL = [
    (4, '4 bytes; did you mean "4GB"?'),
    ("5", '5 bytes; did you mean "5GB"?'),
    (512, '512 bytes; did you mean "512MB"?'),
    (1, '1 byte; did you mean "1GB"?'),
    (2**20 - 1, "KiB; did you mean"),
]
PLACES = {
    "plan": lambda amount: plan_workers(memory=amount),
    "pool": lambda amount: ProcessPoolExecutor(1, memory=amount),
    "limit": lambda amount: limit_memory(SerialExecutor(), memory=amount),
    "batch": lambda amount: run_batch(abs, [1], memory=amount),
}


@pytest.mark.parametrize(("amount", "text"), SMALL)
@pytest.mark.parametrize("where", PLACES)
def test_a_small_number_without_a_unit_is_refused(where, amount, text):
    with pytest.raises(ConfigError) as caught:
        PLACES[where](amount)
    assert text in str(caught.value)


@pytest.mark.parametrize("name", ["peak_memory", "idle_memory", "shared_memory"])
@pytest.mark.parametrize(("amount", "text"), SMALL[:-1])
def test_so_is_one_of_a_profile(name, amount, text):
    with pytest.raises(ConfigError) as caught:
        TaskProfile(**{name: amount})
    assert text in str(caught.value)
    assert TaskProfile(peak_memory=4096).peak_memory == 4096


@pytest.mark.parametrize("amount", ["4KB", "100 B", 2**20, "1048577"])
def test_a_small_size_with_its_unit_is_none(amount):
    assert plan_workers(memory=amount) >= 1


def test_what_was_measured_may_be_small():
    profile = TaskProfile(peak_memory=8192, method="proc")
    with ProcessPoolExecutor(1, memory=profile) as pool:
        assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("name", ["CORESIZE_MAX_MEMORY", "CORESIZE_OVERRIDE_MEMORY"])
def test_so_is_one_in_a_variable(name):
    with use_host(container(env={name: "4"})), pytest.raises(ConfigError) as caught:
        available_memory()
    assert f"{name}='4'" in str(caught.value)
    assert 'did you mean "4GB"?' in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "workers --memory 4",
        "workers --config settings.toml --profile small",
        "workers --profile small.toml",
        "batch jobs:echo --items items.txt --memory 4",
        "batch jobs:echo --items items.txt --config batch.toml",
        "shards 2 --memory 4 -- true",
    ],
)
def test_so_is_one_of_a_command_or_a_file(tmp_path, words):
    (tmp_path / "settings.toml").write_text("[profiles.small]\npeak_memory = 4\n")
    (tmp_path / "small.toml").write_text("peak_memory = 4\n")
    (tmp_path / "batch.toml").write_text("memory = 4\n")
    (tmp_path / "items.txt").write_text("one\n")
    (tmp_path / "jobs.py").write_text("def echo(item): return item")
    done = commands.call(tmp_path, *words.split())
    assert done.returncode == 2
    assert 'did you mean "4GB"?' in done.stderr


# --- Functions that are async def -----------------------------------------------------


async def fetch(item):
    return item


async def generate(item):
    yield item


class Client:
    async def __call__(self, item):
        return item

    async def get(self, item):
        return item


ASYNC = {
    "coroutine": fetch,
    "generator": generate,
    "partial": functools.partial(fetch, 1),
    "object": Client(),
    "method": Client().get,
}
TAKERS = {
    "submit": lambda fn: ProcessPoolExecutor(1).submit(fn, 1),
    "map": lambda fn: ProcessPoolExecutor(1).map(fn, [1]),
    "threads": lambda fn: ThreadPoolExecutor(1).submit(fn, 1),
    "threads, map": lambda fn: ThreadPoolExecutor(1).map(fn, [1]),
    "serial": lambda fn: SerialExecutor().submit(fn, 1),
    "limited": lambda fn: limit_memory(SerialExecutor(), memory="1GB").submit(fn, 1),
    "initializer": lambda fn: ProcessPoolExecutor(1, initializer=fn),
    "run_batch": lambda fn: run_batch(fn, [1]),
    "parallel_map": lambda fn: parallel_map(fn, [1], executor="thread"),
    "profile_task": lambda fn: profile_task(fn, 1),
    "sweep": lambda fn: sweep(fn, [1], workers=[1]),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("kind", ASYNC)
def test_async_def_is_refused_with_advice(taker, kind):
    with pytest.raises(TypeError, match=r"async def.*asyncio\.run\("):
        TAKERS[taker](ASYNC[kind])


# --- Mappings in tables ---------------------------------------------------------------


def value_of(name):
    return VALUES[name]


VALUES = {
    "mapping": {"a": 1, "b": {"c": [2]}},
    "other": {"b": 'x, "y"', "=d": None, "status": "mine"},
    "number": 7,
    "empty": {},
}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_mapping_has_a_column_for_each_key(tmp_path, serializer):
    def table(names):
        journal = tmp_path / f"{len(names)}.sqlite"
        words = {"journal": journal, "serializer": serializer, "executor": "serial"}
        run_batch(value_of, names, **words).wait()
        output = tmp_path / "all.csv"
        merge([str(journal)], str(output), allow_pickle=True, csv_safe=True)
        with output.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    rows = table(["mapping", "other", "nowhere"])
    assert list(rows[0])[:7] == [
        *("key", "item", "status", "value.a", "value.b", "value.=d", "value.status")
    ]
    found = [(row["value.a"], row["value.b"], row["status"]) for row in rows]
    assert found == [
        ("1", '{"c": [2]}', "ok"),
        ("", 'x, "y"', "ok"),
        ("", "", "failed"),
    ]
    rows = table(["mapping", "number", "empty", "nowhere"])
    found = [(row["value"], row["value.a"]) for row in rows]
    assert found == [("", "1"), ("7", ""), ("{}", ""), ("", "")]
    assert "value.a" not in table(["number"])[0]


# --- Grammar --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (format_count(1, "worker"), "1 worker"),
        (format_count(1.5, "core"), "1.5 cores"),
        (format_count(1_000_000, "task"), "1000000 tasks"),
        (format_bytes(1), "1 byte"),
        (format_left(0.4), "1 s"),
        (format_left(600), "10.0 min"),
        (format_short(130e-6), "130 microseconds"),
        (format_short(9.96e-4), "1 millisecond"),
        (format_short(0.9999), "1 second"),
        (format_short(90), "90 seconds"),
    ],
)
def test_a_number_and_its_noun_agree(text, shown):
    assert text == shown


def test_no_message_puts_a_number_before_a_plural_of_workers_or_cores():
    """`format_count` does that; of a fraction of cores only the plural is right."""
    folder = Path(coresize.__file__).parent
    pattern = re.compile(r"f['\"].*\{\w+(\.\w+)?\} (workers|tasks|cores|jobs|kills)\b")
    allowed = (
        "workers > 1",
        "are the best",
        "of them",
        "workers are",
        "workers x",
        ".raw}",
    )
    found = [
        line.strip()
        for path in folder.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line) and not any(text in line for text in allowed)
    ]
    assert found == []
