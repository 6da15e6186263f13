"""``coresize run``: programs that never heard of coresize, and what the log says."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coresize import ProcessPoolExecutor, ThreadPoolExecutor, detect, load_settings
from coresize.cli import startup
from coresize.detection import topology
from coresize.executor import sizing
from coresize.host import current
from coresize.planning import overrides, pinning
from coresize.testing import container, use_host


# --- Python below 3.13 ------------------------------------------------------------

CORES = {"CORESIZE_OVERRIDE_CORES": "7"}
COUNT = "import os; print(os.cpu_count())"
HERE = int(os.sysconf("SC_NPROCESSORS_ONLN")) if hasattr(os, "sysconf") else 0
STARTUP = Path(startup.__file__).parent


def program(folder, *words, env=None, python=sys.executable):
    """A Python as ``coresize run`` starts it, which takes a tenth of the time."""
    given = {"PYTHON_CPU_COUNT": "7", "PYTHONPATH": str(STARTUP), **(env or {})}
    return subprocess.run(
        [python, *words],
        cwd=folder,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )


def _pythons():
    """This Python and others, each once, as they are named here."""
    names = [sys.executable, "/usr/bin/python3"]
    names += [f"python3.{minor}" for minor in (8, 11, 12, 13)]
    found = {}
    for name in names:
        words = [name, "-c", "import sys; print(sys.base_prefix)"]
        if shutil.which(name):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode == 0:  # a name of pyenv's may lead nowhere
                found.setdefault(done.stdout, name)
    return list(found.values())


@pytest.mark.parametrize("python", _pythons())
def test_every_python_answers_the_variable(tmp_path, python):
    text = (
        "import json, multiprocessing, os, pickle, sys\n"
        "counts = [os.cpu_count(), multiprocessing.cpu_count()]\n"
        "counts += [getattr(os, 'process_cpu_count', os.cpu_count)()]\n"
        "counts += [pickle.loads(pickle.dumps(os.cpu_count))()]\n"
        "ours = [entry for entry in sys.path if entry.endswith('startup')]\n"
        "print(json.dumps([counts, os.cpu_count.__name__, ours]))\n"
    )
    done = program(tmp_path, "-c", text, python=python)
    assert (json.loads(done.stdout), done.stderr) == ([[7] * 4, "cpu_count", []], "")


@pytest.mark.parametrize(
    ("words", "env", "count"),
    [
        ([], {}, 7),
        ([], {"PYTHON_CPU_COUNT": "default"}, HERE),
        ([], {"PYTHON_CPU_COUNT": ""}, HERE),
        (["-X", "cpu_count=3"], {}, 3),
        (["-X", "cpu_count=default"], {}, HERE),
        (["-I"], {}, HERE),
        (["-E"], {}, HERE),
        (["-s", "-B", "-O"], {}, 7),
    ],
)
def test_the_variable_counts_as_in_python_3_13(tmp_path, words, env, count):
    done = program(tmp_path, *words, "-c", COUNT, env=env)
    assert (done.stdout, done.stderr) == (f"{count}\n", "")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="3.13 obeys it itself")
@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["-S"], {}),
        ([], {"CORESIZE_PYTHON": "off"}),
        ([], {"PYTHON_CPU_COUNT": "x"}),
        ([], {"PYTHON_CPU_COUNT": "0"}),
    ],
)
def test_it_can_be_turned_off(tmp_path, words, env):
    done = program(tmp_path, *words, "-c", COUNT, env=env)
    assert (done.stdout, done.stderr) == (f"{HERE}\n", "")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="3.13 obeys it itself")
def test_the_innermost_run_decides(run):
    """It is turned on, and off by an inner run; or on again; the path changes once."""
    show = "import os; print(os.cpu_count(), os.environ['PYTHONPATH'].count('startup'))"
    words = [sys.executable, "-c", show]
    own = [sys.executable, "-m", "coresize", "run"]
    off, on = [*own, "-q", "--no-python", "--"], [*own, "-q", "--python", "--"]
    lines = [
        run("run", "-q", "--", *inner, *words, env=CORES).stdout
        for inner in (off, [*off, *on])
    ]
    assert lines == [f"{HERE} 1\n", "7 1\n"]


def test_a_setting_that_is_wrong_is_an_error(run):
    done = run("run", "--", "true", env={"CORESIZE_PYTHON": "maybe"})
    assert done.returncode == 2
    assert "CORESIZE_PYTHON='maybe' is not valid: use on or off" in done.stderr


def test_children_and_workers_inherit_it(tmp_path):
    (tmp_path / "program.py").write_text(
        "import multiprocessing, os, subprocess, sys\n"
        f"child = [sys.executable, '-c', {COUNT!r}]\n"
        "def main():\n"
        "    print(subprocess.check_output(child, text=True).strip())\n"
        "    for way in multiprocessing.get_all_start_methods():\n"
        "        with multiprocessing.get_context(way).Pool(1) as pool:\n"
        "            print(pool.apply(os.cpu_count))\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    done = program(tmp_path, "program.py")
    assert (set(done.stdout.split()), done.stderr) == ({"7"}, "")


#: A ``sitecustomize`` of the user's own: what it is, and what is seen of it.
OWN = {
    "a module": ("print('own')", "own\n7\n", ""),
    "a module that counts": ("import os; print(os.cpu_count())", "7\n7\n", ""),
    "one that overrides": ("import os; os.cpu_count = lambda: 9", "9\n", ""),
    "an error": ("raise ValueError('theirs')", "7\n", "ValueError: theirs"),
    "an import error": ("import nowhere_at_all", "7\n", "nowhere_at_all"),
    "none": (None, "7\n", ""),
}


@pytest.mark.parametrize("name", OWN)
def test_the_users_own_module_is_run_as_well(tmp_path, name):
    text, out, err = OWN[name]
    folder = tmp_path / "own"
    folder.mkdir()
    if text is not None:
        (folder / "sitecustomize.py").write_text(text)
    bare = program(tmp_path, "-c", COUNT, env={"PYTHONPATH": str(folder)})
    path = {"PYTHONPATH": os.pathsep.join([str(STARTUP), str(folder)])}
    done = program(tmp_path, "-c", COUNT, env=path)
    assert (done.stdout, done.stderr) == (out, bare.stderr)
    assert err in done.stderr
    if text is not None and not err:
        show = "import sys; print(sys.modules['sitecustomize'].__file__)"
        done = program(tmp_path, "-c", show, env=path)
        assert done.stdout.splitlines()[-1] == str(folder / "sitecustomize.py")


def test_a_virtual_environment_keeps_its_own_module(tmp_path):
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    base = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    packages = Path(sysconfig.get_path("purelib", "venv", base))
    (packages / "sitecustomize.py").write_text("print('of the environment')")
    python = tmp_path / "env" / "bin" / "python"
    done = program(tmp_path, "-c", COUNT, python=python)
    assert (done.stdout, done.stderr) == ("of the environment\n7\n", "")


# --- --pin ------------------------------------------------------------------------

AFFINITY = "import os; print(*sorted(os.sched_getaffinity(0)))"
ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
needs_two = pytest.mark.skipif(len(ALLOWED) < 2, reason="there is one CPU")


@needs_two
@pytest.mark.parametrize(
    ("env", "options", "count"),
    [
        ({"CORESIZE_MAX_CORES": "1.4"}, ["--workers", "2"], 1),
        ({}, ["--no-parallel"], 1),
        (
            {"CORESIZE_OVERRIDE_CORES": "2.5", "CORESIZE_ROUNDING": "floor"},
            ["--reserve", "1"],
            1,
        ),
        ({"CORESIZE_OVERRIDE_CORES": "4096"}, [], len(ALLOWED)),
    ],
)
def test_a_program_is_bound_to_as_many_cpus_as_the_limit_has(run, env, options, count):
    words = ("run", "--pin", *options, "--", sys.executable, "-c", AFFINITY)
    done = run(*words, env=env)
    cpus = {int(cpu) for cpu in done.stdout.split()}
    assert (len(cpus), cpus <= ALLOWED) == (count, True)
    bound = count < len(ALLOWED)
    assert done.stderr.count("coresize: bound to CPU") == bound
    assert done.stderr.count("cannot move to an idle CPU") == bound
    assert done.stderr.count("--pin changes nothing") == (not bound)


@needs_two
def test_what_is_bound_is_bound_once(run):
    program = (sys.executable, "-c", AFFINITY)
    inner = (sys.executable, "-m", "coresize", "run", "--pin", "--", *program)
    done = run("run", "-q", "--pin", "--", *inner, env={"CORESIZE_MAX_CORES": "1"})
    assert len(done.stdout.split()) == 1
    assert "bound to CPU" not in done.stderr
    assert "--pin changes nothing: only 1 CPU may be used" in done.stderr


CPUS = st.integers(0, 63)


@st.composite
def machines(draw):
    """Cores of one to four CPUs, on nodes; and the CPUs that are allowed."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=16))
    numbers = draw(st.permutations(range(sum(sizes))))
    cores = [{numbers.pop() for _ in range(size)} for size in sizes]
    places = [draw(st.integers(0, 2)) for _ in cores]
    nodes = [
        {
            cpu
            for core, at in zip(cores, places, strict=True)
            if at == place
            for cpu in core
        }
        for place in range(3)
    ]
    every = sorted(set().union(*cores))
    allowed = draw(st.sets(st.sampled_from(every), min_size=1))
    known = draw(st.booleans())
    return set(allowed), cores, nodes if known else []


@given(machines(), st.integers(1, 70), st.randoms(use_true_random=False))
def test_laws_of_the_choice(machine, count, chance):
    allowed, cores, nodes = machine
    chosen = pinning.choose(
        allowed, count, cores=cores, nodes=nodes, random=chance.random
    )
    assert chosen <= allowed
    assert len(chosen) == min(count, len(allowed))
    groups = [node & allowed for node in nodes] or [allowed]
    used = [group for group in groups if group & chosen]
    if any(len(group) >= count for group in groups):
        assert len(used) == 1
    # Of each core all that is allowed or nothing, but for one core.
    split = [core for core in cores if chosen & core not in (set(), allowed & core)]
    assert len(split) <= 1
    # No whole core is left over while a part of another one is used in its place.
    if split and len(used) == 1:
        missing = len(chosen & split[0])
        left = [core for core in cores if core <= used[0] and not core & chosen]
        assert all(len(core) > missing for core in left)


def test_equals_are_chosen_by_chance():
    cores = [{cpu, cpu + 8} for cpu in range(8)]
    nodes = [set(range(4)) | set(range(8, 12)), set(range(4, 8)) | set(range(12, 16))]
    seen = [
        pinning.choose(
            set(range(16)), 2, cores=cores, nodes=nodes, random=random.random
        )
        for _ in range(300)
    ]
    assert {*map(frozenset, cores)} == set(seen)


def _topology(siblings, nodes=None, name="core_cpus_list"):
    files = {
        f"/sys/devices/system/cpu/cpu{cpu}/topology/{name}": text
        for cpu, text in siblings.items()
    }
    for node, text in (nodes or {}).items():
        files[f"/sys/devices/system/node/node{node}/cpulist"] = text
    if nodes:
        files["/sys/devices/system/node/online"] = ",".join(map(str, nodes)) + "\n"
    host = container(cpus=8)
    host.files.update(files)
    return host


@pytest.mark.parametrize(
    ("host", "cores", "nodes"),
    [
        (_topology({}), [{0}, {1}, {2}, {3}], []),
        (
            _topology({0: "0,4\n", 1: "1,5\n", 2: "2,6\n", 3: "3,7\n"}),
            [{0, 4}, {1, 5}, {2, 6}, {3, 7}],
            [],
        ),
        (
            _topology({0: "0-1\n", 2: "2-3\n"}, {0: "0-1\n", 2: "2-3\n", 4: "\n"}),
            [{0, 1}, {2, 3}],
            [{0, 1}, {2, 3}],
        ),
        (
            _topology({0: "0-1\n", 2: "2-3\n"}, name="thread_siblings_list"),
            [{0, 1}, {2, 3}],
            [],
        ),
        # Whatever stands there: nonsense, a CPU in two cores, one without itself.
        (_topology({0: "x\n", 1: "1-0\n"}), [{0}, {1}, {2}, {3}], []),
        (_topology({0: "0-1\n", 1: "0-2\n", 2: "0-2"}), [{0, 1}, {2}, {3}], []),
        (_topology({0: "2\n"}), [{0}, {1}, {2}, {3}], []),
    ],
)
def test_the_topology_is_read(host, cores, nodes):
    assert topology.cores(host, {0, 1, 2, 3}) == cores
    assert topology.nodes(host) == nodes


def test_this_machines_topology_is_a_partition():
    cores = topology.cores(current(), ALLOWED)
    assert set().union(*cores) >= ALLOWED
    assert sum(map(len, cores)) == len(set().union(*cores))


# --- What is overridden is in the log ---------------------------------------------

#: variables, and the sentences about them
NOTES = [
    ({}, []),
    (
        {"CORESIZE_OVERRIDE_CORES": "8"},
        ["CORESIZE_OVERRIDE_CORES=8 replaces the detected 2 CPUs (cgroup2:cpu.max, /"],
    ),
    (
        {"CORESIZE_OVERRIDE_CORES": "1.5", "PYTHON_CPU_COUNT": "3"},
        [
            "CORESIZE_OVERRIDE_CORES=1.5 replaces the detected 2 CPUs (cgroup2:cpu",
            "PYTHON_CPU_COUNT=3 has no effect: CORESIZE_OVERRIDE_CORES goes before it",
        ],
    ),
    ({"PYTHON_CPU_COUNT": "default"}, []),
    (
        {"PARALLELLY_OVERRIDE_CORES": "3", "PYTHON_CPU_COUNT": "default"},
        ["PARALLELLY_OVERRIDE_CORES=3 replaces the detected 2 CPUs"],
    ),
    ({"CORESIZE_MAX_CORES": "1"}, ["CORESIZE_MAX_CORES=1 lowers 2 CPUs (cgroup2:"]),
    (
        {"CORESIZE_MAX_CORES": "16"},
        ["CORESIZE_MAX_CORES=16 has no effect: it is not below 2 CPUs (cgroup2:"],
    ),
    (
        {"CORESIZE_MAX_CORES": "3", "CORESIZE_OVERRIDE_CORES": "8"},
        [
            "CORESIZE_OVERRIDE_CORES=8 replaces the detected 2 CPUs",
            "CORESIZE_MAX_CORES=3 lowers 8 CPUs (CORESIZE_OVERRIDE_CORES=8)",
        ],
    ),
    ({"LOKY_MAX_CPU_COUNT": "1"}, ["LOKY_MAX_CPU_COUNT=1 lowers 2 CPUs"]),
    (
        {"CORESIZE_OVERRIDE_MEMORY": "3GiB", "CORESIZE_MAX_MEMORY": "4GiB"},
        [
            "CORESIZE_OVERRIDE_MEMORY=3GiB replaces the detected 1.0 GiB (cgroup2:",
            "CORESIZE_MAX_MEMORY=4GiB has no effect: it is not below 3.0 GiB (CORES",
        ],
    ),
    ({"CORESIZE_MAX_MEMORY": "512MiB"}, ["CORESIZE_MAX_MEMORY=512MiB lowers 1.0 GiB"]),
    ({"CORESIZE_RESERVE_CORES": "1"}, ["CORESIZE_RESERVE_CORES=1 keeps 1 core free"]),
    (
        {"CORESIZE_PARALLEL": "0"},
        ["CORESIZE_PARALLEL=0 turns parallelism off: all tasks run in one worker"],
    ),
    (
        {"CORESIZE_WORKERS": "4"},
        ["CORESIZE_WORKERS=4 replaces the planned number of workers"],
    ),
    (
        {"CORESIZE_WORKERS": "4", "CORESIZE_PARALLEL": "no"},
        [
            "CORESIZE_WORKERS=4 has no effect: parallelism is off",
            "CORESIZE_PARALLEL=no turns parallelism off",
        ],
    ),
    ({"CORESIZE_ROUNDING": "floor"}, ["CORESIZE_ROUNDING=floor sets rounding = floor"]),
    ({"CORESIZE_MEMORY_FRACTION": ".5"}, ["CORESIZE_MEMORY_FRACTION=.5 sets memory_f"]),
    # What an outer `coresize run` or a pool has set is not the user's.
    ({"PYTHON_CPU_COUNT": "3", "CORESIZE_SET": "PYTHON_CPU_COUNT=3"}, []),
    ({"CORESIZE_MAX_CORES": "1", "CORESIZE_SET": "CORESIZE_MAX_CORES=1"}, []),
    (
        {"CORESIZE_MAX_CORES": "1", "CORESIZE_SET": "CORESIZE_MAX_CORES=2"},
        ["CORESIZE_MAX_CORES=1 lowers 2 CPUs"],
    ),
    # The share of a job is no wish of the user's.
    ({"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "n", "SLURM_CPUS_ON_NODE": "1"}, []),
]


def _notes(host, **given):
    settings = load_settings(host=host, **given)
    found = overrides.notes(detect(host), settings, host.variables(overrides.NAMES))
    return [note for _, note in found]


@pytest.mark.parametrize(("env", "starts"), NOTES)
def test_each_override_is_a_sentence(env, starts):
    found = _notes(container(cpus=4, quota=2, memory="1GiB", env=env))
    assert len(found) == len(starts)
    for note, start in zip(found, starts, strict=True):
        assert note.startswith(start)


def test_a_variable_that_is_overridden_has_no_effect():
    env = {"CORESIZE_WORKERS": "4", "CORESIZE_PARALLEL": "0"}
    host = container(env=env)
    first, second = _notes(host, command_line={"workers": 3})
    workers, parallel = "workers = 3 (command line)", "parallel = true (command line, "
    assert first == f"CORESIZE_WORKERS=4 has no effect: {workers} goes before it"
    assert second.startswith(f"CORESIZE_PARALLEL=0 has no effect: {parallel}")


def test_run_says_it_once_and_quietly_not_at_all(run):
    env = {"CORESIZE_OVERRIDE_CORES": "4096", "CORESIZE_PARALLEL": "0"}
    env |= {"PARALLELLY_OVERRIDE_CORES": "x", "CORESIZE_PARALEL": "1"}
    inner = (sys.executable, "-m", "coresize", "run", "-q", "--", "true")
    said = run("run", "--", *inner, env=env).stderr
    for text in (
        "coresize: CORESIZE_OVERRIDE_CORES=4096 replaces the detected ",
        "coresize: warning: CORESIZE_OVERRIDE_CORES=4096 is obeyed, although",
        "coresize: CORESIZE_PARALLEL=0 turns parallelism off",
        "coresize: warning: PARALLELLY_OVERRIDE_CORES is ignored",
        "coresize: warning: CORESIZE_PARALEL is no variable of coresize",
    ):
        assert said.count(text) == 1
    assert run("run", "--", "true").stderr == ""


def test_pools_log_it_once_a_process(caplog):
    env = {"CORESIZE_OVERRIDE_CORES": "2", "CORESIZE_MAX_CORES": "9"}
    env |= {"CORESIZE_WORKERS": "2", "CORESIZE_MAX_MEMORY": "900GiB"}
    sizing._told.clear()
    with caplog.at_level(logging.INFO, "coresize"), use_host(container(env=env)):
        for count in (None, 1, 2):
            with ThreadPoolExecutor(count), ProcessPoolExecutor(count):
                pass
    said = [record.getMessage() for record in caplog.records]
    for name, text in env.items():
        lines = [line for line in said if line.startswith(f"{name}={text} ")]
        # A number of the caller's goes before CORESIZE_WORKERS: two things to say.
        assert len(lines) == (2 if name == "CORESIZE_WORKERS" else 1)


def test_pools_log_an_override_once_whatever_else_changes(caplog):
    told = []
    for used, cap in [("10MiB", "321MiB"), ("500MiB", "321MiB"), ("10MiB", "322MiB")]:
        env = {"CORESIZE_MAX_MEMORY": cap, "CORESIZE_RESERVE_CORES": "1"}
        caplog.clear()
        with (
            use_host(container(cpus=4, memory="1GiB", used=used, env=env)),
            caplog.at_level(logging.INFO, logger="coresize"),
        ):
            ThreadPoolExecutor().shutdown()
        texts = [record.getMessage() for record in caplog.records]
        told.append([text for text in texts if "CORESIZE_" in text.partition(" ")[0]])
    first, again, other = told
    assert [text.partition(" ")[0] for text in first] == [
        "CORESIZE_MAX_MEMORY=321MiB",
        "CORESIZE_RESERVE_CORES=1",
    ]
    assert again == []
    assert [text.partition(" ")[0] for text in other] == ["CORESIZE_MAX_MEMORY=322MiB"]
