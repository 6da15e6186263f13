"""What earlier runs took: recorded, predicted, shown, forgotten."""

from __future__ import annotations

import json
import math
import os
import random
import sqlite3
import sys

import numpy as np
import pytest
import tasks
from hypothesis import given
from hypothesis import strategies as st

from coresize import (
    ConfigError,
    CoresizeError,
    cli,
    detect,
    plan_workers,
    run_batch,
)
from coresize.planning.history import store
from coresize.planning.history.prediction import FEW, MARGIN, Predictor
from coresize.testing import container


@pytest.fixture
def environment():
    """Variables that are set until the test ends."""
    before = dict(os.environ)
    yield os.environ.update
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def state(tmp_path, environment):
    environment(XDG_STATE_HOME=str(tmp_path))
    return tmp_path / "coresize" / "history.sqlite"


def _seen(count, need, chance=None):
    chance = chance or random.Random(3)
    sizes = [chance.uniform(1, 100) for _ in range(count)]
    return [(size, int(need(size, chance))) for size in sizes]


LAWS = {
    "constant": lambda _size, _chance: 5_000_000,
    "linear": lambda size, chance: 1_000_000 * (50 + 2 * size + chance.gauss(0, 3)),
    "quadratic": lambda size, chance: 1e6 * (40 + size**2) * chance.uniform(0.9, 1.1),
    "bimodal": lambda size, chance: (
        1e6 * (9 + size) * (5 if chance.random() < 0.3 else 1)
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_fewer_than_two_in_a_hundred_need_more_than_predicted(law):
    chance = random.Random(11)
    seen, others = (_seen(1000, LAWS[law], chance) for _ in range(2))
    by = Predictor(seen)
    under = sum(by.predict(size).need < peak for size, peak in others)
    assert under / len(others) < 0.02


@pytest.mark.parametrize("period", [2, 3, 4])
@pytest.mark.parametrize("turn", [0, 1])
def test_kinds_of_tasks_that_take_turns_are_both_seen(period, turn):
    peaks = [10**9 if n % period == turn else 10**8 for n in range(200)]
    predictions = [Predictor([(1.0, peak) for peak in peaks]).predict(1) for _ in "12"]
    assert predictions[0] == predictions[1]
    assert predictions[0].need >= 10**9


#: (how many are seen, the largest of their sizes, the size asked for, how it is told)
METHODS = [
    (5, 5.0, 5, "largest seen"),
    (5, 5.0, 1000, "largest seen, extrapolated"),
    (5, None, 1000, "largest seen"),
    (40, 5.0, 5, "conformal"),
    (40, 5.0, 6, "extrapolated"),
    (40, 0.0, 1, "extrapolated"),
    (40, None, None, "quantile"),
    (40, None, 6, "largest seen"),
]


@pytest.mark.parametrize(("count", "largest", "size", "method"), METHODS)
def test_a_prediction_says_how_it_was_made(count, largest, size, method):
    assert Predictor([(largest, 10**6)] * count).predict(size).method == method


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.integers(1, 2**40)), min_size=1, max_size=80
    ),
    st.floats(0, 1e7),
)
def test_a_prediction_is_lawful_whatever_was_seen(seen, size):
    found = Predictor(seen).predict(size)
    assert found.tasks == len(seen)
    assert found.need > 0
    if len(seen) < FEW:
        assert found.need >= max(peak for _, peak in seen) * MARGIN


@given(st.lists(st.integers(1, 2**40), min_size=1))
def test_without_sizes_the_upper_quantile_counts(peaks):
    found = Predictor([(None, peak) for peak in peaks]).predict(None)
    under = sum(peak * MARGIN > found.need for peak in peaks)
    assert under <= 0.01 * (len(peaks) + 1)


# --- Recording ------------------------------------------------------------------


def test_nothing_is_recorded_unless_it_is_asked_for(state):
    run_batch(tasks.array_for_a_moment, [1, 2], max_workers=1).wait()
    assert not state.exists()


@pytest.mark.parametrize("asked", ["argument", "setting"])
def test_a_batch_records_what_its_tasks_took(asked, environment):
    if asked == "setting":
        environment(CORESIZE_HISTORY="1")
    given_ = {"history": True} if asked == "argument" else {}
    run_batch(tasks.array_for_a_moment, [10, 20, 30], max_workers=1, **given_).wait()
    seen = store.recall("tasks:array_for_a_moment")
    assert [one.size for one in seen] == [10, 20, 30]
    assert seen[2].peak_memory > seen[0].peak_memory > 10_000_000
    assert {one.workers for one in seen} == {1}


@pytest.mark.flaky(reruns=2)  # it measures
@pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")
def test_waiting_for_a_core_is_no_time_of_a_task():
    # Eight that compute: with fewer cores each has one for a part of its time.
    outcomes = list(run_batch(tasks.spin, [0.2] * 8, max_workers=8, history=True))
    for one in outcomes:
        assert 0 <= one.waited <= one.wall
    # Of one that nothing else has held up, such as a machine that stands still.
    least = min((one.wall - one.waited) / one.cpu for one in outcomes)
    assert least == pytest.approx(1, rel=0.4)
    plan = plan_workers(
        profile="history:tasks:spin", limits=detect(container(cpus=8, memory="1TiB"))
    )
    # About a core each, and not the share that they had.
    cpu, wall = (
        sum(getattr(one, name) for one in outcomes) for name in ("cpu", "wall")
    )
    waited = sum(one.waited for one in outcomes)
    assert plan.workers <= max(11, 8 * (wall - waited / 2) / cpu)


@pytest.mark.parametrize("odd", ["20MB", -1, float("nan"), 10**400, None, [1]])
def test_an_odd_size_is_unknown_and_said_once(odd, caplog):
    run_batch(
        tasks.take, [1, 1], max_workers=1, history=True, item_size=lambda _: odd
    ).wait()
    assert [one.size for one in store.recall("tasks:take")] == [None, None]
    told = [text for text in caplog.messages if "the size of an item" in text]
    assert len(told) == (odd is not None)
    assert plan_workers(profile="history:tasks:take", item_size=np.int64(5)) >= 1


@pytest.mark.parametrize("executor", ["thread", "serial"])
def test_it_is_said_when_nothing_can_be_recorded(executor, caplog):
    run_batch(tasks.take, [1], executor=executor, history=True).wait()
    (told,) = caplog.messages
    assert told.startswith("history: nothing is recorded of tasks:take: ")


@pytest.mark.flaky(reruns=2)  # it measures
@pytest.mark.skipif(sys.platform != "linux", reason="told by the kernel")
def test_a_crowd_of_short_tasks_has_a_core_each():
    run_batch(tasks.spin, [0.02] * 60, max_workers=16, history=True).wait()
    plan = plan_workers(
        profile="history:tasks:spin", limits=detect(container(cpus=8, memory="1TiB"))
    )
    assert 8 <= plan.workers <= 12


def test_planning_goes_by_what_was_recorded():
    rows = [(float(n), 1_000_000_000 * n, 2.0, 1.0) for n in range(1, 41)]
    store.record("mine", rows, workers=2, throughput=1.0)
    small, large = (
        plan_workers(profile="history:mine", item_size=size) for size in (2, 1000)
    )
    assert large.memory_per_worker > 900 * 10**9
    assert small.memory_per_worker < 3 * 10**9
    assert small.warnings == ()
    assert "extrapolated to 25 times the largest size that was" in large.warnings[0]
    with pytest.raises(ConfigError, match=r'recorded \("mine"\)'):
        plan_workers(profile="history:other")
    store.record("few", rows[:5], workers=2, throughput=1.0)
    far = plan_workers(profile="history:few", item_size=1000)
    assert "largest seen, extrapolated to 200 times the largest" in far.warnings[0]


def test_the_latest_and_the_largest_are_kept():
    rows = [(None, peak, 1.0, 1.0) for peak in (10**12, *range(1, 12_000))]
    store.record("mine", rows, workers=1, throughput=1.0)
    seen = store.recall("mine")
    assert len(seen) == 10_001
    assert max(one.peak_memory for one in seen) == 10**12


@pytest.mark.parametrize("size", [-1, math.nan, math.inf, "20MB", [1], 10**400])
def test_a_size_is_a_number(size):
    store.record("mine", [(1.0, 1, 1.0, 1.0)], workers=1, throughput=1.0)
    with pytest.raises(ConfigError, match=r"^item_size=.* use a number, 0 or above"):
        plan_workers(profile="history:mine", item_size=size)


def test_a_folder_that_cannot_be_used(environment, tmp_path):
    (tmp_path / "file").touch()
    environment(XDG_STATE_HOME=str(tmp_path / "file"))
    with pytest.raises(CoresizeError, match="set XDG_STATE_HOME to a folder that can"):
        store.names()


def test_a_file_of_other_tables_is_named(state):
    state.parent.mkdir()
    file = sqlite3.connect(state)
    file.execute("CREATE TABLE tasks (name TEXT)")
    file.close()
    with pytest.raises(CoresizeError, match=r"no such column.* remove it to"):
        store.names()


def test_a_file_that_is_none_is_named(state):
    state.parent.mkdir()
    state.write_text("no database, but a text that is long enough to be read as one")
    with pytest.raises(CoresizeError, match=r"history .*remove it to begin anew"):
        store.names()


def test_the_command_shows_exports_and_forgets(capsys):
    rows = [(float(n), 1_000_000, 2.0, 1.0) for n in range(3)]
    store.record("mine", rows, workers=2, throughput=1.0)
    assert cli.main(["history"]) == 0
    assert "       3   976.6 KiB  mine" in capsys.readouterr().out
    assert cli.main(["history", "mine", "--size", "2"]) == 0
    assert "largest seen, margin 10 %" in capsys.readouterr().out
    assert cli.main(["history", "mine", "--size", "nan"]) == 2
    assert "item_size=nan is not valid" in capsys.readouterr().err
    assert cli.main(["history", "--all"]) == 2
    assert "with --forget" in capsys.readouterr().err
    for words in (["--size", "5"], ["--forget"], ["mine", "--forget", "--all"]):
        assert cli.main(["history", *words]) == 2
        assert "with a function" in capsys.readouterr().err
    for words in (["--export", "--forget"], ["--export", "--size", "4"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["history", "mine", *words])
        assert "not allowed with argument --" in capsys.readouterr().err
    for words in (["--forget"], ["--export"], []):
        assert cli.main(["history", "other", *words]) == 2
        assert 'recorded ("mine")' in capsys.readouterr().err
    assert cli.main(["history", "--export"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["size"] for line in lines] == [0, 1, 2]
    assert cli.main(["history", "mine", "--forget"]) == 0
    assert "deleted the history of 3 tasks of mine" in capsys.readouterr().out
    store.record("mine", rows, workers=2, throughput=1.0)
    assert cli.main(["history", "--forget", "--all"]) == 0
    assert "deleted the history of 3 tasks" in capsys.readouterr().out
    assert cli.main(["history"]) == 0
    assert "nothing is recorded" in capsys.readouterr().out
