"""Flags that nobody typed change nothing, and other names of settings are read."""

from __future__ import annotations

import argparse
import collections
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import ConfigError, load_settings, plan_workers
from coresize.planning import settings_names
from coresize.testing import container


OFF = {"CORESIZE_PARALLEL": "0"}
ON = {"CORESIZE_PARALLEL": "1"}


def parser_of(*flags, **defaults):
    """A program's parser: each flag is its words for ``add_argument``."""
    parser = argparse.ArgumentParser()
    for name, words in flags:
        parser.add_argument(*name.split(), **words)
    parser.set_defaults(**defaults)
    return parser


WORKERS = ("-w --workers", {"type": int})
STORE_TRUE = ("--parallel", {"action": "store_true"})
STORE_FALSE = ("--serial", {"action": "store_false", "dest": "parallel"})
EITHER = ("--parallel", {"action": argparse.BooleanOptionalAction, "default": False})
SUPPRESSED = {"action": "store_true", "default": argparse.SUPPRESS}
OLD = ("--parallel-execution", {"action": "store_true"})


@pytest.mark.parametrize(
    ("flags", "typed", "file", "env", "expected"),
    [
        # nobody typed it
        ([STORE_TRUE], "", "", {}, (None, True)),
        ([STORE_TRUE], "", "parallel = true", {}, (None, True)),
        ([STORE_TRUE], "", "parallel = false", {}, (None, False)),
        ([STORE_TRUE], "", "", ON, (None, True)),
        ([STORE_TRUE], "", "parallel = true", OFF, (None, False)),
        ([STORE_FALSE], "", "parallel = false", {}, (None, False)),
        ([EITHER], "", "", {}, (None, True)),
        ([("--parallel", SUPPRESSED)], "", "", {}, (None, True)),
        ([OLD], "", "", {}, (None, True)),
        ([("-w --workers", {"type": int, "default": 1})], "", "", {}, (None, True)),
        ([("--workers", {"type": int, "default": "1"})], "", "", {}, (None, True)),
        ([("--jobs", {"type": int, "default": 1})], "", "workers = 5", {}, (5, True)),
        ([("--n-jobs", {"type": int, "default": -1})], "", "", {}, (None, True)),
        # a count alone is parallel
        ([STORE_TRUE, WORKERS], "-w 3", "", {}, (3, True)),
        ([STORE_TRUE, WORKERS], "-w 3", "parallel = false", {}, (3, True)),
        ([STORE_TRUE, WORKERS], "-w 3", "", OFF, (3, True)),
        (
            [OLD, ("--num-workers", {"type": int})],
            "--num-workers 3",
            "",
            OFF,
            (3, True),
        ),
        # somebody typed it
        ([STORE_TRUE], "--parallel", "parallel = false", OFF, (None, True)),
        ([STORE_FALSE], "--serial", "parallel = true", ON, (None, False)),
        ([STORE_FALSE, WORKERS], "--serial -w 3", "", ON, (3, False)),
        ([EITHER], "--parallel", "parallel = false", {}, (None, True)),
        ([OLD], "--parallel-execution", "", OFF, (None, True)),
        (
            [("--jobs", {"type": int, "default": 1})],
            "--jobs 4",
            "workers = 5",
            {},
            (4, True),
        ),
        ([("--processes", {"type": int})], "--processes 4", "", {}, (4, True)),
    ],
)
def test_a_flag_counts_if_somebody_typed_it(
    *, tmp_path, flags, typed, file, env, expected
):
    path = tmp_path / "c.toml"
    path.write_text(file)
    parser = parser_of(*flags)
    found = load_settings(
        command_line=parser.parse_args(typed.split()),
        parser=parser,
        file=path,
        host=container(env=env),
    )
    assert (found.workers, found.parallel) == expected
    assert found.warnings == ()


#: A flag and words for it. Each is a setting by some name, or another flag.
FLAGS = {
    "--workers": (["3", "7"], {"type": int}),
    "--num-workers": (["4"], {"type": int}),
    "--jobs": (["2"], {"type": int}),
    "--parallel": ([None], {"action": "store_true"}),
    "--parallel-execution": ([None], {"action": "store_true"}),
    "--rounding": (["floor", "ceil"], {}),
    "--reserve-cores": (["1"], {"type": int}),
    "--memory-fraction": (["0.5"], {"type": float}),
    "--history": ([None], {"action": "store_true"}),
    "--cases": (["all"], {}),
}
DEFAULTS = [None, argparse.SUPPRESS, "1", 0, 1, -1, 0.25, "x", (), False, True]
_ENV = {"CORESIZE_PARALLEL": "0", "CORESIZE_WORKERS": "5", "CORESIZE_ROUNDING": "ceil"}
HOSTS = st.sampled_from([{}, {"CORESIZE_N_JOBS": "6"}, _ENV]).map(
    lambda env: container(cpus=8, env=env)
)


@given(
    st.dictionaries(st.sampled_from(sorted(FLAGS)), st.sampled_from(DEFAULTS)),
    st.booleans(),
    HOSTS,
)
def test_law_a_value_that_nobody_stated_never_changes_the_answer(
    defaults, nested, host
):
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers() if nested else None
    own = commands.add_parser("go") if commands else parser
    if commands:
        other = commands.add_parser("stop")
        other.add_argument("--workers", type=int, default=9)
        other.set_defaults(function="stop")
        own.set_defaults(function="go")
    for name, default in defaults.items():
        words = {key: str for key in FLAGS[name][1] if key == "type"}
        own.add_argument(name, default=default, **(words or FLAGS[name][1]))
    flags = parser.parse_args(["go"] if nested else [])
    untouched = load_settings(host=host)
    assert load_settings(command_line=flags, parser=parser, host=host) == untouched
    as_table = vars(flags)
    assert load_settings(command_line=as_table, parser=parser, host=host) == untouched


@given(st.sampled_from(sorted(FLAGS)), st.data(), HOSTS)
def test_law_a_value_that_was_typed_is_the_answer_of_a_mapping(name, data, host):
    values, words = FLAGS[name]
    value = data.draw(st.sampled_from(values))
    parser = parser_of((name, words))
    flags = parser.parse_args([name] if value is None else [name, value])
    by_parser = load_settings(command_line=flags, parser=parser, host=host)
    assert by_parser == load_settings(command_line=vars(flags), host=host)


def test_a_sub_command_has_defaults_of_its_own():
    parser = argparse.ArgumentParser()
    parser.add_argument("--parallel", action="store_true")
    commands = parser.add_subparsers(dest="command")
    for name, count in (("one", 1), ("two", 2)):
        commands.add_parser(name).add_argument("--workers", type=int, default=count)
    for typed, workers in (
        ("one", None),
        ("two", None),
        ("one --workers 2", 2),
        ("two --workers 1", 1),
    ):
        flags = parser.parse_args(typed.split())
        found = load_settings(command_line=flags, parser=parser, host=container())
        assert found.workers == workers


@pytest.mark.parametrize(
    ("typed", "env", "expected"),
    [
        ([], {}, (None, True)),
        ([], OFF, (None, False)),
        (["--jobs", "3"], OFF, (3, True)),
        (["--parallel"], OFF, (None, True)),
        (["--jobs", "1"], {}, (1, True)),  # as the default, but typed
    ],
)
def test_click_tells_what_was_typed(typed, env, expected):
    click = pytest.importorskip("click")

    @click.command()
    @click.option("--jobs", default=1)
    @click.option("--parallel", is_flag=True)
    @click.pass_context
    def program(context, **flags):
        found = load_settings(
            command_line=flags, parser=context, host=container(env=env)
        )
        return found.workers, found.parallel

    assert program(typed, standalone_mode=False) == expected


@pytest.mark.parametrize(
    "flags",
    [
        {"workers": 3, "parallel": None},
        collections.OrderedDict(workers=3),
        types.MappingProxyType({"workers": 3}),
        argparse.Namespace(workers=3, parallel=None),
        {"num_workers": 3},
        argparse.Namespace(n_jobs=3, cases="all", jobs_file="x"),
    ],
)
def test_flags_may_be_of_any_parser(flags):
    found = load_settings(command_line=flags, host=container(env=OFF))
    assert (found.workers, found.parallel, found.warnings) == (3, True, ())


def test_without_a_parser_what_is_not_none_was_stated():
    flags = argparse.Namespace(workers=3, parallel=False)
    found = load_settings(command_line=flags, host=container())
    assert (found.workers, found.parallel) == (3, False)
    (sentence,) = found.warnings
    assert sentence.startswith("the flag workers=3 has no effect beside parallel=False")
    assert "load_settings(command_line=..., parser=...)" in sentence
    with_parser = load_settings(
        command_line=flags, parser=parser_of(STORE_TRUE, WORKERS), host=container()
    )
    assert (with_parser.parallel, with_parser.warnings) == (True, ())


@pytest.mark.parametrize("name", sorted(settings_names.OTHER_NAMES))
def test_other_names_are_read_everywhere_and_noted(tmp_path, name):
    known = settings_names.OTHER_NAMES[name]
    value, text = (3, "3") if known == "workers" else (False, "false")
    toml, yaml = tmp_path / "c.toml", tmp_path / "c.yaml"
    toml.write_text(f"{name} = {text}\n")
    yaml.write_text(f"coresize:\n  {name.replace('_', '-')}: {text}\n")
    variable = f"CORESIZE_{name.upper()}"
    for settings, noted in [
        (load_settings(arguments={name: value}, host=container()), True),
        (load_settings(defaults={name: value}, host=container()), True),
        (load_settings(file=toml, host=container()), True),
        (load_settings(file=toml, host=container()), True),  # from memory
        (load_settings(file=yaml, host=container()), True),
        (load_settings(host=container(env={variable: text})), True),
        (load_settings(command_line={name: value}, host=container()), False),
    ]:
        assert getattr(settings, known) == value
        assert len(settings.warnings) == noted
        assert all("is read as" in sentence for sentence in settings.warnings)
        assert set(settings.warnings) <= set(plan_workers(settings=settings).warnings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arguments": {"workers": 3, "n_jobs": 3}}, "argument: n_jobs=3"),
        ({"defaults": {"jobs": 3, "nproc": 3}}, "one name of workers alone: jobs"),
        ({"arguments": {"num_workers": 0}}, "argument: num_workers=0"),
        ({"arguments": {"num_workers": "4"}}, "argument: num_workers='4'"),
        ({"arguments": {"parallel_execution": 3}}, "argument: parallel_execution=3"),
        ({"command_line": 3}, "command_line=3"),
        ({"command_line": {}, "parser": 3}, "parser=3"),
        ({"command_line": {"workers": 0}}, "command line: workers=0"),
    ],
)
def test_a_wrong_value_is_an_error_that_has_the_users_own_name(given, message):
    with pytest.raises(ConfigError) as caught:
        load_settings(**given, host=container())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"CORESIZE_N_JOBS": "-1"}, "CORESIZE_N_JOBS='-1'"),
        ({"CORESIZE_N_JOBS": "1", "CORESIZE_WORKERS": "1"}, "CORESIZE_WORKERS is set"),
    ],
)
def test_a_wrong_variable_is_an_error(env, message):
    with pytest.raises(ConfigError) as caught:
        load_settings(host=container(env=env))
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [["a.txt", "b.txt"], "fast", 0, -1, True])
def test_a_flag_of_the_programs_own_is_no_error_and_is_told(value):
    found = load_settings(command_line={"jobs": value}, host=container())
    assert found.workers is None
    (sentence,) = found.warnings
    assert sentence.startswith(f"the flag jobs={value!r} is not read as workers")


def test_a_flag_with_the_name_of_the_setting_goes_first():
    flags = {"jobs": "nightly", "workers": 2, "processes": 5}
    found = load_settings(command_line=flags, host=container())
    assert (found.workers, found.warnings) == (2, ())
