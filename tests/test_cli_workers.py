"""The commands that plan, measure and hand on."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time

import pytest

from coresize import load_profile, processes
from coresize.planning import exports
from coresize.recording import hostfile
from coresize.testing import container


GIB = 1024**3


@pytest.fixture
def host(tmp_path):
    path = tmp_path / "host.toml"
    path.write_text(hostfile.dumps(container(cpus=16, memory="16GiB", used=0)))
    return path


# --- workers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("", 16),
        ("--memory 2GiB", 6),
        ("--memory 2GiB --tasks 4", 4),
        ("--kind io", 80),
        ("--kind io --max-workers 20", 20),
        ("--reserve 1", 15),
        ("--cpus 2", 8),
        ("--memory 2GiB --memory-fraction 0.5", 4),
        ("--memory 2GiB --workers 9", 9),
        ("--no-parallel", 1),
        ("--memory 20GiB", 1),
    ],
)
def test_workers_prints_the_integer_alone(call, host, words, count):
    done = call("workers", "--host", host, *words.split())
    assert (done.stdout, done.returncode) == (f"{count}\n", 0)


def test_workers_warns_on_standard_error(run, host):
    done = run("workers", "--host", host, "--memory", "20GiB")
    assert "not even one task fits into memory" in done.stderr
    strict = run("workers", "--host", host, "--memory", "20GiB", "--strict")
    assert (strict.stdout, strict.returncode) == ("", 1)
    assert str(20 * GIB) in strict.stderr


def test_workers_explains(call, host):
    (host.parent / "coresize.toml").write_text("reserve_cores = 1\n")
    out = call("workers", "--host", host, "--memory", "1.8GiB", "--explain").stdout
    assert out.startswith("WORKERS  7\n")
    # A recorded machine has no working directory: that file is this machine's.
    assert "16      cpu" in out
    here = call("workers", "--explain").stdout
    assert "reserve_cores = 1" in here
    # A long path is broken into lines.
    assert f"{host.parent}/coresize.toml" in "".join(here.split())
    assert max(map(len, out.splitlines())) <= 80


def test_workers_json_has_the_fields_that_programs_rely_on(call, host):
    words = ("workers", "--host", host, "--memory", "2GiB", "--json")
    answer = json.loads(call(*words).stdout)
    settings = answer.pop("settings")
    assert answer == {
        "workers": 6,
        "threads_per_worker": 2,
        "memory_per_worker": 2 * GIB,
        "binding": "memory",
        "bounds": {"cpu": 16, "memory": 6},
        "reason": "6 workers: memory binds (12.8 GiB budget / 2.0 GiB a task); "
        "cores would allow 16",
        "warnings": [],
        "warning_codes": [],
    }
    assert settings[0] == {"name": "workers", "value": None, "origin": "default"}


def test_a_flag_beats_the_file_and_the_report_shows_both(call, tmp_path):
    (tmp_path / "coresize.toml").write_text("parallel = false\n")
    env = {"CORESIZE_OVERRIDE_CORES": "4"}
    assert call("workers", env=env).stdout == "1\n"
    assert call("workers", "--parallel", env=env).stdout == "4\n"
    assert call("workers", "--workers", "3", env=env).stdout == "3\n"
    rows = json.loads(call("report", "--json").stdout)["settings"]
    assert {
        key: row[key]
        for row in rows
        for key in ("name", "value")
        if row["origin"].endswith("coresize.toml")
    } == {"name": "parallel", "value": False}
    assert "parallel = false" in call("report").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("workers --memory 2apples", "memory='2apples'"),
        ("workers --tasks -1", "tasks=-1"),
        ("workers --kind x", "kind='x'"),
        ("workers --profile nope", "profile='nope'"),
        ("workers --workers 0", "command line: workers=0"),
        ("workers --memory-fraction 2", "command line: memory_fraction=2.0"),
        ("workers --config nope.toml", "file='nope.toml'"),
        ("workers --json --explain", "not allowed with"),
        ("run", "no program is named"),
        ("run --", "no program is named"),
        ("profile", "no program is named"),
        ("profile --repeat 0 -- true", "repeat=0"),
        ("profile --method x -- true", "method='x'"),
    ],
)
def test_bad_usage_exits_2_with_a_message(call, words, message):
    done = call(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- profile ------------------------------------------------------------------

HOLD = "kept = bytearray(b'x') * (50 << 20); print('said')"


def test_profile_json_has_the_fields_that_programs_rely_on(run):
    done = run("profile", "--json", "--", sys.executable, "-c", HOLD)
    answer = json.loads(done.stdout)
    assert set(answer) >= {
        *("peak_memory", "idle_memory", "wall", "cpu", "cpu_share", "threads"),
        *("exit_code", "method"),
    }
    assert 50 << 20 < answer["peak_memory"] < 80 << 20
    assert answer["exit_code"] == done.returncode == 0
    assert done.stderr == "said\n"


def test_what_a_program_says_is_never_in_the_answer():
    """Not where standard error is closed, either."""
    command = [sys.executable, "-m", "coresize", "profile", "--json", "--"]
    words = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command, "echo", "said"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    assert json.loads(done.stdout)["exit_code"] == done.returncode == 0


def test_a_saved_profile_sizes_the_next_run(run, call, tmp_path):
    words = ("--repeat", 2, "--save", "hold", "--", sys.executable, "-c", HOLD)
    out = run("profile", *words)
    assert "the largest of 2 runs" in out.stdout
    path = tmp_path / "coresize" / "profiles" / "hold.toml"
    assert f"saved to {path}" in out.stderr
    assert len(load_profile(str(path)).peaks) == 2
    answer = json.loads(call("workers", "--profile", "hold", "--json").stdout)
    assert 50 << 20 < answer["memory_per_worker"] < 80 << 20


def test_what_cannot_be_saved_is_printed_all_the_same(run):
    done = run("profile", "--json", "--save", "/dev/null/x.toml", "--", "true")
    assert (json.loads(done.stdout)["exit_code"], done.returncode) == (0, 2)
    assert "a file to write" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_profile_that_is_ended_ends_its_program(number):
    words = ["sh", "-c", "echo started >&2; sleep 77; true"]
    command = [sys.executable, "-m", "coresize", "profile", "--", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "started\n"
        while len(tree := processes.descendants(process.pid)) < 3:
            time.sleep(0.02)  # it is to start to sleep, too
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert [pid for pid in tree if processes.read(pid, "cmdline")] == []


def test_a_signal_that_is_ignored_ends_nothing():
    """As nohup does it."""
    program = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'coresize', *sys.argv[1:]])"
    )
    words = ["profile", "--", "sh", "-c", "echo started >&2; sleep 0.5; exit 3"]
    command = [sys.executable, "-c", program, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "started\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 3


@pytest.mark.parametrize("words", [("--method", "x"), ("--save", "history:x")])
def test_what_is_wrong_starts_nothing(call, words, tmp_path):
    done = call("profile", *words, "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 2
    assert not (tmp_path / "ran").exists()


def test_how_a_program_ends_is_known_where_signals_of_children_are_ignored():
    program = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'coresize', *sys.argv[1:]])"
    )
    words = ["profile", "--json", "--", "sh", "-c", "exit 3"]
    done = subprocess.run([sys.executable, "-c", program, *words], check=False)
    assert done.returncode == 3


def test_a_profile_of_a_failure_gives_no_advice(run):
    out = run("profile", "--", "sh", "-c", "kill -KILL $$").stdout
    assert "ENDED    it was ended by SIGKILL" in out
    assert "memory limit" in out
    assert "--memory" not in out
    assert "The command failed" in run("profile", "--", "sh", "-c", "exit 3").stdout


def test_profile_ends_as_its_program_does_and_saves_no_failure(run, call, tmp_path):
    done = run("profile", "--save", "x", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert "nothing is saved" in done.stderr
    assert not (tmp_path / "coresize").exists()
    assert run("profile", "--", "sh", "-c", "kill -KILL $$").returncode == 137
    assert call("profile", "--", "no-such-program").returncode == 127
    assert call("profile", "--", tmp_path).returncode == 126


# --- env and run --------------------------------------------------------------

NAMES = {
    *exports.PROCESSES,
    *exports.THREADS,
    *exports.OPTIONS,
    "GOMEMLIMIT",
    "UV_THREADPOOL_SIZE",
}


def test_env_is_for_shells(run, call, host):
    text = run("env", "--host", host).stdout
    script = f"{text}\nenv"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env={}, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: found[name] for name in NAMES} == json.loads(
        call("env", "--host", host, "--json").stdout
    )
    assert all(line.startswith("export ") for line in text.splitlines())


def test_env_is_for_dotenv(call, host):
    lines = call("env", "--host", host, "--dotenv").stdout.splitlines()
    assert dict(line.split("=", 1) for line in lines) == json.loads(
        call("env", "--host", host, "--json").stdout
    )


def test_alone_a_program_gets_all_and_as_one_of_several_its_share(call, host):
    alone = json.loads(call("env", "--host", host, "--json").stdout)
    assert set(alone) == NAMES
    assert {alone[name] for name in (*exports.PROCESSES, *exports.THREADS)} == {"16"}
    assert alone["UV_THREADPOOL_SIZE"] == "16"
    assert int(alone["GOMEMLIMIT"]) == pytest.approx(16 * GIB * 0.8)
    words = ("env", "--host", host, "--json", "--memory", "2GiB")
    several = json.loads(call(*words).stdout)
    assert {several[name] for name in exports.PROCESSES} == {"6"}
    assert {several[name] for name in exports.THREADS} == {"2"}
    assert (several["MAKEFLAGS"], several["GOMEMLIMIT"]) == ("-j6", str(2 * GIB))


def test_what_the_user_has_set_stays_unless_forced(call):
    env = {"OMP_NUM_THREADS": "77", "MAKEFLAGS": "k", "JAVA_TOOL_OPTIONS": "-Xmx1g"}
    kept = json.loads(call("env", "--json", env=env).stdout)
    assert "OMP_NUM_THREADS" not in kept
    assert kept["MAKEFLAGS"].startswith("-j")
    assert kept["MAKEFLAGS"].endswith(" -k")
    # Of two options the JVM obeys the last: the user's.
    assert kept["JAVA_TOOL_OPTIONS"].startswith("-XX:ActiveProcessorCount=")
    assert kept["JAVA_TOOL_OPTIONS"].endswith(" -Xmx1g")
    forced = json.loads(call("env", "--json", "--force", env=env).stdout)
    assert forced["OMP_NUM_THREADS"] == forced["MKL_NUM_THREADS"]
    theirs = {"MAKEFLAGS": "-j7", "JAVA_TOOL_OPTIONS": "-XX:ActiveProcessorCount=7"}
    assert not set(theirs) & set(json.loads(call("env", "--json", env=theirs).stdout))
    again = json.loads(call("env", "--json", "--force", env=theirs).stdout)
    assert "7" not in again["MAKEFLAGS"]


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ("j4", None),
        ("kj4", None),
        ("-j4", None),
        ("-j", None),
        ("--jobs=4", None),
        ("-k --jobs 4", None),
        ("k", "-j2 -k"),
        ("-l 3", "-j2 -l 3"),
        (" -- CC=clang", "-j2  -- CC=clang"),
        ("--no-print-directory", "-j2 --no-print-directory"),
    ],
)
def test_make_obeys_the_users_own_jobs(present, wanted):
    found = exports.wanted({"MAKEFLAGS": "-j2"}, {"MAKEFLAGS": present})
    assert found.get("MAKEFLAGS") == wanted


def test_a_reserve_is_taken_off_once(run):
    env = {"CORESIZE_OVERRIDE_CORES": "8", "CORESIZE_RESERVE_CORES": "2"}
    inner = (sys.executable, "-m", "coresize", "cores")
    words = ("run", "--", sys.executable, "-m", "coresize", "run", "--", *inner)
    assert run("cores", env=env).stdout == run(*words, env=env).stdout == "6\n"


def test_off_is_serial(call, host):
    words = ("env", "--host", host, "--json", "--no-parallel")
    found = json.loads(call(*words).stdout)
    assert {found[name] for name in (*exports.PROCESSES, *exports.THREADS)} == {"1"}


@pytest.mark.parametrize("option", [("--max-workers", 16), ("--workers", 16)])
def test_any_option_of_the_plan_makes_it_one_of_several(call, host, option):
    found = json.loads(call("env", "--host", host, "--json", *option).stdout)
    assert (found["MC_CORES"], found["OMP_NUM_THREADS"]) == ("16", "1")


def test_with_a_recorded_machine_the_users_variables_stay(run, host):
    words = ("run", "--host", host, "--", "sh", "-c", "echo $OMP_NUM_THREADS $MC_CORES")
    assert run(*words, env={"OMP_NUM_THREADS": "77"}).stdout == "77 16\n"


def test_a_settings_file_that_is_named_is_this_machines(call, host):
    (host.parent / "c.toml").write_text("workers = 5\n")
    assert call("workers", "--host", host, "--config", "c.toml").stdout == "5\n"


def test_run_leaves_signals_as_they_were(run):
    assert "Broken pipe" not in run("run", "--", "sh", "-c", "yes | head -1").stderr
    seen = run("run", "--", "grep", "SigIgn", "/proc/self/status").stdout
    assert int(seen.split()[1], 16) & (1 << signal.SIGPIPE - 1) == 0


def test_run_sets_them_and_is_the_program(run):
    env = {"CORESIZE_OVERRIDE_CORES": "3"}
    done = run("run", "--", "sh", "-c", "echo $OMP_NUM_THREADS $MAKEFLAGS", env=env)
    assert (done.stdout, done.returncode) == ("3 -j3\n", 0)
    assert run("run", "sh", "-c", "exit 5").returncode == 5
    assert run("run", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    assert run("run", "--", "no-such-program").returncode == 127
    nested = run("run", "--", sys.executable, "-m", "coresize", "cores", env=env)
    assert nested.stdout == "3\n"


def test_the_programs_own_words_are_not_touched(run):
    words = ("--json", "--", "-x", "--memory", "a b")
    done = run("run", "--", sys.executable, "-c", "import sys; print(sys.argv)", *words)
    assert done.stdout == f"{['-c', *words]}\n"


def test_values_are_quoted_for_the_shell(call):
    env = {"JAVA_TOOL_OPTIONS": "-Dname=$HOME'x  y"}
    out = call("env", env=env).stdout
    line = next(line for line in out.splitlines() if "JAVA_TOOL_OPTIONS" in line)
    assert shlex.split(line)[1].endswith(" -Dname=$HOME'x  y")
