"""Sweeps: what is recommended of what was measured, and measuring."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import commands
import pytest
import tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from coresize import ConfigError, CoresizeError, plan_workers, sweep
from coresize.cli import main
from coresize.sweeping import advice, usl
from coresize.sweeping.result import from_points
from coresize.sweeping.saving import save
from coresize.sweeping.sweep import run, sweep_command
from coresize.sweeping.trials import Trial


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
    assert "only rises. 4 is the most that was measured" in linear.reason


#: (points, bound, recommended, best, part of the reason)
BOUND = [
    ({1: 10.0, 2: 19.0, 4: 35.0}, 2, 2, 4, "Memory has room for 2; 4 had 84% more."),
    ({1: 10.0, 2: 19.0, 4: 12.0}, 2, 2, 2, "Memory has room for 2."),
    ({1: 10.0, 2: 10.4, 4: 35.0}, 3, 1, 4, "within 3.8% of the best, 2"),
    ({4: 10.0, 8: 19.0}, 1, 4, 8, "Memory has room for 1; 8 had 90% more."),
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


@settings(max_examples=300)
@given(measured, st.none() | st.integers(1, 500))
def test_what_is_recommended(points, bound):
    found = advice.advise(points, bound)
    assert found.recommended in points
    assert points[found.best] == max(points.values())
    fit = [n for n in points if bound is None or n <= bound] or [min(points)]
    enough = 0.95 * max(points[n] for n in fit)
    assert found.recommended in fit
    assert points[found.recommended] >= enough
    assert all(points[n] < enough for n in fit if n < found.recommended)
    assert found.reason.endswith(".")


# --- Rounds -------------------------------------------------------------------


class Subject:
    """One whose numbers are known."""

    def __init__(self, rates, unit="tasks", **details):
        self.rates = rates
        self.unit = unit
        self.details = details
        self.asked = []

    def serial(self):
        self.asked.append("serial")
        return self._trial(1, self.rates.get(1, 1.0))

    def run(self, workers):
        self.asked.append(workers)
        return self._trial(workers, self.rates[workers])

    def _trial(self, workers, rate):
        known = {"startup": 0.0, "cores": 1.0, "throttled": 0.0, "swapped": 0}
        return Trial(
            workers=workers,
            throughput=rate,
            peak_memory=self.details.get("peak_memory"),
            error="killed for memory" if rate == 0 else "",
            **known,
        )


RISE_AND_FALL = {1: 10, 2: 19, 4: 30, 8: 25, 16: 20, 32: 40, 64: 50}


def test_it_goes_up_and_down_and_stops_when_throughput_falls_twice():
    subject = Subject(RISE_AND_FALL)
    result = run(subject, list(RISE_AND_FALL), repeat=2, progress=None)
    up, down = [1, 2, 4, 8, 16], [16, 8, 4, 2, 1]
    assert subject.asked == ["serial", *up, "serial", *down]
    assert (result.recommended, [row.workers for row in result.rows]) == (4, up)


def test_one_fall_is_no_reason_to_stop():
    rates = {1: 10, 2: 19, 3: 18, 4: 30}
    result = run(Subject(rates), list(rates), repeat=1, progress=None)
    assert result.recommended == 4


def test_counts_that_die_are_rows_and_two_of_them_are_enough():
    rates = {1: 10, 2: 19, 4: 0, 8: 0, 16: 5}
    result = run(Subject(rates), list(rates), repeat=1, progress=None)
    assert result.points == {1: 10, 2: 19}
    assert [row.error for row in result.rows] == ["", "", *["killed for memory"] * 2]
    assert result.recommended == 2
    assert "Not measured well: 4, 8." in result.reason
    assert "killed for memory" in str(result)
    with pytest.raises(ConfigError, match="killed for memory"):
        run(Subject({2: 0, 4: 0}), [2, 4], repeat=1, progress=None)


def test_a_function_is_bounded_by_what_one_worker_holds_and_a_command_is_not():
    rates = {1: 10, 2: 19, 4: 35}
    peak = plan_workers(memory="1MiB").bounds["memory"] * 2**20 // 3
    bound = run(Subject(rates, peak_memory=peak), [1, 2, 4], repeat=1, progress=None)
    assert bound.memory_bound in (2, 3, 4)
    command = Subject(rates, unit="runs", peak_memory=peak)
    result = run(command, [1, 2, 4], repeat=1, progress=None)
    assert (result.memory_bound, result.recommended) == (None, 4)


def test_it_is_said_when_serial_is_best():
    class Dear(Subject):
        def serial(self):
            return self._trial(1, 100.0)

    result = run(Dear({1: 10, 2: 19}), [1, 2], repeat=1, progress=None)
    assert "Serially it is faster" in result.reason


# --- Real functions -----------------------------------------------------------


def test_what_computes():
    lines = []
    result = sweep(tasks.compute, [0.005] * 8, [2, 1], repeat=1, progress=lines.append)
    assert [row.workers for row in result.rows] == [1, 2]
    for row in (result.serial, *result.rows):
        assert (row.error, row.throughput > 0, row.cores > 0) == ("", True, True)
        assert row.low <= row.throughput <= row.high
    assert all(row.peak_memory > 2**20 for row in result.rows)
    assert result.model is None
    assert "1 worker, round 1 of 1" in lines


def test_what_sleeps_wants_as_many_threads_as_there_are():
    result = sweep(time.sleep, [0.02] * 8, [1, 2, 4, 8], "thread", repeat=1)
    assert result.recommended == 8
    assert result.rows[-1].speedup > 4
    assert result.model.a < 0.5


def test_what_fails_is_told():
    with pytest.raises(ValueError, match="boo"):
        sweep(tasks.fail, ["boo", "boo"], [1], "thread", repeat=1)


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ({"sample": []}, "sample"),
        ({"workers": []}, "workers"),
        ({"workers": [0, 1]}, "workers"),
        ({"workers": ["2"]}, "workers"),
        ({"workers": "many"}, "workers"),
        ({"executor": "fiber"}, "executor"),
        ({"repeat": 0}, "repeat"),
    ],
)
def test_bad_arguments(words, setting):
    with pytest.raises(ConfigError) as caught:
        sweep(abs, **{"sample": [1], "workers": [1], "executor": "thread", **words})
    assert caught.value.setting == setting


# --- Keeping it ---------------------------------------------------------------


def test_it_is_kept_for_planning(tmp_path):
    rates = {1: 10, 2: 19, 3: 12}
    result = run(Subject(rates, peak_memory=2**20), [1, 2, 3], repeat=1, progress=None)
    path = save(result, str(tmp_path / "kept.toml"))
    plan = plan_workers(profile=path, cpus=0.1)
    assert (plan + 0, plan.binding) == (2, "profile")
    command = Subject({1: 10, 3: 29}, unit="runs", peak_memory=2**50)
    path = save(
        run(command, [1, 3], repeat=1, progress=None), str(tmp_path / "command.json")
    )
    plan = plan_workers(profile=path, cpus=0.1)
    assert (plan + 0, plan.binding) == (3, "profile")


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
    done = commands.run(
        tmp_path,
        *("sweep", "--workers", "1,2", "--repeat", "1", "--json", "--save", "nap"),
        *("--", sys.executable, "-c", NAP, "{workers}"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["recommended"] in (1, 2)
    assert set(result["points"]) == {"1", "2"}
    assert (result["model"], result["unit"]) == (None, "runs")
    assert "2 workers, round 1 of 1" in done.stderr
    planned = call("workers", "--profile", "nap", "--json")
    assert json.loads(planned.stdout)["bounds"]["profile"] == result["recommended"]


def test_a_command_knows_its_count_by_a_variable_too():
    program = "import os, sys; sys.exit(os.environ['CORESIZE_WORKERS'] != sys.argv[1])"
    result = sweep_command(
        [sys.executable, "-c", program, "{workers}"], [1, 2], repeat=1
    )
    assert [row.error for row in result.rows] == ["", ""]


FAIL_BEYOND_ONE = "import sys; sys.exit(int(sys.argv[1]) - 1)"


def test_a_command_that_fails(call, tmp_path):
    words = ("--repeat", "1", "--", sys.executable, "-c", FAIL_BEYOND_ONE, "{workers}")
    done = call("sweep", "--workers", "1,2", *words)
    assert (done.returncode, "exit status 1" in done.stdout) == (0, True)
    assert "Not measured well: 2." in done.stdout
    done = commands.run(tmp_path, "sweep", "--workers", "2,3", *words)
    assert (done.returncode, "exit status 2" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--", "true"), 2, "a command with {workers} in it"),
        (("--workers", "0", "--", "true", "{workers}"), 2, "whole numbers above 0"),
        (("--workers", "one", "--", "true", "{workers}"), 2, "whole numbers above 0"),
        (("--repeat", "0", "--", "true", "{workers}"), 2, "repeat"),
        (("--", "./no-such-program", "{workers}"), 127, "no-such-program"),
        ((), 2, "no program is named"),
    ],
)
def test_bad_commands(call, words, code, text):
    done = call("sweep", *words)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr


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
    ],
    ids=range(23),
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
        "from coresize.sweeping.plot import plot; plot(None, 'x.png')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert f"{CoresizeError.__name__}: a plot needs matplotlib" in done.stderr
