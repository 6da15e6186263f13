"""Shards: which part of a batch is done where, and all of them as one."""

from __future__ import annotations

import csv
import functools
import json
import pickle

import pytest
import tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from coresize import ConfigError, JournalError, Shard, run_batch
from coresize.batch.journal import reader
from coresize.batch.journal.merge import merge
from coresize.batch.shards import find_shard
from coresize.errors import MergeError
from coresize.testing import container, use_host


# --- Which part ---------------------------------------------------------------

COUNTS = st.integers(1, 12)
KEYS = st.lists(st.text(max_size=8), unique=True, max_size=60)


def parts(count, by="index"):
    return [Shard(f"{index}/{count}", by=by) for index in range(count)]


@given(keys=KEYS, count=COUNTS, by=st.sampled_from(["index", "key"]))
def test_each_item_is_of_exactly_one_shard(keys, count, by):
    for index, key in enumerate(keys):
        assert sum(shard.takes(index, key) for shard in parts(count, by)) == 1


@given(keys=KEYS, count=COUNTS, more=KEYS, data=st.data())
def test_by_key_no_item_moves_when_others_are_added(keys, count, more, data):
    longer = data.draw(st.permutations(list(dict.fromkeys([*keys, *more]))))
    places = {key: index for index, key in enumerate(longer)}
    for shard in parts(count, "key"):
        for index, key in enumerate(keys):
            assert shard.takes(index, key) == shard.takes(places[key], key)


@given(size=st.integers(0, 200), count=COUNTS)
def test_by_index_shards_are_as_large_as_each_other(size, count):
    sizes = [sum(map(shard.takes, range(size))) for shard in parts(count)]
    assert max(sizes) - min(sizes) <= 1


@given(keys=KEYS, count=st.integers(1, 4), by=st.sampled_from(["index", "key"]))
def test_a_batch_runs_the_items_of_its_shard(keys, count, by):
    seen = []
    for shard in parts(count, by):
        run = run_batch(
            str.upper, keys, executor="serial", key=repr, shard=shard, progress=False
        )
        outcomes = list(run)
        assert run.report.total == len(outcomes)
        seen += [(one.index, one.value) for one in outcomes]
    assert sorted(seen) == [(index, key.upper()) for index, key in enumerate(keys)]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", '"i/n", the part i of n'),
        ("1", '"i/n"'),
        ("a/b", '"i/n"'),
        ("1/", '"i/n"'),
        ("1/2/3", '"i/n"'),
        ("1.0/2", '"i/n"'),
        ("\u0661/2", '"i/n"'),
        ("0/0", "n above 0"),
        ("0/-1", "n above 0"),
        ("-1/4", '"0/4" to "3/4": parts are counted from 0'),
        ("5/4", '"0/4" to "3/4": parts are counted from 0'),
        ("4/4", "tools that count from 1 call the last of them 4/4"),
        (3, '"i/n"'),
    ],
)
def test_a_text_that_is_no_shard_is_an_error(text, allowed):
    with pytest.raises(ConfigError) as caught:
        Shard(text)
    assert allowed in str(caught.value)


def test_a_shard_is_a_value():
    shard = Shard(" 1/4 ", by="key")
    assert (shard.index, shard.count, shard.by, str(shard)) == (1, 4, "key", "1/4")
    assert pickle.loads(pickle.dumps(shard)) == shard
    assert shard != Shard("1/4")
    with pytest.raises(ConfigError, match="shard_by='name'"):
        Shard("1/4", by="name")


# --- Of array jobs ------------------------------------------------------------


def slurm(index, first, last, step=1, count=None):
    count = (last - first) // step + 1 if count is None else count
    return {
        "SLURM_ARRAY_TASK_ID": str(index),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_MAX": str(last),
        "SLURM_ARRAY_TASK_STEP": str(step),
        "SLURM_ARRAY_TASK_COUNT": str(count),
    }


def sge(index, first, last, step=1):
    return {
        "SGE_TASK_ID": str(index),
        "SGE_TASK_FIRST": str(first),
        "SGE_TASK_LAST": str(last),
        "SGE_TASK_STEPSIZE": str(step),
    }


NO_SGE = dict.fromkeys(sge(0, 0, 0), "undefined")


@pytest.mark.parametrize(
    ("env", "place"),
    [
        (slurm(0, 0, 3), "0/4"),
        (slurm(4, 1, 4), "3/4"),
        (sge(1, 1, 8), "0/8"),
        ({**NO_SGE, **slurm(1, 0, 1)}, "1/2"),
        ({"PBS_ARRAY_INDEX": "3", "CORESIZE_SHARDS": "1-4"}, "2/4"),
        ({"PBS_ARRAYID": "10", "CORESIZE_SHARDS": "1-10:3"}, "3/4"),
        ({"LSB_JOBINDEX": "2", "CORESIZE_SHARDS": "1-4"}, "1/4"),
        ({"LSB_JOBINDEX": "0", **slurm(1, 0, 1)}, "1/2"),
        (
            {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "10"},
            "3/10",
        ),
        ({"JOB_COMPLETION_INDEX": "2", "CORESIZE_SHARDS": "5"}, "2/5"),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "2"}, "0/2"),
        # What the user says goes before what the scheduler says.
        ({**slurm(4, 4, 8, 1, 3), "CORESIZE_SHARDS": "4-8:2"}, "0/3"),
    ],
)
def test_an_array_job_knows_its_part(env, place):
    with use_host(container(env=env)):
        assert str(find_shard("auto")) == place
        assert find_shard(None) is None
    with use_host(container(env={**env, "CORESIZE_SHARD": "auto"})):
        assert str(find_shard(None, by="key")) == place


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({}, "this is no array job, since none of SLURM_ARRAY_TASK_ID"),
        (NO_SGE, "this is no array job"),
        ({"LSB_JOBINDEX": "0"}, "this is no array job"),
        (
            {**slurm(1, 0, 1), **sge(1, 1, 2)},
            "SLURM_ARRAY_TASK_ID and SGE_TASK_ID are set, and which of them counts",
        ),
        # --array=1,3,7: the step that Slurm tells is 1.
        (slurm(3, 1, 7, 1, 3), "an array without gaps (Slurm runs 3 jobs)"),
        (slurm("x", 0, 3), "SLURM_ARRAY_TASK_ID='x'"),
        (slurm(9, 0, 3), "one of the array's 0-3:1"),
        (slurm(2, 1, 9, 4), "one of the array's 1-9:4"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN=''"),
        (slurm(1, 1, 3, 0, 3), "an array without gaps"),
        ({"PBS_ARRAY_INDEX": "3"}, "CORESIZE_SHARDS='' is not valid"),
        ({"PBS_ARRAYID": "3"}, "Torque does not tell"),
        ({"LSB_JOBINDEX": "3"}, "LSF does not tell"),
        ({"PBS_ARRAY_INDEX": "3", "CORESIZE_SHARDS": "4"}, 'such as "0-3", "1-4"'),
        ({"PBS_ARRAY_INDEX": "3", "CORESIZE_SHARDS": "4-1"}, "CORESIZE_SHARDS='4-1'"),
        ({"PBS_ARRAY_INDEX": "3", "CORESIZE_SHARDS": "1-4:0"}, "CORESIZE_SHARDS="),
        ({"PBS_ARRAY_INDEX": "3", "CORESIZE_SHARDS": "1-4:x"}, "CORESIZE_SHARDS="),
        ({"PBS_ARRAY_INDEX": "5", "CORESIZE_SHARDS": "1-4"}, "PBS_ARRAY_INDEX='5'"),
        ({"JOB_COMPLETION_INDEX": "2"}, "how many there are: Kubernetes does not tell"),
        ({"JOB_COMPLETION_INDEX": "5", "CORESIZE_SHARDS": "5"}, "0-4:1"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1"}, "AWS_BATCH_JOB_ARRAY_SIZE=''"),
    ],
)
def test_where_the_part_cannot_be_told_it_is_asked_for(env, text):
    with use_host(container(env=env)), pytest.raises(ConfigError) as caught:
        find_shard("auto")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "variable", "found"),
    [
        (None, None, None),
        (None, "1/2", "1/2"),
        ("0/3", "1/2", "0/3"),
        (Shard("2/3"), "1/2", "2/3"),
    ],
)
def test_what_is_given_goes_before_the_variable(given_, variable, found):
    env = {} if variable is None else {"CORESIZE_SHARD": variable}
    shard = find_shard(given_, host=container(env=env))
    assert (None if shard is None else str(shard)) == found


# --- All of them as one -------------------------------------------------------

SCALED = functools.partial(tasks.scaled, factor=3)
#: What differs between two runs of the same.
OWN = ("wall", "cpu", "worker", "ended", "traceback")


def start(path, items, shard=None, function=SCALED, **words):
    words = {"executor": "serial", "progress": False, **words}
    run_batch(function, items, journal=path, shard=shard, **words).wait()
    return str(path)


def rows(path):
    return [
        {name: value for name, value in row.items() if name not in OWN}
        for row in reader.read(str(path))
    ]


@pytest.fixture
def journals(tmp_path):
    """Of three shards of ten items."""
    return [
        start(tmp_path / f"{index}.sqlite", range(10), f"{index}/3")
        for index in range(3)
    ]


@pytest.mark.parametrize("by", ["index", "key"])
@settings(max_examples=12)  # it writes durably
@given(size=st.integers(0, 25), count=st.integers(1, 4), data=st.data())
def test_merged_shards_are_the_whole_run(tmp_path_factory, by, size, count, data):
    folder = tmp_path_factory.mktemp("merged")
    words = {"function": tasks.square_unless_odd, "shard_by": by, "key": str}
    paths = [
        start(folder / f"{shard.index}.sqlite", range(size), str(shard), **words)
        for shard in parts(count)
    ]
    whole = start(folder / "whole.sqlite", range(size), **words)
    output = str(folder / "all.sqlite")
    merged = merge(data.draw(st.permutations(paths)), output)
    assert (merged.tasks, merged.problems) == (size, ())
    assert rows(output) == rows(whole)
    assert reader.describe(output) == reader.describe(whole)


def test_a_merged_journal_is_gone_on_with(tmp_path, journals):
    output = tmp_path / "all.sqlite"
    merge(journals, str(output))
    words = {"executor": "serial", "progress": False, "journal": output}
    outcomes = list(run_batch(SCALED, range(11), **words))
    assert [one.status for one in outcomes] == ["skipped"] * 10 + ["ok"]


def _without_one(journals, _folder):
    return journals[:2]


def _one_twice(journals, _folder):
    return [*journals, journals[0]]


def _of_another_function(journals, folder):
    return [*journals[:2], start(folder / "x", range(10), "2/3", tasks.square)]


def _of_other_arguments(journals, folder):
    other = functools.partial(tasks.scaled, factor=4)
    return [*journals[:2], start(folder / "x", range(10), "2/3", other)]


def _of_another_count(journals, folder):
    return [*journals[:2], start(folder / "x", range(10), "2/4")]


def _by_key(journals, folder):
    return [*journals[:2], start(folder / "x", range(10), "2/3", shard_by="key")]


def _pickled(journals, folder):
    return [*journals[:2], start(folder / "x", range(10), "2/3", serializer="pickle")]


def _of_a_longer_input(journals, folder):
    return [*journals[:2], start(folder / "x", range(13), "2/3")]


def _of_other_items(journals, folder):
    return [*journals[:2], start(folder / "x", [0, 3, 6], "0/1")]


def _same_keys(journals, folder):
    return [*journals[:2], start(folder / "x", [5, 4, 1], "2/3")]


def _left_early(journals, folder):
    words = {"executor": "serial", "progress": False, "shard": "2/3"}
    path = str(folder / "x")
    with run_batch(SCALED, range(10), journal=path, **words) as run:
        next(iter(run))
    return [*journals[:2], path]


WRONG = [
    (_of_another_function, "is of function 'tasks:scaled', "),
    (_of_other_arguments, " have other arguments bound to its function"),
    (_of_another_count, "is shard 1/3 but "),
    (_by_key, "is of shard_by 'index', "),
    (_pickled, "is of serializer 'json', "),
    (_of_other_items, "is shard 1/3 but "),
    (_one_twice, "4 keys are twice: '0' in "),
    (_same_keys, "1 keys are twice: '1' in "),
]
PARTIAL = [
    (_without_one, "no journal of shard 2/3; 3 items (counted from 0) were not begun"),
    (_of_a_longer_input, "the inputs differ: 10 items in "),
    (_left_early, "2 items (counted from 0) were not begun: 5, 8"),
]


@pytest.mark.parametrize(("make", "text"), WRONG + PARTIAL)
def test_what_is_not_whole_is_refused_and_named(tmp_path, journals, make, text):
    output = tmp_path / "all.sqlite"
    with pytest.raises(MergeError) as caught:
        merge(make(journals, tmp_path), str(output))
    assert text in str(caught.value)
    assert caught.value.problems
    assert caught.value.partial == ((make, text) in PARTIAL)
    assert "no more" not in str(caught.value)  # what is twice is not stale as well
    assert not output.exists()


@pytest.mark.parametrize(("make", "text"), PARTIAL)
def test_a_part_is_merged_when_that_is_allowed(tmp_path, journals, make, text):
    output = tmp_path / "all.sqlite"
    merged = merge(make(journals, tmp_path), str(output), allow_partial=True)
    assert text.split("; ")[0] in "; ".join(merged.problems)
    assert len(rows(output)) == merged.tasks >= 7


@pytest.mark.parametrize(("make", "text"), WRONG)
def test_what_contradicts_is_never_merged(tmp_path, journals, make, text):
    with pytest.raises(MergeError, match="make no whole run") as caught:
        merge(make(journals, tmp_path), str(tmp_path / "all"), allow_partial=True)
    assert text in str(caught.value)


def test_a_journal_is_not_written_over_what_it_is_made_of(tmp_path, journals):
    with pytest.raises(MergeError, match="is one of them: write to another file"):
        merge(journals, str(tmp_path / ".." / tmp_path.name / "1.sqlite"))
    with pytest.raises(MergeError, match="no journal is named"):
        merge([], "all.sqlite")
    with pytest.raises(JournalError, match="there is no such file"):
        merge([*journals[:2], "nowhere.sqlite"], "all.sqlite")


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "csv"])
def test_tasks_are_written_as_such_by_the_suffix(tmp_path, suffix, serializer):
    values = {"a": [1, {"b": 2}], "b": 1.5, "c": 'a, "b"\n', "d": 7}
    function = tasks.table(values)
    words = {"function": function, "serializer": serializer}
    path = start(tmp_path / "one.sqlite", ["a", "b", "c", "x", "d"], **words)
    output = tmp_path / f"all.{suffix}"
    assert merge([path], str(output), allow_pickle=True).tasks == 5
    if suffix == "csv":
        with output.open(newline="") as file:
            found = list(csv.DictReader(file))
        values = ['[1, {"b": 2}]', "1.5", 'a, "b"\n', "", "7"]
        items = ["0", "1", "2", "3", "4"]
    else:
        found = list(map(json.loads, output.read_text().splitlines()))
        values = [[1, {"b": 2}], 1.5, 'a, "b"\n', None, 7]
        items = [0, 1, 2, 3, 4]
    assert [row["value"] for row in found] == values
    assert [row["item"] for row in found] == items
    assert [row["key"] for row in found] == ["a", "b", "c", "x", "d"]
    assert [row["status"] for row in found] == ["ok", "ok", "ok", "failed", "ok"]
    assert found[3]["error"] == "KeyError: 'x'"


def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path, journals):
    for name in ("all.csv", "all.sqlite"):
        with pytest.raises(JournalError, match="No such file"):
            merge(journals, str(tmp_path / "nowhere" / name))
    assert len(list(tmp_path.glob("*all*"))) == 0
