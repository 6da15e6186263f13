"""One precedence, and errors that say where the wrong thing stands."""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys

import pytest

from coresize import ConfigError, Settings, detect, load_settings, plan_workers
from coresize.host import Live
from coresize.testing import container, use_host


class Here(Live):
    """This machine, with an environment of the test's own."""

    def __init__(self, env):
        self.env = env

    def variables(self, names):
        return {name: self.env[name] for name in names if self.env.get(name)}

    def names(self, prefix):
        return [name for name in self.env if name.startswith(prefix)]


@pytest.fixture
def load(tmp_path):
    """The settings that are found in a folder with these files."""

    def load(files=None, env=None, folder=".", **given):
        for name, text in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        with contextlib.chdir(tmp_path / folder):
            settings = load_settings(host=Here(env or {}), **given)
        return {row["name"]: row for row in settings.rows()}

    return load


def test_the_precedence(load):
    files = {"coresize.toml": "workers = 1\nreserve_cores = 1\nmemory_fraction = 0.1\n"}
    env = {"CORESIZE_WORKERS": "2", "CORESIZE_RESERVE_CORES": "2"}
    found = load(files, env, command_line={"workers": 3})
    assert (found["workers"]["value"], found["workers"]["origin"]) == (
        3,
        "command line",
    )
    assert (found["reserve_cores"]["value"], found["reserve_cores"]["origin"]) == (
        2,
        "CORESIZE_RESERVE_CORES",
    )
    assert found["memory_fraction"]["value"] == 0.1
    assert found["memory_fraction"]["origin"].endswith("/coresize.toml")
    assert found["rounding"] == {
        "name": "rounding",
        "value": "nearest",
        "origin": "default",
    }
    strongest = load(files, env, command_line={"workers": 3}, arguments={"workers": 4})
    assert strongest["workers"]["value"] == 4


def test_nothing_set_is_all_defaults(load):
    assert {row["origin"] for row in load().values()} == {"default"}


@pytest.mark.parametrize(
    ("files", "folder", "workers"),
    [
        ({"pyproject.toml": "[tool.coresize]\nworkers = 5"}, ".", 5),
        ({"coresize.toml": "workers = 5"}, ".", 5),
        ({"coresize.toml": "[coresize]\nworkers = 5"}, ".", 5),
        ({"coresize.toml": "workers = 5", "a/b/x": ""}, "a/b", 5),
        (
            {"coresize.toml": "workers = 5", "a/pyproject.toml": "[tool.other]\nx = 1"},
            "a",
            5,
        ),
        ({"coresize.toml": "workers = 5", "a/coresize.toml": "workers = 6"}, "a", 6),
        (
            {
                "coresize.toml": "workers = 5",
                "pyproject.toml": "[tool.coresize]\nworkers = 6",
            },
            ".",
            5,
        ),
        ({"pyproject.toml": "[tool]"}, ".", None),
    ],
)
def test_the_nearest_file_is_found(load, files, folder, workers):
    assert load(files, folder=folder)["workers"]["value"] == workers


def test_another_programs_file_is_passed_over_whatever_is_wrong_with_it(load):
    files = {"coresize.toml": "workers = 5", "a/pyproject.toml": "{{ template }}"}
    assert load(files, folder="a")["workers"]["value"] == 5
    with pytest.raises(ConfigError, match="valid TOML"):
        load(files, folder="a", file="pyproject.toml")
    # That it was named once does not end a later search.
    assert load(folder="a")["workers"]["value"] == 5


def test_what_is_found_is_ones_own(load, tmp_path):
    load({"coresize.toml": '[profiles.a]\npeak_memory = "5MB"'})
    with contextlib.chdir(tmp_path):
        for _ in range(2):
            settings = load_settings(host=Here({}))
            assert set(settings.profiles) == {"a"}
            settings.profiles["b"] = settings.kinds["b"] = None


@pytest.mark.parametrize("text", ["false", "0", "[]", "text"])
def test_yaml_that_is_no_table_is_an_error(load, text):
    with pytest.raises(ConfigError, match="a table of keys and values"):
        load({"c.yaml": text}, {"CORESIZE_CONFIG": "c.yaml"})
    assert load({"c.yaml": "# nothing"}, file="c.yaml")["workers"]["value"] is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.toml", "workers = 5"),
        ("pyproject.toml", "[tool.coresize]\nworkers = 5"),
        ("x.yaml", "workers: 5"),
        ("x.yml", "coresize:\n  workers: 5\nbenchmark:\n  cases: 3"),
    ],
)
def test_a_file_may_be_named(load, name, text):
    files = {f"conf/{name}": text, "coresize.toml": "workers = 9"}
    by_variable = load(files, {"CORESIZE_CONFIG": f"conf/{name}"})
    assert by_variable["workers"]["value"] == 5
    assert load(files, file=f"conf/{name}")["workers"]["origin"] == f"conf/{name}"


def test_without_pyyaml_the_extra_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("workers: 2")
    (tmp_path / "yaml.py").write_text("raise ImportError('no yaml')")
    program = "from coresize import load_settings; load_settings(file='c.yaml')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "coresize[yaml]" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wokers = 3", "coresize.toml: wokers=3 is not valid: use 'workers' instead"),
        ("qqq = 3", "one of the known keys: history, kinds"),
        ("workers = 0", "coresize.toml: workers=0 is not valid: use a whole number"),
        ("workers = true", "workers=True"),
        ('workers = "4"', "workers='4'"),
        ("parallel = 3", "on or off"),
        ("memory_fraction = 1.5", "above 0 and up to 1"),
        ('rounding = "up"', '"nearest", "floor" or "ceil"'),
        ("profiles = 3", "a table of tables"),
        (
            '[profiles.a]\npeak_memory = "2 apples"',
            "profiles.a: peak_memory='2 apples'",
        ),
        ("[profiles.a]\npeak_mem = 3", "'peak_memory' instead"),
        ("[kinds.a]\nresource = {}", "kinds.a: resource={} is not valid"),
        ("[kinds.a]\nresources = {ram = '4 apples'}", "kinds.a.resources: ram="),
        ("[kinds.a]\nresources = {cpu = 0}", "a number of cores above 0"),
        ("[kinds.a]\nresources = {disk = 0}", "kinds.a.resources: disk=0"),
        ("workers = ", "valid TOML"),
        ("a = " + "[" * 5000, "valid TOML"),
        ("[kinds.a]\nresources = {memory = '4 apples'}", "memory='4 apples'"),
        ("[kinds.a]\nresources = {cpus = 0}", "a number of cores above 0"),
    ],
)
def test_a_wrong_file_is_an_error(load, text, message):
    with pytest.raises(ConfigError) as caught:
        load({"coresize.toml": text})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"CORESIZE_WORKERS": "0"}, "CORESIZE_WORKERS='0'"),
        ({"CORESIZE_WORKERS": "4.0"}, "CORESIZE_WORKERS='4.0'"),
        ({"CORESIZE_RESERVE_CORES": "1_0"}, "CORESIZE_RESERVE_CORES='1_0'"),
        ({"CORESIZE_WORKERS": "4.5"}, "a whole number of workers above 0"),
        ({"CORESIZE_PARALLEL": "maybe"}, "CORESIZE_PARALLEL='maybe'"),
        ({"CORESIZE_MEMORY_FRACTION": "80%"}, "CORESIZE_MEMORY_FRACTION='80%'"),
        ({"CORESIZE_ROUNDING": "up"}, "CORESIZE_ROUNDING='up'"),
        ({"CORESIZE_RESERVE_CORES": "-1"}, "CORESIZE_RESERVE_CORES='-1'"),
        ({"CORESIZE_CONFIG": "/no/such.toml"}, "CORESIZE_CONFIG='/no/such.toml'"),
    ],
)
def test_a_wrong_variable_is_an_error(load, env, message):
    with pytest.raises(ConfigError) as caught:
        load(env=env)
    assert message in str(caught.value)


def test_a_wrong_value_is_an_error_even_where_a_stronger_one_wins(load):
    with pytest.raises(ConfigError):
        load({"coresize.toml": "workers = -1"}, command_line={"workers": 3})


@pytest.mark.parametrize("off", ["0", "false", "off", "no", "n", "f"])
def test_ways_to_say_off(off):
    host = container(env={"CORESIZE_PARALLEL": off})
    assert load_settings(host=host).parallel is False


def test_a_flag_beats_the_file(load):
    files = {"coresize.toml": "parallel = false"}
    assert load(files)["parallel"]["value"] is False
    by_flag = load(files, command_line={"parallel": True})["parallel"]
    assert (by_flag["value"], by_flag["origin"]) == (True, "command line")
    by_count = load(files, command_line={"workers": 4})["parallel"]
    assert (by_count["value"], by_count["origin"]) == (
        True,
        "command line, for workers",
    )
    weaker = load({"coresize.toml": "workers = 4"}, {"CORESIZE_PARALLEL": "0"})
    assert weaker["parallel"]["value"] is False


def test_flags_of_another_program_are_passed_over(load):
    flags = argparse.Namespace(workers=3, cases="all", memory="1GB", parallel=None)
    found = load(command_line=flags)
    assert (found["workers"]["value"], found["parallel"]["value"]) == (3, True)
    with pytest.raises(ConfigError, match="cases"):
        load(arguments=vars(flags))


def test_profiles_and_kinds_have_names(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(
        '[profiles.big]\npeak_memory = "2GiB"\n'
        '[kinds.align]\nresources = { cpu = 2, ram = "4GB", gpu = 0 }\n'
        '[kinds.scan]\nprofile = "big"\n'
    )
    settings = load_settings(file=str(path))
    assert isinstance(settings, Settings)
    assert settings.profiles["big"].peak_memory == 2 * 1024**3
    assert settings.kinds["align"].resources.memory == 4 * 10**9
    limits = detect(container(cpus=16, memory="16GiB", used=0))
    by_name = plan_workers(profile="big", limits=limits, settings=settings)
    assert (by_name, by_name.memory_per_worker) == (6, 2 * 1024**3)
    of_kind = plan_workers(kind="align", limits=limits, settings=settings)
    assert (of_kind, of_kind.bounds["cpu"]) == (3, 8)
    scan = plan_workers(kind="scan", limits=limits, settings=settings)
    assert scan.bounds == by_name.bounds


def test_a_variable_that_is_none_of_ours_is_told():
    env = {"CORESIZE_OVERIDE_CORES": "3", "CORESIZE_SHARD": "0/4", "CORESIZE_ZZ": "y"}
    host = container(cpus=4, env=env)
    near, far = load_settings(host=host).warnings
    assert near.endswith("no effect: did you mean CORESIZE_OVERRIDE_CORES?")
    assert far == "CORESIZE_ZZ is no variable of coresize, and has no effect"
    with use_host(host):
        assert {near, far} <= {*plan_workers().warnings}


def test_the_own_defaults_of_a_program_are_the_weakest(load):
    found = load({"coresize.toml": "rounding = 'floor'"}, defaults={"workers": 3})
    assert (found["workers"]["value"], found["workers"]["origin"]) == (3, "default")
    given = {"workers": 3, "rounding": "ceil"}
    found = load(env={"CORESIZE_WORKERS": "5"}, defaults=given)
    assert (found["workers"]["value"], found["rounding"]["value"]) == (5, "floor")
