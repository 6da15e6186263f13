"""Sweeps: what is recommended of what was measured, and measuring."""

from __future__ import annotations

import functools
import json
import math
import signal
import subprocess
import sys
import time

import commands
import numpy as np
import pytest
import tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from coresize import ConfigError, CoresizeError, plan_workers, processes, sweep
from coresize.cli import main
from coresize.sweeping import advice, usl
from coresize.sweeping.measurements import Trial
from coresize.sweeping.result import conclude, from_points
from coresize.sweeping.rounds import Rounds
from coresize.sweeping.sweep import rounds_of_command
from coresize.testing import container, use_host


#: Runs a second by number of workers, as users have measured them:
#: (points, what may be recommended, a part of the reason)
MEASURED = {
    "64 cores": (
        {2: 82.98, 5: 153.94, 10: 171.64, 20: 151.97, 60: 140.57, 64: 140.47},
        {8, 9, 10},
        "has its peak at",
    ),
    "252 cores": (
        {5: 162.16, 10: 172.60, 20: 180.29, 252: 138.33},
        {10},
        "within 4.3% of the best, 20",
    ),
    "20 cores": (
        {5: 175.63, 10: 206.38, 20: 238.54},
        {20},
        "not enough points for a law (3 of 4). 20 is the most that was measured",
    ),
    "Docker": (
        {4: 41.67, 8: 61.31, 20: 56.75, 64: 9.51, 128: 9.41},
        {8, 9, 10},
        "has its peak at 10.3",
    ),
}


@pytest.mark.parametrize("name", MEASURED)
def test_what_users_have_measured(name):
    points, wanted, text = MEASURED[name]
    result = from_points(points, "test")
    assert result.recommended in wanted
    assert text in result.reason
    assert (result.model is None) == (len(points) < usl.LEAST_POINTS)
    assert str(result.recommended) in str(result)


def test_a_peak_outside_of_what_was_measured_is_an_extrapolation():
    law = usl.Model(a=0.0, b=0.0001, single=10.0, peak=None)
    points = {n: law.throughput(n) for n in (1, 2, 4, 8)}
    assert advice.advise(points).model.peak == pytest.approx(100, rel=0.01)
    assert "an extrapolation" in advice.advise(points).reason
    linear = advice.advise({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
    assert linear.model.peak is None
    assert linear.reason.endswith("The fitted law only rises.")


#: (points, bound, recommended, best, part of the reason)
BOUND = [
    ({1: 10.0, 2: 19.0, 4: 35.0}, 2, 2, 4, "Memory has room for 2; 4 had 84% more."),
    ({1: 10.0, 2: 19.0, 4: 12.0}, 2, 2, 2, "Memory has room for 2."),
    ({1: 10.0, 2: 10.4, 4: 35.0}, 3, 1, 4, "within 3.8% of the best, 2"),
    ({4: 10.0, 8: 19.0}, 1, 1, 8, "No measured count fits. Memory has"),
    ({4: 10.0, 8: 12.0}, 2, 2, 8, "count fits. Memory has room for 2."),
    ({4: 10.0}, 0, 1, 4, "count fits. Memory has room for 0."),
    ({4: 10.0, 8: 19.0}, 8, 8, 8, "8 workers are the best measured."),
]


@pytest.mark.parametrize(("points", "bound", "recommended", "best", "text"), BOUND)
def test_memory_bounds_what_is_recommended(points, bound, recommended, best, text):
    found = advice.advise(points, bound)
    assert (found.recommended, found.best) == (recommended, best)
    assert text in found.reason


# --- Laws ---------------------------------------------------------------------

coefficients = st.just(0.0) | st.floats(1e-4, 1.0)
counts = st.sets(st.integers(3, 200), min_size=3, max_size=8).map(lambda s: {1, *s})
rates = st.floats(1e-3, 1e6)
measured = st.dictionaries(st.integers(1, 500), rates, min_size=1, max_size=10)


@given(a=coefficients, b=coefficients, single=rates, counts=counts)
def test_a_law_is_found_again_in_its_own_points(a, b, single, counts):
    law = usl.Model(a=a, b=b, single=single, peak=None)
    found = usl.fit({n: law.throughput(n) for n in counts})
    assert found.a == pytest.approx(a, rel=1e-3, abs=1e-5)
    assert found.b == pytest.approx(b, rel=1e-3, abs=1e-5)
    assert found.single == pytest.approx(single, rel=1e-3)


@given(measured)
def test_no_coefficient_is_negative(points):
    found = usl.fit(points)
    assert (found is None) == (len(points) < usl.LEAST_POINTS)
    if found:
        assert min(found.a, found.b) >= 0
        assert found.single > 0
        assert math.isfinite(found.throughput(7))
        assert found.peak is None or found.peak >= 1


@given(st.dictionaries(st.integers(1, 500), st.floats(5e-324, 1e15), min_size=1))
def test_any_lawful_points_have_an_answer(points):
    assert str(from_points(points, "test"))


@settings(max_examples=150)
@given(measured, st.none() | st.integers(1, 500))
def test_what_is_recommended(points, bound):
    found = advice.advise(points, bound)
    assert points[found.best] == max(points.values())
    assert found.reason.endswith(".")
    fit = [n for n in points if bound is None or n <= bound]
    if not fit:
        assert found.recommended == bound
        return
    enough = 0.95 * max(points[n] for n in fit)
    assert found.recommended in fit
    assert points[found.recommended] >= enough
    assert all(points[n] < enough for n in fit if n < found.recommended)


# --- Rounds -------------------------------------------------------------------


def run(subject, counts, **options):
    return Rounds(subject, counts, **options).run()


def run_command(words, counts, **options):
    return rounds_of_command(words, counts, **options).run()


#: In place of a rate: it ran out of time.
LATE = -1


class Subject:
    """One whose numbers are known."""

    def __init__(self, rates, unit="tasks", **details):
        self.rates = rates
        self.unit = unit
        self.threads = details.pop("threads", False)
        self.details = details
        self.asked = []

    def serial(self):
        return self._next(1, "serial", self.rates.get("serial", self.rates.get(1, 1.0)))

    def run(self, workers):
        return self._next(workers, workers, self.rates[workers])

    def _next(self, workers, name, rates):
        """One rate, or one for each round."""
        turn = self.asked.count(name)
        self.asked.append(name)
        return self._trial(workers, rates[turn] if isinstance(rates, list) else rates)

    def _trial(self, workers, rate):
        cores = self.details.get("cores", 1.0)
        known = {
            "startup": 0.0,
            "cores": cores,
            "throttled": 0.0,
            "swapped": 0,
            "failed": 0.0,
        }
        return Trial(
            workers=workers,
            throughput=max(0, rate),
            peak_memory=self.details.get("peak_memory"),
            error={0: "killed for memory", LATE: "took longer"}.get(rate, ""),
            late=rate == LATE,
            **known,
        )


RISE_AND_FALL = {1: 10, 2: 19, 4: 30, 8: 25, 16: 20, 32: 40, 64: 50}


def test_it_goes_up_and_down_and_stops_when_throughput_falls_twice():
    subject = Subject(RISE_AND_FALL)
    result = run(subject, list(RISE_AND_FALL), repeat=2, progress=None)
    up, down = [1, 2, 4, 8, 16], [16, 8, 4, 2, 1]
    assert subject.asked == ["serial", *up, "serial", *down]
    assert (result.recommended, [row.workers for row in result.rows]) == (4, up)


#: What is no reason to stop, and what is: (rates, the last that is tried, recommended)
STOPS = {
    "one fall": ({1: 10, 2: 19, 3: 15, 4: 14.5, 6: 30}, None, 6),
    "noise": ({1: 10, 2: 9.99, 3: 9.98, 4: 9.97, 6: 9.6, 8: 40}, None, 8),
    "two falls": ({1: 10, 2: 9, 3: 8, 4: 40}, 3, 1),
    "no time with few": ({1: LATE, 2: LATE, 4: LATE, 8: 1, 16: 2}, None, 16),
    "no time with few, then falls": ({1: LATE, 2: 4, 4: 3, 8: 2, 16: 2}, 8, 2),
    "no time with many": ({1: 2, 2: 4, 4: LATE, 8: LATE, 16: 1}, 8, 2),
}


@pytest.mark.parametrize("name", STOPS)
def test_it_stops_when_throughput_falls_twice_and_says_so(name):
    rates, last, recommended = STOPS[name]
    subject = Subject({"serial": rates[1], **rates}, unit="runs")
    result = run(subject, list(rates), repeat=1)
    untried = [n for n in rates if last and n > last]
    assert subject.asked == ["serial", *(n for n in rates if n not in untried)]
    assert result.recommended == recommended
    assert ("not tried" in result.reason) == bool(untried)
    if untried:
        told = f"{untried[0]} workers were not tried, since throughput fell for two"
        assert told in result.reason
        assert f"alone, --workers {untried[0]}." in result.reason


def test_what_runs_out_of_time_with_every_count_is_tried_once_with_each():
    subject = Subject({"serial": LATE, 1: LATE, 2: LATE}, unit="runs")
    with pytest.raises(CoresizeError, match="with 2: took longer"):
        run(subject, [1, 2], repeat=3)
    assert subject.asked == ["serial", 1, 2]


def test_counts_that_die_are_rows_and_two_of_them_are_enough():
    rates = {1: 10, 2: 19, 4: 0, 8: 0, 16: 5}
    result = run(Subject(rates), list(rates), repeat=1, progress=None)
    assert result.points == {1: 10, 2: 19}
    assert [row.error for row in result.rows] == ["", "", *["killed for memory"] * 2]
    assert result.recommended == 2
    assert "With 4 and 8 workers it failed: killed for memory. 16 workers" in (
        result.reason
    )
    assert "killed for memory" in str(result)
    with pytest.raises(CoresizeError, match="killed for memory"):
        run(Subject({2: 0, 4: 0}), [2, 4], repeat=1, progress=None)


def test_a_function_is_bounded_by_what_one_worker_holds_and_a_command_is_not():
    rates = {1: 10, 2: 19, 4: 35}
    peak = plan_workers(memory="1MiB").bounds["memory"] * 2**20 // 3
    bound = run(Subject(rates, peak_memory=peak), [1, 2, 4], repeat=1, progress=None)
    assert bound.memory_bound in (2, 3, 4)
    command = Subject(rates, unit="runs", peak_memory=peak)
    result = run(command, [1, 2, 4], repeat=1, progress=None)
    assert (result.memory_bound, result.recommended) == (None, 4)


FLAT = "by more than the spread of the rounds: more workers may gain nothing"

#: What rounds have come to: (rates by round, workers that fit, recommended, what is
#: said, what is not)
ROUNDS = {
    "a noisy host": (
        {"serial": [59, 83, 101], 1: [69, 79, 83], 2: [56, 77, 88], 3: [70, 87, 103]},
        None,
        3,
        f"measured. No count differs from another or from serial {FLAT}, and repeat=9",
        "law",
    ),
    "no gain, but serial is slower": (
        {"serial": [20, 21, 22], 2: [80, 85, 90], 4: [79, 86, 91]},
        None,
        2,
        f"No count differs from another {FLAT}",
        "serial",
    ),
    "more than 10 % that may be noise": (
        {"serial": [50, 61, 100], 1: [40, 60, 100], 2: [50, 87, 103], 4: [10, 11, 12]},
        None,
        2,
        "The spread of the rounds does not tell serial and 1 from that: repeat=9",
        "gain nothing",
    ),
    "one slow round hides nothing": (
        {"serial": [40, 41, 42], 1: [40, 41, 42], 2: [20, 79, 80]},
        None,
        2,
        "2 workers are the best measured.",
        "spread",
    ),
    "memory has room for one": (
        {"serial": [3.9, 3.98, 4.0], 1: [3.8, 3.83, 3.9], 2: [7.3, 7.34, 7.4]},
        1,
        1,
        "Memory has room for 1; 2 had 92% more.",
        "Serially it is faster",
    ),
    "serial is 1 % faster": (
        {"serial": [4.54, 4.55, 4.56], 1: [4.48, 4.49, 4.5], 2: [3.0, 3.1, 3.2]},
        None,
        1,
        "1 worker is the best measured.",
        "Serially it is faster",
    ),
    "serial is twice as fast": (
        {"serial": [100], 1: [10], 2: [19]},
        None,
        2,
        "Serially it is faster than with any number of workers tried: stay serial.",
        "more may be better",
    ),
    "serial is twice as fast as what fits": (
        {"serial": [100], 1: [10], 2: [19], 4: [200]},
        2,
        2,
        "Serially it is faster than with any number of workers that fits",
        "tried",
    ),
    "tiny tasks": (
        {"serial": [4e6], 1: [14_000], 2: [13_000]},
        None,
        1,
        "a task of 0.25 microseconds is not worth a worker. Let each task do many",
        "any number",
    ),
    "it rises": (
        {1: [10], 2: [20], 4: [40]},
        None,
        4,
        "measured: more may be better, so try workers=[4, 8, 16].",
        "waits",
    ),
    "it rises, and memory has room for 9": (
        {1: [10], 2: [20], 4: [40]},
        9,
        4,
        "so try workers=[4, 8].",
        "16",
    ),
    "it rises, and memory has room for no more": (
        {1: [10], 2: [20], 4: [40]},
        4,
        4,
        "4 workers are the best measured.",
        "more may be better",
    ),
    "memory has room for none that was measured": (
        {"serial": [100], 4: [10], 8: [20]},
        3,
        3,
        "points for a law (2 of 4). Try counts that fit: workers=[1, 3].",
        "Serially",
    ),
    "memory has room for none": (
        {"serial": [10], 1: [10], 2: [20]},
        0,
        1,
        "Not even one worker fits: give it more memory, or smaller items.",
        "try",
    ),
    "larger counts fail": (
        {1: [10], 2: [20], 4: [0], 8: [0]},
        None,
        2,
        "With 4 and 8 workers it failed: killed for memory.",
        "more may be better",
    ),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_what_rounds_tell(name):
    rates, bound, recommended, said, unsaid = ROUNDS[name]
    subject, counts = Subject(rates), [n for n in rates if n != "serial"]
    rounds = Rounds(subject, counts, repeat=len(rates[counts[0]]))
    measured = rounds.run()
    result = conclude(measured.rows, measured.serial, "tasks", bound)
    assert result.recommended == recommended
    assert said in result.reason
    assert unsaid not in result.reason


def test_threads_that_take_turns_are_told():
    rates = {"serial": 10, 1: 9.9, 2: 9.5, 4: 9.0}
    told = run(Subject(rates, threads=True), [1, 2, 4], repeat=1).reason
    assert 'in turns (the GIL): use executor="process", or stay serial.' in told
    told = run(Subject(rates), [1, 2, 4], repeat=1).reason
    assert "GIL" not in told


def test_threads_that_wait_are_not_told_of_threads():
    subject = Subject({1: 10, 2: 20, 4: 40}, cores=0.01, threads=True)
    told = run(subject, [1, 2, 4], repeat=1).reason
    assert told.endswith("try many more, workers=[4, 16, 64].")


def test_where_serial_and_the_fewest_fail_more_are_not_tried():
    subject = Subject({"serial": 0, 1: 0, 2: 5, 4: 9})
    with pytest.raises(CoresizeError, match="memory or time ran out, give it more"):
        run(subject, [1, 2, 4], repeat=3)
    assert subject.asked == ["serial", 1]


def test_a_law_may_be_flat():
    flat = from_points(dict.fromkeys((1, 2, 3, 4), 5.0), "here").reason
    assert flat.endswith("The fitted law is flat: more workers gain nothing.")
    tiny = from_points({n: 1e-300 * n for n in (1, 2, 3, 4)}, "here").reason
    assert "not enough points" not in tiny


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("tasks", "mostly waits: try many more, workers=[4, 16, 64], or threads"),
        ("runs", "mostly waits: try many more, --workers 4,16,64."),
    ],
)
def test_what_mostly_waits_is_to_be_tried_with_many_more(unit, text):
    rates = {1: 10, 2: 20, 4: 40}
    result = run(Subject(rates, unit=unit, cores=0.01), list(rates), repeat=1)
    assert result.reason.endswith(".")
    assert text in result.reason


def test_what_is_interrupted_has_a_result_of_what_there_was():
    class Stopped(Subject):
        def run(self, workers):
            if self.asked.count("serial") == 2:
                raise KeyboardInterrupt
            return super().run(workers)

    rounds = Rounds(Stopped({1: 10, 2: 19}), [1, 2], repeat=3)
    with pytest.raises(CoresizeError, match="no number of workers was measured"):
        rounds.result(interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        rounds.run()
    result = rounds.result(interrupted=True)
    assert result.points == {1: 10, 2: 19}
    assert result.reason.startswith("It was interrupted")


# --- Real functions -----------------------------------------------------------


def test_what_computes():
    lines = []
    result = sweep(
        tasks.compute, [0.005] * 8, [2, 1], repeat=1, seconds=0.1, progress=lines.append
    )
    assert [row.workers for row in result.rows] == [1, 2]
    for row in (result.serial, *result.rows):
        assert (row.error, row.throughput > 0, row.cores > 0) == ("", True, True)
        assert row.low <= row.throughput <= row.high
    assert all(row.peak_memory > 2**20 for row in result.rows)
    assert result.model is None
    assert "1 worker, round 1 of 1" in lines


@pytest.mark.flaky(reruns=2)  # it measures
def test_what_sleeps_wants_as_many_threads_as_there_are():
    result = sweep(time.sleep, [0.02] * 8, [1, 8], "thread", repeat=1, seconds=0.1)
    assert result.recommended == 8
    assert result.rows[-1].speedup > 4


def test_what_is_cheap_ends_and_is_told():
    result = sweep(abs, [1] * 8, [1], repeat=1, seconds=0.1)
    assert "microseconds is not worth a worker" in result.reason
    result = sweep(abs, range(10**6), [1], "thread", repeat=1, seconds=0.1)
    assert "microseconds is not worth a worker" in result.reason


def test_what_takes_too_long_is_a_row():
    result = sweep(time.sleep, [0.01, 0.1], [1], repeat=1, seconds=0.1, timeout=60)
    assert (result.serial.error, result.rows[0].error) == ("", "")
    with pytest.raises(CoresizeError, match=r"longer than 0\.1 s") as caught:
        sweep(time.sleep, [0.01, 9], [1], repeat=1, seconds=0.1, timeout=0.1)
    assert "serially: the task took longer than 0.1 s" in str(caught.value)


@pytest.mark.flaky(reruns=2)  # it measures
@pytest.mark.parametrize("timeout", [None, 60])
def test_the_baseline_is_of_the_function_alone(timeout):
    """Not of the way to the worker, which takes far longer than this."""
    serial = sweep(abs, [1] * 8, [1], repeat=1, seconds=0.1, timeout=timeout).serial
    assert serial.error == ""
    assert serial.throughput > 100_000


#: Threads of which few fit into the memory that this process may address.
CROWDED = """\
import resource, threading, time
from coresize import sweep
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
threading.stack_size(256 << 20)
print(sweep(time.sleep, [0.01], [1, 1000], "thread", repeat=1, seconds=0.1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_a_count_that_cannot_be_started_is_a_row():
    words = [sys.executable, "-c", CROWDED]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "With 1000 workers it failed: can't start new thread." in done.stdout


def test_what_fails_is_told():
    with pytest.raises(ValueError, match="boo"):
        sweep(tasks.fail, ["boo", "boo"], [1], "thread", repeat=1, seconds=0.1)


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("limits", [{}, {"timeout": 60}], ids=["", "timeout"])
def test_tasks_that_fail_serially_too_count_as_done(executor, limits):
    if executor == "thread" and limits:
        pytest.skip("threads cannot be ended")
    sample = [1, 2, 0, 4]
    result = sweep(
        tasks.invert, sample, [1, 2], executor, repeat=1, seconds=0.1, **limits
    )
    assert [row.error for row in result.rows] == ["", ""]
    assert result.serial.failed == 0.25
    assert all(0.1 < row.failed < 0.4 for row in result.rows)
    assert "of the tasks fail, serially as well" in result.reason


def test_tasks_that_fail_only_beside_others_are_an_error_of_the_row(tmp_path):
    result = sweep(
        functools.partial(tasks.fail_beside_others, str(tmp_path)),
        range(4),
        [1, 4],
        "thread",
        repeat=1,
        seconds=0.3,
    )
    assert result.rows[0].error == ""
    assert "failed: another task is running" in result.rows[1].error


@pytest.mark.parametrize("progress", [True, "yes", 1])
def test_progress_is_a_function(progress):
    with pytest.raises(TypeError, match=r"progress must be a callable, not"):
        sweep(abs, [1], [1], progress=progress)


def test_numbers_of_workers_are_separated_by_commas(call):
    done = call("sweep", "--workers", "1", "2", "4", "--", "true", "{workers}")
    assert done.returncode == 2
    assert "separate the numbers by commas: --workers 1,2,4" in done.stderr


def test_a_plot_of_other_data_shows_no_limits_of_this_machine(call, tmp_path):
    (tmp_path / "points.json").write_text('{"1": 10, "2": 19, "4": 30}')
    picture = tmp_path / "plot.svg"
    done = call("sweep", "--from", tmp_path / "points.json", "--plot", picture)
    assert done.returncode == 0
    assert "<!-- 4 advised -->" in picture.read_text()
    assert " cores -->" not in picture.read_text()


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ({"sample": []}, "sample"),
        ({"workers": []}, "workers"),
        ({"workers": [0, 1]}, "workers"),
        ({"workers": ["2"]}, "workers"),
        ({"workers": "many"}, "workers"),
        ({"executor": "fiber"}, "executor"),
        ({"sample": 5}, "sample"),
        ({"workers": 5}, "workers"),
        ({"workers": np.array([1.5, 2.0])}, "workers"),
        ({"executor": []}, "executor"),
        ({"repeat": 0}, "repeat"),
        ({"repeat": 1.5}, "repeat"),
        ({"repeat": "3"}, "repeat"),
        ({"repeat": None}, "repeat"),
        ({"timeout": 1}, "timeout"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": None}, "seconds"),
        ({"timeout": 0, "executor": "process"}, "timeout"),
        ({"timeout": -1, "executor": "process"}, "timeout"),
        ({"timeout": math.nan, "executor": "process"}, "timeout"),
        ({"timeout": "x", "executor": "process"}, "timeout"),
    ],
)
def test_bad_arguments(words, setting, tmp_path):
    called = functools.partial(tasks.count_in, tmp_path / "called")
    given_ = {"sample": [1], "workers": [1], "executor": "thread", **words}
    with pytest.raises(ConfigError) as caught:
        sweep(called, **given_)
    assert str(caught.value).startswith(f"{setting}={words[setting]!r} is not valid")
    assert list(tmp_path.iterdir()) == []


def test_numbers_may_be_those_of_another_library():
    counts, repeat = np.array([2, 1]), np.int64(1)
    result = sweep(time.sleep, [0.01], counts, "thread", repeat=repeat, seconds=0.1)
    assert [row.workers for row in result.rows] == [1, 2]


def test_where_all_is_serial_no_number_can_be_tried():
    serially = container(cpus=4, env={"CORESIZE_PARALLEL": "0"})
    with (
        use_host(serially),
        pytest.raises(CoresizeError, match="CORESIZE_PARALLEL makes every pool serial"),
    ):
        sweep(abs, [1], [1, 2], repeat=1)


# --- Keeping it ---------------------------------------------------------------


def test_it_is_kept_for_planning(tmp_path):
    rates = {1: 10, 2: 19, 3: 12}
    result = run(Subject(rates, peak_memory=2**20), [1, 2, 3], repeat=1, progress=None)
    path = result.save(str(tmp_path / "kept.toml"))
    plan = plan_workers(profile=path, cpus=0.1)
    assert (plan + 0, plan.binding) == (2, "profile")
    command = Subject({1: 10, 3: 29}, unit="runs", peak_memory=2**50)
    result = run(command, [1, 3], repeat=1, progress=None)
    path = result.save(str(tmp_path / "command.json"))
    plan = plan_workers(profile=path, cpus=0.1)
    assert (plan + 0, plan.binding) == (3, "profile")


def test_what_is_kept_is_never_more_than_fits():
    rows = run(Subject({4: 10, 8: 19}, peak_memory=2**20), [4, 8], repeat=1).rows
    profile = conclude(rows, None, "tasks", 2).profile
    assert (profile.max_workers, profile.peak_memory) == (2, 2**20)


def test_a_worker_is_planned_by_the_cores_that_it_takes_alone():
    """Four share one core: none of them is a task that waits."""
    crowded = Subject({1: 10, 4: 19}, cores=1.0)
    profile = run(crowded, [1, 4], repeat=1).profile
    assert (profile.cpu, profile.cpu_share, profile.max_workers) == (1.0, 1.0, 4)
    for bound in (2, 4, 10**6):
        assert plan_workers(profile=profile, max_workers=bound) <= min(bound, 4)
    assert from_points({1: 10.0, 2: 19.0}, "test").profile.cpu is None


def test_a_sweep_is_no_profile_but_has_one():
    result = from_points(MEASURED["Docker"][0], "test")
    with pytest.raises(ConfigError, match=r"of a sweep: its \.profile") as caught:
        plan_workers(profile=result)
    assert len(str(caught.value)) < 700
    assert plan_workers(profile=result.profile).bounds["profile"] == 8


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture(tmp_path, kind):
    from coresize.sweeping.plot import plot

    path = tmp_path / f"sweep.{kind}"
    plot(from_points(MEASURED["Docker"][0], "test"), str(path), cores=20)
    assert path.read_bytes().startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    with pytest.raises(ConfigError, match=r"no/such"):
        plot(from_points({1: 2.0}, "test"), str(tmp_path / "no/such.png"))


# --- The command --------------------------------------------------------------


NAP = "import sys, time; time.sleep(0.2 / int(sys.argv[1]))"


def test_a_command(call, tmp_path):
    picture = tmp_path / "sweep.png"
    done = commands.run(
        tmp_path,
        *("sweep", "--workers", "1,2", "--repeat", "1", "--json", "--save", "nap"),
        *("--plot", picture, "--", sys.executable, "-c", NAP, "{workers}"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["recommended"] in (1, 2)
    assert set(result["points"]) == {"1", "2"}
    assert (result["model"], result["unit"]) == (None, "runs")
    assert "2 workers, round 1 of 1" in done.stderr
    assert f"plot written to {picture}" in done.stderr
    assert f"saved to {tmp_path}/coresize/profiles/nap.toml" in done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    planned = call("workers", "--profile", "nap", "--json")
    assert json.loads(planned.stdout)["bounds"]["profile"] == result["recommended"]


def test_a_command_knows_its_count_by_a_variable_too():
    program = "import os, sys; sys.exit(os.environ['CORESIZE_WORKERS'] != sys.argv[1])"
    result = run_command([sys.executable, "-c", program, "{workers}"], [1, 2], repeat=1)
    assert [row.error for row in result.rows] == ["", ""]


FAIL_BEYOND_ONE = "import sys; sys.exit(int(sys.argv[1]) - 1)"


def test_a_command_that_fails(call, tmp_path):
    words = ("--repeat", "1", "--", sys.executable, "-c", FAIL_BEYOND_ONE, "{workers}")
    done = call("sweep", "--workers", "1,2", *words)
    assert (done.returncode, "exit status 1" in done.stdout) == (0, True)
    assert "With 2 workers it failed: ended with exit status 1." in done.stdout
    done = commands.run(tmp_path, "sweep", "--workers", "2,3", *words)
    assert (done.returncode, "exit status 2" in done.stderr) == (2, True)


def test_the_last_that_a_command_says_is_told(call):
    words = ("--workers", "2,3", "--repeat", "1")
    script = 'echo first >&2; echo "too many: {workers}" >&2; exit 7'
    done = call("sweep", *words, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert "serially: ended with exit status 7: too many: 1" in last
    assert "with 2: ended with exit status 7: too many: 2" in last
    assert "with 3" not in last  # where one fails, and two, more do not help
    assert "run it by itself" in last


#: It says much, and leaves one behind that holds its standard error open.
TALK = """\
import subprocess, sys
sys.stderr.write("x" * 4_000_000 + "\\n\\x1b[1mlast\\x1b[0m words\\n")
left = subprocess.Popen(["sleep", "77"])
print(left.pid, file=open(sys.argv[2], "w"))
sys.exit(int(sys.argv[1]) - 1)
"""


def test_a_command_that_says_much_and_leaves_one_behind(tmp_path):
    path = str(tmp_path / "pid")
    words = [sys.executable, "-c", TALK, "{workers}", path]
    rows = run_command(words, [1, 2], repeat=1).rows
    assert rows[0].error == ""
    assert rows[1].error.startswith("ended with exit status 1: ")
    assert rows[1].error.endswith("words")
    assert commands.ends(int((tmp_path / "pid").read_text()))


def test_a_command_is_run_once_for_nothing_and_each_count_once(call, tmp_path):
    words = ("--workers", "2,2,2", "--repeat", "2")
    script = f"echo {{workers}} >> {tmp_path}/ran"
    done = call("sweep", *words, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").read_text().split() == ["1", "1", "2", "1", "2"]


def test_a_command_that_takes_too_long_is_a_row(call):
    words = ("--workers", "1,2", "--repeat", "1", "--timeout", "1")
    script = "[ {workers} = 1 ] || sleep 77"
    done = call("sweep", *words, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert (
        "With 2 workers it failed: took longer than 1 s, and was ended." in done.stdout
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_is_printed_where_it_is_interrupted(number, tmp_path):
    picture = tmp_path / "x.png"
    words = ["--workers", "1,2", "--repeat", "2", "--json", "--plot", str(picture)]
    script = f"[ $(wc -l < {tmp_path}/ran) -lt 5 ] || sleep 77"
    script = f"echo {{workers}} >> {tmp_path}/ran; {script}"
    # Whoever runs the tests may ignore it, and a shell gives that on.
    program = ["env", "--default-signal", sys.executable, "-m", "coresize", "sweep"]
    with subprocess.Popen(
        [*program, *words, "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while "serial, round 2 of 2" not in process.stderr.readline():
            pass
        time.sleep(0.3)
        tree = processes.descendants(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in err) == (128 + number, False)
    result = json.loads(out)
    assert set(result["points"]) == {"1", "2"}
    assert result["reason"].startswith("It was interrupted")
    assert not picture.exists()
    assert len(tree) >= 3
    assert [pid for pid in tree if processes.read(pid, "cmdline")] == []


RUN = ("--", "touch", "ran{workers}")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--", "true"), 2, "a command with {workers} in it"),
        (("--workers", "0", "--", "true", "{workers}"), 2, "whole numbers above 0"),
        (("--workers", "one", "--", "true", "{workers}"), 2, "whole numbers above 0"),
        (("--repeat", "0", "--", "true", "{workers}"), 2, "repeat"),
        (("--timeout", "0", "--", "true", "{workers}"), 2, "timeout=0.0"),
        (("--", "./no-such-program", "{workers}"), 127, "no-such-program"),
        ((), 2, "no program is named"),
        (("--plot", "/tmp", *RUN), 2, "--plot='/tmp' is not valid: use the path of a"),
        (("--plot", "-", *RUN), 2, ".png, .svg or .pdf"),
        (("--plot", "out", *RUN), 2, ".png, .svg or .pdf"),
        (("--plot", "out.jpg", *RUN), 2, ".png, .svg or .pdf"),
        (("--plot", "", *RUN), 2, ".png, .svg or .pdf"),
        (("--plot", "no/such.png", *RUN), 2, "in a folder that is there"),
        (("--save", "", *RUN), 2, "--save='' is not valid: use a name that begins"),
        (("--save", "history:x", *RUN), 2, "has no colon"),
        (("--from", "x", "--save", ".."), 2, "a name that begins with"),
        (("--from", "x", "--workers", "1"), 2, "--workers cannot be used"),
        (("--from", "x", "--repeat", "1"), 2, "--repeat cannot be used"),
        (("--from", "x", "--timeout", "1"), 2, "--timeout cannot be used"),
        (("--from", "x", "--", "make", "{workers}"), 2, "--from takes no CMD"),
    ],
)
def test_bad_commands(call, words, code, text, tmp_path):
    done = call("sweep", *words)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_points_from_a_file_have_this_shape(call, tmp_path):
    points = {str(n): x for n, x in MEASURED["Docker"][0].items()}
    path = tmp_path / "points.json"
    path.write_text(json.dumps(points))
    picture = tmp_path / "points.png"
    done = call("sweep", "--from", path, "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    answer = json.loads(done.stdout)
    assert (answer["recommended"], answer["best"]) == (8, 8)
    assert answer["points"] == points
    assert set(answer["model"]) == {"a", "b", "peak"}
    assert answer["reason"] == (
        "8 workers are the best measured. The fitted law has its peak at 10.3."
    )
    done = commands.run(tmp_path, "sweep", "--from", "-", input=json.dumps(points))
    shown = done.stdout.splitlines()
    assert shown[0].split() == ["WORKERS", "RUNS/S"]
    assert [line.split() for line in shown if line.endswith(" <-")] == [
        ["8", "61.31", "<-"]
    ]


def test_a_table():
    rates = {1: 10.0, 2: 0.0, 4: 30.0}
    result = run(Subject(rates), list(rates), repeat=1, progress=None)
    lines = [line.split() for line in str(result).splitlines()]
    assert lines[0][:3] == ["WORKERS", "TASKS/S", "LOWEST"]
    assert [line[0] for line in lines[1:5]] == ["serial", "1", "2", "4"]
    assert [line[5] for line in lines[1:5]] == ["1.00", "1.00", "0.00", "3.00"]
    assert (lines[3][-3:], lines[4][-1]) == (["killed", "for", "memory"], "<-")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "{}", '"8"', "[" * 100_000),
        *('{"0": 1}', '{"-1": 1}', '{"1.5": 1}', '{"x": 1}', '{"٣": 1}'),
        *('{"2": "3"}', '{"2": null}', '{"2": true}', '{"2": -1}', '{"2": [1]}'),
        *('{"2": NaN}', '{"2": Infinity}', '{"2": 0}', '{"2": 1, "02": 2}'),
        *('{"2": 1' + "0" * 400 + "}", '{"' + "9" * 5000 + '": 1}'),
        '{"1": 1e308, "2": 1.5e308, "4": 1.7e308, "8": 1e308}',
    ],
    ids=range(24),
)
def test_bad_points(text, tmp_path, capsys):
    path = tmp_path / "points.json"
    path.write_text(text)
    assert main(["sweep", "--from", str(path)]) == 2
    assert capsys.readouterr().err.startswith("coresize: error: ")


@pytest.mark.parametrize("name", ["bytes", "none", ""])
def test_files_that_cannot_be_read(name, tmp_path, capsys):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    assert main(["sweep", "--from", str(tmp_path / name)]) == 2
    assert "--from" in capsys.readouterr().err


def test_an_extra_that_is_missing_is_named():
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from coresize.sweeping.plot import check; check('x.png')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert f"{CoresizeError.__name__}: a plot needs matplotlib" in done.stderr
