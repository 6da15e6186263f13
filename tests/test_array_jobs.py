"""Array jobs that run again in part: never a wrong shard, and never one in silence."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_shards import sge, slurm

from coresize import ConfigError, run_batch
from coresize.batch.shards import find_shard
from coresize.testing import container, use_host


PBS = {"PBS_ARRAY_INDEX": "7"}
AWS = {"AWS_BATCH_JOB_ARRAY_INDEX": "7", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}


@pytest.mark.parametrize(
    ("env", "text"),
    [
        (slurm(7, 7, 7), "Slurm tells 7-7:1 alone, as of an array that runs again"),
        (slurm(8, 7, 9), "in part"),
        (slurm(3, 0, 5, 1, 3), "an array without gaps (Slurm runs 3 jobs)"),  # 0,3,5
        (slurm(4, 0, 8, 2), "Slurm tells 0-8:2 alone"),
        (sge(7, 7, 7), "Grid Engine tells 7-7:1 alone"),
        (sge(5, 1, 9, 4), "Grid Engine tells 1-9:4 alone"),
        (PBS, "CORESIZE_SHARDS='' is not valid"),
    ],
)
def test_a_part_of_an_array_is_refused_with_what_to_do(env, text):
    for variables, shard in ((env, "auto"), ({**env, "CORESIZE_SHARD": "auto"}, None)):
        with use_host(container(env=variables)), pytest.raises(ConfigError) as caught:
            find_shard(shard)
        assert text in str(caught.value)
        assert "CORESIZE_SHARDS" in str(caught.value)


@pytest.mark.parametrize(
    ("env", "indices", "place"),
    [
        (slurm(7, 7, 7), "0-9", "7/10"),
        (slurm(7, 7, 7), "1-10", "6/10"),
        (slurm(3, 0, 5, 1, 3), "0-9", "3/10"),
        (slurm(7, 7, 7), "1-10:3", "2/4"),
        (slurm(0, 0, 0), "10", "0/10"),
        (slurm(10, 10, 10), "10", "9/10"),
        (slurm(2, 1, 10), "10", "1/10"),
        (sge(5, 1, 9, 4), "1-9:4", "1/3"),
        (PBS, "0-9", "7/10"),
    ],
)
def test_the_indices_that_are_given_tell_the_place(env, indices, place):
    with use_host(container(env={**env, "CORESIZE_SHARDS": indices})):
        assert str(find_shard("auto")) == place


def test_a_count_alone_is_refused_where_the_array_may_begin_with_0_or_1():
    env = {**slurm(7, 7, 7), "CORESIZE_SHARDS": "10"}
    with use_host(container(env=env)), pytest.raises(ConfigError, match="0-3"):
        find_shard("auto")


def test_an_array_of_one_job_is_told(caplog):
    with use_host(container(env=slurm(0, 0, 0))), caplog.at_level(logging.WARNING):
        assert str(find_shard("auto")) == "0/1"
    assert "takes all items" in caplog.text
    assert "CORESIZE_SHARDS" in caplog.text


# --- What the journal of an earlier start knows -------------------------------------


def start(path, env, shard="auto"):
    with use_host(container(env=env)):
        run = run_batch(abs, range(20), shard=shard, journal=path, executor="serial")
        return sorted(one.index for one in run)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (slurm(7, 0, 9), slurm(7, 7, 7)),
        (slurm(7, 0, 9), slurm(7, 3, 7, 1, 2)),
        (slurm(2, 0, 9), slurm(2, 0, 2)),  # which alone looks like a whole array
        (slurm(0, 0, 9), slurm(0, 0, 0)),
        (slurm(7, 1, 10), slurm(7, 7, 7)),
        (sge(7, 1, 10), sge(7, 7, 7)),
        ({**PBS, "CORESIZE_SHARDS": "1-10"}, PBS),
        (AWS, {"AWS_BATCH_JOB_ARRAY_INDEX": "7", "AWS_BATCH_JOB_ARRAY_SIZE": "8"}),
        (slurm(7, 0, 9), slurm(7, 0, 9)),
    ],
)
def test_the_journal_of_the_first_start_knows_the_array(tmp_path, first, again):
    path = tmp_path / "out.sqlite"
    before = start(path, first)
    assert len(before) == 2
    assert start(path, again) == before


def test_a_shard_that_was_named_at_first_is_known_too(tmp_path):
    path = tmp_path / "out.sqlite"
    before = start(path, {}, shard="7/10")
    assert start(path, slurm(7, 7, 7)) == before


@pytest.mark.parametrize("again", [slurm(5, 5, 5), slurm(7, 7, 12)])
def test_a_journal_of_another_place_decides_nothing(tmp_path, again):
    path = tmp_path / "out.sqlite"
    start(path, slurm(7, 0, 9))
    with pytest.raises(ConfigError, match="the journal is of shard 7/10"):
        start(path, again)


INDICES = st.sets(st.integers(0, 30), min_size=1, max_size=12).map(sorted)


@given(INDICES, st.data())
def test_what_is_taken_for_a_whole_array_is_one(indices, data):
    """Slurm tells of any part of an array: least, largest, count, and the step 1."""
    index = data.draw(st.sampled_from(indices))
    env = slurm(index, indices[0], indices[-1], 1, len(indices))
    whole = indices[0] in (0, 1) and len(indices) == indices[-1] - indices[0] + 1
    with use_host(container(env=env)):
        if whole:
            shard = find_shard("auto")
            assert (shard.index, shard.count) == (index - indices[0], len(indices))
        else:
            with pytest.raises(ConfigError):
                find_shard("auto")
