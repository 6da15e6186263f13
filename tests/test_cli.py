"""The command line: what is asked of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coresize import __version__
from coresize.recording import hostfile
from coresize.testing import container


HOSTS = Path(__file__).parent / "hosts"
EXAMPLE = HOSTS / "edge-C8.toml"


@pytest.fixture
def host(tmp_path):
    def write(**details):
        path = tmp_path / "host.toml"
        path.write_text(hostfile.dumps(container(**details)))
        return path

    return write


def test_report_is_the_default_command(run, call):
    done = run("--host", EXAMPLE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == call("report", "--host", EXAMPLE).stdout != ""


def test_report_fits_80_columns_and_says_what_binds(call):
    out = call("report", "--host", HOSTS / "edge-C20.toml").stdout
    lines = out.splitlines()
    assert lines[0] == "CPU      2 cores"
    assert 'set by cgroup1:cpu.cfs_quota_us = "200000 100000"' in out
    assert "MEMORY   1.0 GiB available now" in lines
    assert max(map(len, lines)) <= 80


def test_json_has_the_fields_that_programs_rely_on(call):
    answer = json.loads(call("report", "--host", EXAMPLE, "--json").stdout)
    assert answer["cpu"] == {
        "limit": 1.5,
        "cores": 2,
        "reserve": 0,
        "quota": 1.5,
        "affinity": 16,
        "capacity": 16,
        "binding": {
            "resource": "cpu",
            "amount": 1.5,
            "role": "limit",
            "source": "cgroup2:cpu.max",
            "where": "/sys/fs/cgroup/a/b/cpu.max",
            "raw": "150000 100000",
        },
    }
    assert answer["memory"]["limit"] == 2147483648
    assert set(answer) >= {"coresize", "cpu", "memory", "facts", "gaps", "warnings"}
    assert set(answer["memory"]) >= {"soft_limit", "available", "total", "binding"}


def test_nothing_known_is_null_in_json(call, tmp_path):
    path = tmp_path / "host.toml"
    path.write_text("format = 1\n")
    answer = json.loads(call("--json", "--host", path).stdout)
    assert (answer["cpu"]["limit"], answer["cpu"]["cores"]) == (None, 1)
    assert answer["memory"]["limit"] is None
    assert call("--host", path).returncode == 0


def test_cores_prints_an_integer(run, call, host):
    path = host(quota=2.5)
    assert run("cores", "--host", path).stdout == "3\n"
    assert call("cores", "--host", path, "--rounding", "floor").stdout == "2\n"
    assert call("cores", "--host", path, "--reserve", "1").stdout == "2\n"
    assert call("cores", env={"CORESIZE_OVERRIDE_CORES": "5"}).stdout == "5\n"
    told = call("report", "--json", env={"CORESIZE_CORES": "5"})
    assert "CORESIZE_CORES is no variable" in json.loads(told.stdout)["warnings"][-1]


def test_memory_prints_an_integer(run, host):
    assert run("memory", "--host", host(memory="512MiB", used="12MiB")).stdout == (
        f"{500 * 1024**2}\n"
    )


def test_the_reserve_shows_in_the_report(call, host):
    path = host(cpus=8, env={"CORESIZE_RESERVE_CORES": "2"})
    # The recording holds the variable, as every other that detection reads.
    assert "2 to keep free" in call("--host", path).stdout
    assert json.loads(call("--json", "--host", path).stdout)["cpu"]["cores"] == 6


def test_record_and_replay(run, call, tmp_path):
    path = tmp_path / "here.toml"
    assert run("record", path, "--note", "here").returncode == 0
    then = json.loads(call("--json").stdout)
    replayed = json.loads(call("--json", "--host", path).stdout)
    assert replayed["cpu"] == then["cpu"]
    assert replayed["memory"]["limit"] == then["memory"]["limit"]
    assert run("record", "-").stdout.startswith(
        f"# Recorded by coresize {__version__}\n"
    )
    assert call("record", path).returncode == 0  # a host file may be replaced


def test_record_does_not_overwrite_other_files(call, tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    done = call("record", path)
    assert (done.returncode, path.read_text()) == (2, "years of work")
    assert str(path) in done.stderr


@pytest.mark.parametrize(
    ("words", "env", "message"),
    [
        (["frobnicate"], {}, "frobnicate"),
        (["report", "--frobnicate"], {}, "--frobnicate"),
        (["cores", "--reserve", "-1"], {}, "reserve=-1"),
        (["cores", "--reserve", "x"], {}, "--reserve"),
        (["--host", "/no/such/file"], {}, "/no/such/file: No such file"),
        (["--host", __file__], {}, "not TOML"),
        (["record", "/no/such/folder/x"], {}, "/no/such/folder/x"),
        ([], {"CORESIZE_OVERRIDE_CORES": "8,5"}, "CORESIZE_OVERRIDE_CORES='8,5'"),
        (["cores"], {"CORESIZE_MAX_CORES": "nan"}, "CORESIZE_MAX_CORES='nan'"),
        (["memory"], {"CORESIZE_MAX_MEMORY": "0"}, "CORESIZE_MAX_MEMORY='0'"),
        (["cores"], {"CORESIZE_PARALLEL": "maybe"}, "CORESIZE_PARALLEL='maybe'"),
        (["memory"], {"CORESIZE_WORKERS": "0"}, "CORESIZE_WORKERS='0'"),
        (["cores"], {"CORESIZE_CONFIG": "/nowhere.toml"}, "/nowhere.toml"),
    ],
)
def test_bad_usage_exits_2_with_a_message(call, words, env, message):
    done = call(*words, env=env)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("cores --reserve 1", 0),
        ("cores --reserve -1", 2),
        ("cores --reserve x", 2),
        ("workers --memory 9000TiB --strict", 1),
    ],
)
def test_what_is_called_ends_as_the_program_does(run, call, words, code):
    done, called = run(*words.split()), call(*words.split())
    assert done.returncode == called.returncode == code
    assert done.stdout == called.stdout
    assert (done.stderr == "") is (called.stderr == "") is (code == 0)
    assert "Traceback" not in done.stderr


def test_version_and_help(run, call):
    assert run("--version").stdout == f"coresize {__version__}\n"
    assert "make -j$(coresize cores)" in call("--help").stdout


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{{ {sys.executable} -m coresize --json; echo $? >&2; }} | true"
    done = subprocess.run(
        ["bash", "-c", f"sleep 0.1; {command}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "0\n"


@pytest.mark.parametrize(
    ("redirection", "message"),
    [("> /dev/full", "cannot be written"), (">&-", "is closed")],
)
def test_output_that_cannot_be_written_is_said(redirection, message):
    command = f"{sys.executable} -m coresize cores {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("coresize: error: standard output")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_host_may_come_from_standard_input():
    done = subprocess.run(
        [sys.executable, "-m", "coresize", "cores", "--host", "-"],
        input=EXAMPLE.read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2\n"


def test_closed_streams_are_no_traceback():
    for redirection in ("--host - <&-", "2>&-"):
        command = f"{sys.executable} -m coresize cores {redirection}"
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            env={**os.environ, "CORESIZE_MAX_CORES": "x"},
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr


def test_a_misspelt_table_is_said(call, tmp_path):
    path = tmp_path / "host.toml"
    path.write_text("format = 1\n[hots]\ncpu_count = 8\n[host]\ncpus = 8\n")
    done = call("cores", "--host", path)
    assert done.stdout == "1\n"
    assert "'hots' is not known" in done.stderr
    assert "[host] cpus is not known" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_odd_names_are_printed_with_escapes(tmp_path, encoding):
    path = tmp_path / "host.toml"
    host = container()
    host.files["/proc/self/cgroup"] = "0::/\u00fc\u4e2d\udcff\x1b\n"
    host.files["/sys/fs/cgroup/\u00fc\u4e2d\udcff\x1b/cpu.max"] = "150000 100000\n"
    path.write_text(hostfile.dumps(host), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "coresize", "--host", path],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"CPU      2 cores\n")
    assert rb"\udcff\x1b/cpu.max" in done.stdout
