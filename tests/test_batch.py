"""Batches: each task to its end, whatever becomes of the others."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import itertools
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import tasks

from coresize import (
    ConfigError,
    CoresizeError,
    Outcome,
    ProcessPoolExecutor,
    TaskCrashedError,
    TaskKilledError,
    TaskTimeoutError,
    TransferError,
    parallel_map,
    processes,
    run_batch,
)
from coresize.batch.journal import reader as reading


EXECUTORS = ["process", "thread", "serial", "joblib", "foreign", "threads"]


@pytest.fixture(scope="module")
def pools():
    """Executors of the standard library, that batches share and leave open."""
    with (
        concurrent.futures.ProcessPoolExecutor(2) as processes_,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
    ):
        yield {"foreign": processes_, "threads": threads}


@pytest.fixture(scope="module")
def pool():
    """A pool of ours that batches share: its workers are there already."""
    with ProcessPoolExecutor(2) as pool:
        yield pool


# --- Outcomes -----------------------------------------------------------------


def test_every_end_is_an_outcome_and_costs_no_other():
    items = [
        ("square", 3),
        ("fail", "boo"),
        ("leave", 7),
        ("end_self_by", "SIGKILL"),
        ("end_self_by", "SIGSEGV"),
        ("refuse", "one", "two"),
        ("unpicklable_result",),
        ("leave_normally",),
        ("square", 4),
    ]
    run = run_batch(tasks.end_as_told, items, max_workers=2, progress=False)
    found = {outcome.index: outcome for outcome in run}
    assert {index: outcome.status for index, outcome in found.items()} == {
        0: "ok",
        1: "failed",
        2: "crashed",
        3: "killed",
        4: "crashed",
        5: "failed",
        6: "failed",
        7: "failed",
        8: "ok",
    }
    errors = {index: type(outcome.error) for index, outcome in found.items()}
    assert errors[1] is ValueError
    assert errors[2] is errors[4] is TaskCrashedError
    assert errors[3] is TaskKilledError
    assert errors[5] is TransferError
    assert errors[7] is SystemExit
    assert (found[0].value, found[8].value) == (9, 16)
    assert "tasks.py" in found[1].traceback
    assert "one and two" in str(found[5].error)
    report = run.report
    assert (report.done, report.total, report.failed) == (9, 9, 7)
    assert report.counts["crashed"] == 2
    assert str(report).startswith("9 done in ")


def test_an_outcome_says_what_a_task_took():
    (one,) = run_batch(tasks.take, [30], max_workers=1, progress=False)
    assert (one.key, one.index, one.attempts, one.ok) == ("0", 0, 1, True)
    assert one.wall >= 0.2
    assert 0 <= one.cpu < one.wall
    assert one.worker.isdigit()
    assert int(one.worker) != os.getpid()
    if sys.platform == "linux":
        assert one.peak_memory > 30 * tasks.MIB


def test_what_did_not_end_says_how_long_it_was_away():
    words = {"max_workers": 1, "timeout": 0.5, "progress": False}
    items = [("nap", 60), ("leave", 7)]
    late, left = run_batch(tasks.end_as_told, items, **words)
    assert (late.status, left.status) == ("timeout", "crashed")
    assert 0.5 <= late.wall < 60
    assert 0 < left.wall < 60
    assert late.cpu == left.cpu == 0.0


def test_the_peak_is_of_one_task_and_not_of_all_before():
    run = run_batch(tasks.take, [60, 1, 1], max_workers=1, progress=False)
    peaks = [outcome.peak_memory for outcome in run]
    if sys.platform == "linux":
        assert peaks[0] > 60 * tasks.MIB > max(peaks[1:])


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_gives_the_same_results(name, pools):
    executor = pools.get(name, name)
    run = run_batch(
        tasks.square_unless_odd,
        range(20),
        executor=executor,
        max_workers=2,
        progress=False,
    )
    results = run.results()
    assert results[::2] == [number**2 for number in range(0, 20, 2)]
    assert [type(one) for one in results[1::2]] == [ValueError] * 10
    assert [one.args for one in results[1::2]] == [(n,) for n in range(1, 20, 2)]
    assert run.report.counts["failed"] == 10


def test_an_executor_of_the_caller_stays_open(pools):
    for pool in pools.values():
        run_batch(tasks.square, [1], executor=pool, progress=False).wait()
        assert pool.submit(tasks.square, 3).result() == 9


def test_memory_may_be_given_for_any_executor(pools):
    run = run_batch(
        tasks.square,
        range(5),
        executor=pools["foreign"],
        memory="1MiB",
        progress=False,
    )
    assert run.results() == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_one_variable_makes_a_batch_serial(executor):
    program = (
        "import os; from coresize import run_batch\n"
        f"run = run_batch(lambda _: os.getpid(), [1, 2], executor={executor!r})\n"
        "print(run.results() == [os.getpid()] * 2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "CORESIZE_PARALLEL": "0"},
        check=True,
    )
    assert done.stdout == "True\n"


# --- Tried again --------------------------------------------------------------


def test_what_failed_is_tried_again_later_and_later(tmp_path):
    run = run_batch(
        functools.partial(tasks.succeed_at, str(tmp_path), 3),
        range(3),
        executor="thread",
        retries=2,
        progress=False,
    )
    outcomes = list(run)
    assert [outcome.status for outcome in outcomes] == ["ok"] * 3
    assert [outcome.attempts for outcome in outcomes] == [3] * 3
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [3] * 3
    assert run.report.retries == 6
    assert run.report.elapsed > 0.5 + 1.0


def test_what_fails_too_often_has_failed(tmp_path):
    run = run_batch(
        functools.partial(tasks.succeed_at, str(tmp_path), 3),
        [1],
        executor="serial",
        retries=1,
        progress=False,
    )
    (one,) = run
    assert (one.status, one.attempts) == ("failed", 2)


@pytest.mark.parametrize(("retried", "attempts"), [(False, 1), (True, 2)])
def test_what_took_too_long_is_tried_again_only_when_asked(retried, attempts):
    (one,) = run_batch(
        tasks.nap,
        [60],
        max_workers=1,
        timeout=0.3,
        retries=1,
        retry_timeouts=retried,
        progress=False,
    )
    assert (one.status, one.attempts) == ("timeout", attempts)
    assert type(one.error) is TaskTimeoutError


# --- Errors -------------------------------------------------------------------


def test_errors_can_be_raised_together_when_everything_else_is_done():
    run = run_batch(
        tasks.square_unless_odd,
        range(6),
        executor="thread",
        on_error="raise",
        progress=False,
    )
    seen = []
    with pytest.raises(ExceptionGroup, match="3 tasks of tasks:square_unle") as caught:
        seen.extend(run)
    assert len(seen) == 6
    assert sorted(one.args[0] for one in caught.value.exceptions) == [1, 3, 5]
    for error in caught.value.exceptions:
        assert error.__notes__ == [f"of task {error.args[0]}, failed"]


@pytest.mark.parametrize("executor", ["thread", "serial"])
def test_a_parallel_map_returns_values_or_raises_the_first_error(executor):
    assert parallel_map(abs, [-1, -2], executor=executor, progress=False) == [1, 2]
    with pytest.raises(ValueError, match="3") as caught:
        parallel_map(
            tasks.square_unless_odd, [0, 2, 3], executor=executor, progress=False
        )
    (note,) = caught.value.__notes__
    assert note.startswith("of item 2: ")


def test_a_function_that_cannot_travel_fails_before_anything_runs():
    read = []
    function = functools.partial(tasks.echo, threading.Lock())
    with pytest.raises(TransferError):
        run_batch(function, (read.append(item) for item in [1]))
    assert read == []


def test_an_item_that_cannot_travel_fails_alone(pool):
    items = [1, threading.Lock(), 2]
    run = run_batch(tasks.echo, items, executor=pool, progress=False)
    results = run.results()
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], TransferError)


def test_a_broken_pool_is_an_error_after_what_has_ended():
    with concurrent.futures.ProcessPoolExecutor(1) as broken:
        run = run_batch(
            tasks.end_by, range(200), executor=broken, buffersize=5, progress=False
        )
        seen = []
        with pytest.raises(CoresizeError, match="the executor is broken") as caught:
            seen.extend(run)
    assert isinstance(caught.value.__cause__, concurrent.futures.BrokenExecutor)
    assert {outcome.status for outcome in seen} == {"ok", "crashed"}
    assert {one.index for one in seen if one.ok} == {0, 1, 2}
    assert 3 in {one.index for one in seen if one.status == "crashed"}
    assert len(seen) < 20


def test_a_program_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from coresize import run_batch\n"
        "run_batch(abs, [1, 2], max_workers=1, journal='out.sqlite').wait()\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.endswith('work below if __name__ == "__main__":\n')
    assert reading.count(str(tmp_path / "out.sqlite")) == {None: 2}


def test_what_broke_with_a_pool_runs_again_at_the_next_start(tmp_path):
    """Also where some had been tried again: who waits for its turn has none."""
    journal = tmp_path / "out.sqlite"
    with concurrent.futures.ProcessPoolExecutor(2) as broken:
        run = run_batch(
            partial(tasks.end_by_once, tmp_path / "once"),
            range(60),
            executor=broken,
            buffersize=5,
            retries=2,
            journal=journal,
            progress=False,
        )
        with pytest.raises(CoresizeError, match="the executor is broken"):
            run.wait()
    again = run_batch(
        partial(tasks.end_by_once, tmp_path / "once"),
        range(60),
        executor="thread",
        journal=journal,
    )
    assert again.results() == list(range(60))


def test_an_error_of_the_input_is_raised_when_what_runs_is_written(tmp_path):
    (tmp_path / "notes").mkdir()
    function = functools.partial(tasks.note_call, str(tmp_path / "notes"))
    words = {"executor": "thread", "journal": tmp_path / "out.sqlite"}

    def items():
        yield from range(3)
        raise LookupError

    with pytest.raises(LookupError):
        list(run_batch(function, items(), progress=False, **words))
    called = {int(path.name) for path in (tmp_path / "notes").iterdir()}
    outcomes = list(run_batch(function, range(3), progress=False, **words))
    assert {one.index for one in outcomes if one.status == "skipped"} == called


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ({"executor": "fork"}, "executor"),
        ({"executor": 3}, "executor"),
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": 1.5}, "max_workers"),
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"oom_retries": -1}, "oom_retries"),
        ({"buffersize": 0}, "buffersize"),
        ({"on_error": "ignore"}, "on_error"),
        ({"serializer": "yaml"}, "serializer"),
        ({"shard_by": "name"}, "shard_by"),
        ({"shard": "4/4"}, "shard"),
        ({"retry": ("ok",)}, "retry"),
        ({"retry": "skipped"}, "retry"),
        ({"timeout": 1, "executor": "thread"}, "timeout"),
        ({"timeout": 1, "executor": "serial"}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1.5}, "timeout"),
        ({"timeout": "3"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"progress": "yes"}, "progress"),
        ({"progress": 1}, "progress"),
        ({"item_size": 3}, "item_size"),
        ({"memory": "two apples"}, "memory"),
        ({"memory": "auto", "executor": "thread"}, "memory"),
    ],
)
def test_a_bad_option_is_an_error_before_anything_runs(words, setting):
    read = []
    with pytest.raises(ConfigError) as caught:
        run_batch(abs, (read.append(item) for item in [1]), **words)
    assert caught.value.setting == setting
    assert read == []


@pytest.mark.parametrize("function", [None, "abs", 3])
def test_what_is_no_function_is_an_error(function):
    with pytest.raises(ConfigError, match="use a function"):
        run_batch(function, [1])


def test_a_status_that_is_none_is_named_alone():
    with pytest.raises(ConfigError, match="retry='faild' is not valid: use some of"):
        run_batch(abs, [1], retry=("failed", "faild"))


# --- Reading ------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", "serial", "joblib"])
def test_an_endless_input_is_read_as_tasks_end(executor):
    taken = itertools.count()
    with run_batch(tasks.square, taken, executor=executor, progress=False) as run:
        seen = [outcome.index for outcome in itertools.islice(run, 100)]
    assert set(seen) <= set(range(2000))
    assert next(taken) < 3000


def test_what_is_taken_ahead_can_be_bounded(pool):
    taken = itertools.count()
    run = run_batch(tasks.square, taken, executor=pool, buffersize=3, progress=False)
    for number, _ in enumerate(itertools.islice(run, 50), 1):
        assert next(taken) <= 2 * number + 6
    run.close()


def test_closing_cancels_what_has_not_begun_and_ends_workers(tmp_path):
    run = run_batch(
        functools.partial(tasks.note_call, str(tmp_path)),
        itertools.count(),
        max_workers=2,
        progress=False,
    )
    first = [int(outcome.worker) for outcome in itertools.islice(run, 10)]
    run.close()
    called = len(list(tmp_path.iterdir()))
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == called
    assert [pid for pid in set(first) if processes.read(pid, "cmdline")] == []
    assert list(run) == []


def test_a_run_that_is_left_is_closed():
    with run_batch(tasks.square, [1, 2, 3], executor="thread") as run:
        assert isinstance(next(iter(run)), Outcome)
    assert run.report.done in (1, 2, 3)


def test_a_run_that_nobody_reads_is_warned_of():
    def forget():
        run_batch(tasks.square, [1, 2, 3], executor="serial")
        gc.collect()

    with pytest.warns(RuntimeWarning, match="batch of tasks:square was never read"):
        forget()


def test_a_run_that_is_closed_unread_is_fine():
    with run_batch(tasks.square, [1], executor="serial"):
        pass


def test_a_report_runs_what_nobody_has_read():
    run = run_batch(tasks.square, range(5), executor="serial", progress=False)
    report = run.report
    assert (report.done, report.counts["ok"]) == (5, 5)
    assert re.fullmatch(r"5 done in \S+ s \(0\.00 s each\) \| 0 failed", report.line)


def test_results_are_asked_for_before_outcomes_or_not_at_all():
    run = run_batch(tasks.square, range(5), executor="serial", progress=False)
    next(iter(run))
    with pytest.raises(CoresizeError, match="either iterate, or call results"):
        run.results()


def test_a_run_may_be_read_in_another_thread(tmp_path):
    run = run_batch(
        tasks.square,
        range(5),
        executor="thread",
        journal=tmp_path / "out.sqlite",
        progress=False,
    )
    found = []
    reader = threading.Thread(target=lambda: found.extend(run.results()))
    reader.start()
    reader.join()
    assert found == [0, 1, 4, 9, 16]


def test_an_empty_input_is_a_whole_run():
    for executor in ("process", "thread", "serial"):
        run = run_batch(tasks.square, [], executor=executor, progress=False)
        assert run.results() == []
        assert run.report.total == 0


def test_a_report_is_json_for_programs():
    import json

    run = run_batch(tasks.square, range(3), executor="serial", progress=False)
    content = json.loads(run.report.as_json())
    assert (content["done"], content["counts"]["ok"]) == (3, 3)
    assert 0 <= content["startup_share"] <= 1
