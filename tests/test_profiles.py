"""Profiles by hand and in files, and what measuring finds where the need is known."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tasks

from coresize import (
    ConfigError,
    TaskKilledError,
    TaskProfile,
    TransferError,
    load_profile,
    profile_task,
    save_profile,
)
from coresize.measuring.commands import measure_command
from coresize.measuring.meters import make_meter
from coresize.planning.profile_files import check_name


MIB = 1024**2


# --- By hand ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "threads", "share"),
    [
        ({}, 1, 1.0),
        ({"cpu": 1.0, "wall": 20.0}, 1, 0.05),
        ({"cpu": 1.0}, 1, 1.0),
        ({"cpu": 0.0, "wall": 20.0}, 1, 0.001),
        ({"cpu": 1.1, "wall": 1.0}, 1, 1.0),
        ({"cpu": 14.0, "wall": 10.0}, 2, 0.7),
        ({"cpu": 25.0, "wall": 10.0}, 3, 0.8333),
        ({"cpu": 1e12, "wall": 1e-12}, 10**6, 1.0),
        ({"cpu": 7.6, "wall": 2.0}, 4, 0.95),
        ({"cpu": 2.0, "wall": 2.0, "threads": 4}, 4, 0.25),
        ({"threads": 4}, 4, 1.0),
        ({"cpu_share": 0.3}, 1, 0.3),
    ],
)
def test_threads_and_share_come_from_the_seconds(given, threads, share):
    profile = TaskProfile(**given)
    assert (profile.threads, profile.cpu_share) == (threads, share)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("512MiB", 512 * MIB),
        ("16Gi", 16 * 1024**3),
        ("1.5G", 15 * 10**8),
        (4096, 4096),
        (0, 0),
    ],
)
def test_sizes(text, size):
    assert TaskProfile(peak_memory=text).peak_memory == size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"peak_memory": "2 apples"}, "TaskProfile: peak_memory='2 apples'"),
        ({"peak_memory": "512m"}, "Docker and Kubernetes"),
        ({"idle_memory": -1}, '"4GB", "512MiB", "16Gi"'),
        ({"cpu_share": 5e-324}, "a part of a core"),
        ({"threads": 10**400}, "a whole number above 0"),
        ({"peaks": 5}, "the peaks of all runs"),
        ({"cpu": -1.0}, "seconds, 0 or above"),
        ({"wall": float("nan")}, "seconds, 0 or above"),
        ({"threads": 0}, "a whole number above 0"),
        ({"cpu_share": 0.0}, "a part of a core"),
        ({"cpu_share": 1.1}, "a part of a core"),
    ],
)
def test_nonsense_is_an_error_that_shows_what_is_allowed(given, message):
    with pytest.raises(ConfigError) as caught:
        TaskProfile(**given)
    assert message in str(caught.value)


def test_a_profile_is_a_plain_value():
    profile = TaskProfile(peak_memory="2GiB", cpu=1.0, wall=4.0, peaks=[1, 2])
    assert pickle.loads(pickle.dumps(profile)) == profile
    assert hash(profile) == hash(TaskProfile(**profile.as_dict()))
    with pytest.raises(AttributeError, match="immutable"):
        profile.cpu = 2.0


# --- Files --------------------------------------------------------------------

PROFILE = TaskProfile(
    peak_memory="2GiB",
    idle_memory="60MiB",
    cpu=1.0,
    wall=4.5,
    method='"b" \x7f\U0001f600',
)


@pytest.mark.parametrize("name", ["x.toml", "x.json"])
def test_what_is_saved_is_loaded(tmp_path, name):
    path = f"{tmp_path}/{name}"
    assert save_profile(PROFILE, path) == path
    assert load_profile(path) == PROFILE
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.toml", "peak_memory = ", "valid TOML or JSON"),
        ("x.json", "{", "valid TOML or JSON"),
        ("x.json", "[1]", "a table of keys and values"),
        (
            "x.toml",
            "peak_mem = 3",
            "x.toml: peak_mem=3 is not valid: use 'peak_memory'",
        ),
        ("x.toml", 'peak_memory = "2 apples"', "x.toml: peak_memory='2 apples'"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(str(tmp_path / name))
    assert message in str(caught.value)


def test_a_file_that_cannot_be_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_profile(str(tmp_path / "x.toml"))
    with pytest.raises(ConfigError, match="a file to write"):
        save_profile(PROFILE, "/dev/null/x.toml")
    with pytest.raises(ConfigError, match="a name or a path"):
        load_profile("")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "-", " x", "a\nb", "a/b", "../x", "a/"),
        *("a:b", "history:x", "history:x.toml", ".toml", "a\x1b.toml"),
    ],
)
def test_a_name_that_is_none_is_an_error(name):
    with pytest.raises(ConfigError, match="a name that begins with a letter"):
        save_profile(PROFILE, name)


@pytest.mark.parametrize("name", ["x", "größe 2", "v1.2", "7", "./history:x.toml"])
def test_a_good_name(name):
    check_name(name)


# --- Measured -----------------------------------------------------------------


def _methods():
    meter = make_meter()
    if meter:
        meter.close()
    return [
        pytest.param("proc", id="proc"),
        pytest.param(
            "cgroup",
            id="cgroup",
            marks=pytest.mark.skipif(meter is None, reason="no cgroup may be made"),
        ),
    ]


linux = pytest.mark.skipif(sys.platform != "linux", reason="measured by /proc")


#: task: (its arguments, its peak in MiB)
NEEDS = {
    "array": ((100,), 100),
    "array_for_a_moment": ((100,), 100),
    "untouched": ((300,), 0),
    "native": ((100,), 100),
    "fork_readers": ((150, 2), 150),
    "fork_writer": ((150, 50), 200),
    "start_short_commands": ((150,), 150),
    "wait": ((0.05,), 0),
}


@pytest.mark.hazard(12)
@linux
@pytest.mark.flaky(reruns=2)  # it measures
@pytest.mark.parametrize("method", _methods())
@pytest.mark.parametrize("name", NEEDS)
def test_the_peak_is_what_the_task_needs(name, method):
    arguments, mebibytes = NEEDS[name]
    profile = profile_task(getattr(tasks, name), *arguments, method=method)
    # A process of its own, and its tables of pages, are two or three MiB. Processes of
    # a tree are looked at one after the other, so what they share may count twice.
    twice = 1.2 if name.startswith("fork") and method == "proc" else 1.0
    assert 0.95 * mebibytes - 2 < profile.peak_memory / MIB
    assert profile.peak_memory / MIB < 1.05 * twice * mebibytes + 5
    assert profile.method == method
    assert 5 * MIB < profile.idle_memory < 60 * MIB


@pytest.mark.hazard(12)
@linux
@pytest.mark.flaky(reruns=2)  # it measures
@pytest.mark.parametrize("method", _methods())
def test_subprocesses_count_side_by_side(method):
    profile = profile_task(tasks.children, 60, 3, method=method)
    assert 175 * MIB < profile.peak_memory < 230 * MIB


@linux
@pytest.mark.parametrize("method", _methods())
def test_pages_of_files_do_not_count(method, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * (100 * MIB))
    profile = profile_task(tasks.read_a_file, str(path), method=method)
    assert profile.peak_memory < 4 * MIB


@pytest.mark.hazard(13)
@linux
def test_nothing_is_inherited_from_the_parent():
    kept = bytearray(b"x") * (300 * MIB)
    profile = profile_task(tasks.array, 50)
    assert profile.peak_memory < 60 * MIB
    assert profile.idle_memory < 60 * MIB
    del kept


@pytest.mark.flaky(reruns=2)  # it measures
def test_elsewhere_psutil_measures():
    profile = profile_task(tasks.children, 80, 1, method="psutil")
    assert 70 * MIB < profile.peak_memory < 110 * MIB
    assert profile.method == "psutil"


@pytest.mark.flaky(reruns=2)  # it measures
def test_seconds_and_share():
    busy = profile_task(tasks.compute, 0.3)
    assert busy.cpu == pytest.approx(0.3, abs=0.1)
    waiting = profile_task(tasks.wait, 0.5)
    assert waiting.wall > 0.45
    assert waiting.cpu_share < 0.3


def test_what_it_took_to_get_ready_is_no_part_of_the_task():
    import heavy_start

    for method in ("proc", None):
        profile = profile_task(heavy_start.array, 50, method=method)
        assert profile.peak_memory / MIB == pytest.approx(50, abs=4)
        assert profile.idle_memory < 60 * MIB


def test_arguments_belong_to_the_task():
    profile = profile_task(len, b"x" * (50 * MIB))
    assert profile.idle_memory < 40 * MIB
    assert profile.peak_memory >= 50 * MIB


@linux
@pytest.mark.flaky(reruns=2)  # it measures
@pytest.mark.parametrize(
    ("task", "arguments", "least", "most"),
    [
        (tasks.compute, (0.004,), 0.8, 1.0),
        (tasks.wait, (0.02,), 0.0, 0.2),
        (tasks.wait_and_compute, (0.01, 0.01), 0.3, 0.7),
        (abs, (-1,), 0.8, 1.0),
    ],
)
def test_the_share_of_a_short_task_is_measured(task, arguments, least, most):
    profile = profile_task(task, *arguments)
    assert profile.threads == 1
    assert least <= profile.cpu_share <= most
    assert profile.wall < 0.05


@pytest.mark.parametrize("end", ["raise", "exit", "wait"])
def test_a_short_task_that_works_only_once_is_measured_once(end, tmp_path):
    profile = profile_task(tasks.work_once, str(tmp_path / "once"), end)
    assert (profile.threads, profile.cpu_share) == (1, 1.0)


@pytest.mark.parametrize(
    ("present", "seen", "limit"),
    [
        ({}, "1", 1),
        ({"OMP_NUM_THREADS": "3"}, "3", 3),
        ({"OMP_NUM_THREADS": "4,2"}, "4,2", None),
        ({"OMP_NUM_THREADS": "2", "CORESIZE_SET": "OMP_NUM_THREADS=2"}, "1", 1),
    ],
)
def test_a_task_is_measured_with_the_threads_of_a_worker(present, seen, limit):
    program = (
        "from coresize import profile_task; import tasks\n"
        "print(profile_task(tasks.require_variable, 'OMP_NUM_THREADS', "
        f"{seen!r}).thread_limit)"
    )
    environment = {
        name: text for name, text in os.environ.items() if "THREADS" not in name
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, **present},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{limit}\n", "")


def test_several_runs_keep_the_largest_peak():
    profile = profile_task(tasks.array, 20, repeat=3)
    assert len(profile.peaks) == 3
    assert profile.peak_memory == max(profile.peaks)


def test_an_error_of_the_task_is_itself_with_its_traceback():
    with pytest.raises(ValueError, match="boo") as caught:
        profile_task(tasks.fail, "boo")
    assert "tasks.py" in str(caught.value.__cause__)


def test_an_error_of_the_system_is_itself():
    with pytest.raises(FileNotFoundError):
        profile_task(Path.read_text, Path("/no/such/file"))


def test_an_error_that_cannot_travel_keeps_its_text():
    with pytest.raises(TransferError, match="OddError: one and two"):
        profile_task(tasks.refuse, "one", "two")


def test_a_killed_task_says_by_what_and_how_much_it_had():
    with pytest.raises(TaskKilledError, match="SIGKILL") as caught:
        profile_task(tasks.kill_itself, 50)
    assert (caught.value.signal, caught.value.exit_code) == (signal.SIGKILL, -9)
    assert caught.value.peak_memory > 45 * MIB
    assert "memory limit" in str(caught.value)


def test_a_task_that_leaves_is_an_error():
    with pytest.raises(TaskKilledError, match="exit status 7") as caught:
        profile_task(tasks.leave, 7)
    assert (caught.value.signal, caught.value.exit_code) == (None, 7)


def test_a_task_that_dies_with_children_alive_is_no_hang():
    with pytest.raises(TaskKilledError, match="SIGKILL"):
        profile_task(tasks.die_with_a_child_alive)


def test_a_task_that_closes_the_pipe_is_no_hang():
    with pytest.raises(TaskKilledError):
        profile_task(tasks.close_files)


def test_a_task_may_clean_up(tmp_path):
    profile_task(tasks.leave_a_note_at_exit, str(tmp_path / "note"))
    assert (tmp_path / "note").exists()


def test_a_program_on_standard_input_may_measure():
    program = "from coresize import profile_task; print(profile_task(abs, 1).threads)"
    done = subprocess.run(
        [sys.executable, "-"],
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_functions_of_a_prompt_travel_by_cloudpickle():
    program = (
        "from coresize import profile_task\n"
        "def f(): return bytearray(b'x') * 20_000_000\n"
        "print(profile_task(f).peak_memory > 15_000_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


def test_a_program_without_a_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from coresize import profile_task, run_batch\n"
        "print(run_batch(abs, [-1], executor='serial').results())\n"
        "profile_task(abs, -1)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "[1]\n")
    assert done.stderr.count("put what starts the work below") == 1


def test_a_lambda_travels_by_cloudpickle():
    assert profile_task(lambda: bytearray(b"x") * MIB).peak_memory < 5 * MIB


def test_what_cannot_be_sent_is_an_error_that_says_what_to_do():
    with pytest.raises(TransferError, match="cannot be sent"):
        profile_task(print, (one for one in ()))


@pytest.mark.parametrize(
    "given", [{"repeat": 0}, {"repeat": 1.5}, {"method": "tracemalloc"}]
)
def test_bad_arguments_are_errors(given):
    with pytest.raises(ConfigError):
        profile_task(tasks.wait, 0, **given)


# --- Commands -----------------------------------------------------------------

PROGRAM = "kept = bytearray(b'x') * (100 << 20)"


@linux
@pytest.mark.flaky(reruns=2)  # it measures
@pytest.mark.parametrize("method", _methods())
def test_a_command_is_measured_whole(method):
    run = measure_command([sys.executable, "-S", "-E", "-c", PROGRAM], method)
    # The interpreter is a part of it; the end may come right after the peak.
    assert 100 * MIB < run.peak < 115 * MIB
    assert (run.exit_code, run.idle) == (0, 0)
    assert run.cpu > 0


def test_how_a_command_ends_is_told():
    run = measure_command(["sh", "-c", "exit 3"])
    assert run.exit_code == 3
    run = measure_command(["sh", "-c", "kill -TERM $$"])
    assert run.exit_code == -signal.SIGTERM


def test_a_profile_is_json(tmp_path):
    path = str(tmp_path / "x.json")
    save_profile(PROFILE, path)
    assert json.loads(Path(path).read_text())["peak_memory"] == 2 * 1024**3
