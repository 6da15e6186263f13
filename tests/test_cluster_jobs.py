"""The shards of a batch as a job of Slurm or Kubernetes, and some of them again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coresize import ConfigError, TaskOutOfMemoryError, run_batch
from coresize.batch.journal.locks import is_locked
from coresize.launch import again, array_job, durations, kubernetes, slurm, yaml_text
from coresize.launch.array_job import ArrayJob
from coresize.planning.history import store


pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")

JOB = ArrayJob(
    name="shards",
    count=8,
    indices=tuple(range(8)),
    words=("true",),
    cores=1,
    memory=None,
    seconds=None,
    grace=60,
    at_once=None,
    logs="shards",
    retry=(),
    directives=(),
    image="image",
    claim=None,
    restarts=3,
    max_failed=None,
)


def job(**fields):
    return JOB.changed(**fields)


# --- Slurm ----------------------------------------------------------------------


def directives(text):
    return re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)


def test_a_script_asks_for_what_a_shard_needs():
    text = slurm.script(job(cores=4, memory=2**31 + 1, seconds=93600, at_once=3))
    assert directives(text) == [
        "--job-name=shards",
        "--array=0-7%3",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=4",
        "--mem=2049M",
        "--time=1-02:00:00",
        "--signal=B:TERM@60",
        "--requeue",
        "--output=shards/%A_%a.log",
        "--open-mode=append",
    ]
    assert text.startswith("#!/bin/bash\n")
    assert "\nexport CORESIZE_SHARDS=0-7\n" in text


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"indices": (1, 3, 4, 5)}, "--array=1,3-5"),
        ({"count": 1, "indices": (0,)}, "--array=0"),
        ({"logs": "my logs"}, '--output="my logs/%A_%a.log"'),
        ({"logs": "100%"}, "--output=100%%/%A_%a.log"),
        ({"name": "two words"}, '--job-name="two words"'),
        ({"seconds": 61}, "--time=0-00:01:01"),
        ({"directives": ("--partition=long",)}, "--partition=long"),
    ],
)
def test_a_script_has_a_directive(fields, line):
    text = slurm.script(job(**fields))
    assert line in directives(text)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cores": 0.5}, "a whole number"),
        ({"logs": 'a"b'}, "--logs"),
        ({"logs": "a\nb"}, "--logs"),
        ({"name": "a\\b"}, "--name"),
        ({"directives": ("partition",)}, "--sbatch"),
        ({"directives": ("--comment=a\n#SBATCH --x",)}, "--sbatch"),
    ],
)
def test_what_sbatch_cannot_read_is_refused(fields, text):
    with pytest.raises(ConfigError, match=text):
        slurm.script(job(**fields))


STUB = r"""#!/bin/sh
printf '%s\0' "$CORESIZE_SHARD" "$CORESIZE_RETRY" "$JOB_COMPLETION_INDEX" "$@"
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """A folder with a ``coresize`` that prints its words, and variables, with NULs."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "coresize").write_text(STUB)
    (folder / "coresize").chmod(0o755)
    return folder


def printed(stub, words, **env):
    done = subprocess.run(
        words,
        env={"PATH": f"{stub}:{os.environ['PATH']}", **env},
        stdout=subprocess.PIPE,
        check=True,
    )
    shard, retry, index, *rest = map(os.fsdecode, done.stdout.split(b"\0")[:-1])
    assert rest[:3] == ["run", "--quiet", "--"]
    assert index in {"", shard.partition("/")[0]}  # for shard="auto"
    return shard, retry, tuple(rest[3:])


WORDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
    | st.sampled_from(
        ["{shard}", "{index}", "{count}", "a{index}b", "$HOME", "$(id)", "`id`", "'"]
    )
    | st.sampled_from(["{index}{index}", "$$", "${a}", '"', "\\", "\n#SBATCH -x", "!"]),
    min_size=1,
    max_size=4,
).map(tuple)

HARD = ("$", "{index}", "$(x) $$ '{shard}'", "", "\\", "-n", "a\r\nb", "caf\udce9")


def filled(words, index):
    return tuple(array_job.fill(word, index, 8) for word in words)


@settings(max_examples=25)
@given(words=WORDS)
@example(words=HARD)
def test_bash_hands_every_word_to_the_program_as_it_was_given(stub, words):
    text = os.fsencode(slurm.script(job(words=words, retry=("oom", "killed"))))
    assert b"\r" not in text
    script = stub / "script"
    script.write_bytes(text)
    found = printed(stub, ["bash", script], SLURM_ARRAY_TASK_ID="3")
    assert found == ("3/8", "oom,killed", filled(words, 3))


def test_a_script_outside_of_an_array_fails_at_once(stub):
    (stub / "alone").write_text(slurm.script(JOB))
    done = subprocess.run(["bash", stub / "alone"], capture_output=True, check=False)
    assert done.returncode != 0
    assert b"SLURM_ARRAY_TASK_ID" in done.stderr


# --- Kubernetes -------------------------------------------------------------------


def kube(**fields):
    return job(memory=2**30, **fields)


def expanded(text, env):
    """A word of a command as Kubernetes replaces variables: $(NAME), and $$ for $."""
    return re.sub(
        r"\$\$|\$\((\w+)\)",
        lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]),
        text,
    )


@given(words=WORDS)
@example(words=HARD[:-1])
def test_kubernetes_hands_every_word_on_as_it_was_given(words):
    env = {"JOB_COMPLETION_INDEX": "3", "CORESIZE_SHARD": "3/8", "x": "wrong"}
    found = [expanded(word, env) for word in kubernetes.command(kube(words=words))]
    assert found == ["coresize", "run", "--quiet", "--", *filled(words, 3)]


@settings(max_examples=25)
@given(words=WORDS, place=st.integers(0, 2))
@example(words=HARD[:-1], place=1)
def test_an_index_of_a_part_stands_for_its_shard(stub, words, place):
    some = (1, 4, 6)
    command = kubernetes.command(kube(words=words, indices=some))
    env = {"JOB_COMPLETION_INDEX": str(place)}
    found = printed(stub, [expanded(word, env) for word in command], **env)
    shard = some[place]
    assert found == (f"{shard}/8", "", filled(words, shard))


def test_a_manifest_decides_by_exit_codes_and_asks_for_what_a_shard_needs():
    manifest = kubernetes.manifest(
        kube(cores=2.5, seconds=600, grace=90, at_once=3, claim=("c", "/j"))
    )
    spec = manifest["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", 8)
    assert (spec["parallelism"], spec["backoffLimitPerIndex"]) == (3, 3)
    assert "maxFailedIndexes" not in spec
    codes = {
        rule["action"]: rule.get("onExitCodes", {}).get("values")
        for rule in spec["podFailurePolicy"]["rules"]
    }
    assert codes == {
        "Ignore": None,
        "Count": [75],
        "FailIndex": [1, 2, 12],
        "FailJob": [126, 127],
    }
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["activeDeadlineSeconds"]) == ("Never", 600)
    assert pod["terminationGracePeriodSeconds"] == 90
    (container,) = pod["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "2.5", "memory": "1Gi"},
        "limits": {"memory": "1Gi"},
    }
    env = {row["name"]: row.get("value") for row in container["env"]}
    assert [*env][:2] == ["JOB_COMPLETION_INDEX", "CORESIZE_SHARD"]  # in this order
    assert env["CORESIZE_SHARD"] == "$(JOB_COMPLETION_INDEX)/8"
    assert (env["CORESIZE_SHARDS"], env["CORESIZE_MAX_CORES"]) == ("0-7", "3")
    assert container["volumeMounts"] == [{"name": "journals", "mountPath": "/j"}]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"image": None}, "--image"),
        ({"memory": None}, "--memory"),
        ({"name": "Shards"}, "--name"),
        ({"name": "a" * 62}, "--name"),
        ({"name": "-a"}, "--name"),
        ({"count": 100_001}, "shards=100001"),
        ({"words": ("caf\udce9",)}, "UTF-8"),
    ],
)
def test_what_kubernetes_has_not_is_refused(fields, text):
    with pytest.raises(ConfigError, match=text):
        kubernetes.text(kube().changed(**fields))


SCALARS = st.none() | st.booleans() | st.integers() | st.text()
ODD = ["yes", "No", "~", "1e3", "0x1", "a: b", "- a", "# a", "a #b", "|", "a\n", "\x85"]
VALUES = st.recursive(
    SCALARS | st.sampled_from(ODD) | st.from_regex(r"\A([ -~]*\n){2,4}\Z"),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.text(min_size=1) | st.sampled_from(ODD), part, max_size=3)
    ),
    max_leaves=8,
)


@given(value=VALUES)
@example(value={"a": ["set -- 1\nexec x\n", {"b": "x y\nz\n"}]})
def test_yaml_is_read_as_what_was_written(value):
    assert yaml.safe_load(yaml_text.dump({"root": value})) == {"root": value}


def test_a_manifest_is_yaml():
    for some in (kube(), kube(indices=(2, 5), words=("a b", "$x"), claim=("c", "/j"))):
        assert yaml.safe_load(kubernetes.text(some)) == kubernetes.manifest(some)


# --- Lengths of time ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("90min", 5400),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1D12H", 129600),
        ("2-03", 183600),
        ("2-03:04", 183840),
        ("2-03:04:05", 183845),
        ("100:00:00", 360000),
    ],
)
def test_a_length_of_time_has_units(text, seconds):
    assert durations.seconds_of("--time", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "1:30", "0s", "0-00", "h", "1x", "-1h", "1h 30m", "٣h", "9" * 30]
)
def test_what_can_be_read_in_two_ways_is_no_length_of_time(text):
    with pytest.raises(ConfigError, match="--time"):
        durations.seconds_of("--time", text)


# --- Shards again ---------------------------------------------------------------------


def large(item):
    if item == 5:
        raise TaskOutOfMemoryError("large", exit_code=-9, peak_memory=1)
    if item == 6:
        raise ValueError(item)
    return item


def start(folder, index, function=large, items=range(8)):
    path = folder / f"o-{index}.db"
    shard = f"{index}/4"
    run_batch(
        function, items, journal=path, shard=shard, executor="serial", progress=False
    ).wait()
    return path


@pytest.fixture
def journals(tmp_path):
    """Of four shards: ok, out of memory, failed, and not begun."""
    for index in range(3):
        start(tmp_path, index)
    return tmp_path


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        ("oom", [1]),
        ("failed", [2]),
        ("missing", [3]),
        ("oom,missing", [1, 3]),
        ("killed", []),
        ("timeout,failed,oom", [1, 2]),
    ],
)
def test_shards_run_again_by_what_their_journals_say(journals, kinds, found):
    states = again.look(f"{journals}/o-{{index}}.db", 4, "shards")
    chosen = again.chosen(states, again.kinds_of(kinds), [])
    assert [one.index for one in chosen] == found


def stop_after_one(folder, index):
    run = run_batch(
        abs,
        range(40),
        journal=folder / f"o-{index}.db",
        shard=f"{index}/4",
        executor="serial",
        progress=False,
    )
    with run:
        next(iter(run))


@pytest.mark.parametrize("has_status", [True, False])
def test_a_shard_that_was_stopped_is_missing_and_one_at_its_end_is_not(
    tmp_path, has_status
):
    stop_after_one(tmp_path, 0)
    start(tmp_path, 1, abs)
    (tmp_path / "o-3.db").touch()
    if not has_status:
        for path in tmp_path.glob("*.status.json"):
            path.unlink()
    missing = again.look(f"{tmp_path}/o-{{index}}.db", 4, "shards")
    kinds = [sorted(one.kinds) for one in missing]
    assert kinds == [["missing"], [], ["missing"], ["missing"]]


@pytest.mark.parametrize(
    ("log", "kinds"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1.batch.", ["oom"]),
        ("slurmstepd-n1: error: Detected 12 oom-kill event(s) in StepId=3.", ["oom"]),
        ("slurmstepd: error: *** JOB 1 ON n1 CANCELLED DUE TO TIME LIMIT ***", []),
        ("Detected 1 oom_kill event\n" + "long ago\n" * 1000, []),
    ],
)
def test_the_log_tells_why_a_program_was_killed_as_a_whole(tmp_path, log, kinds):
    (tmp_path / "12_1.log").write_text(f"of the program\n{log}\n")
    states = again.look(f"{tmp_path}/o-{{index}}.db", 2, str(tmp_path))
    assert [sorted(one.kinds) for one in states] == [
        ["missing"],
        sorted(["missing", *kinds]),
    ]


def test_only_the_latest_log_of_a_shard_counts_and_none_at_its_end(tmp_path):
    killed = "Detected 1 oom_kill event\n"
    for name, text, when in (("9_0", killed, 1), ("10_0", "fine\n", 2)):
        (tmp_path / f"{name}.log").write_text(text)
        os.utime(tmp_path / f"{name}.log", (when, when))
    (tmp_path / "9_1.log").write_text(killed)
    start(tmp_path, 1, abs)
    states = again.look(f"{tmp_path}/o-{{index}}.db", 4, str(tmp_path))
    assert [sorted(one.kinds) for one in states[:2]] == [["missing"], []]


def test_a_shard_that_runs_is_left_alone(tmp_path, call):
    run = run_batch(
        abs,
        range(40),
        journal=tmp_path / "o-0.db",
        shard="0/2",
        executor="serial",
        progress=False,
    )
    words = ("--on", "slurm", "--", "batch", "--journal", "o-{index}.db")
    with run:
        next(iter(run))
        assert is_locked(str(tmp_path / "o-0.db"))
        done = call("shards", "2", "--again", "missing", *words)
    assert "--array=1\n" in done.stdout
    assert "running or queued, and left alone: 0" in done.stderr


@pytest.mark.usefixtures("journals")
def test_the_journals_of_another_split_are_refused(call):
    words = ("--again", "oom", "--on", "slurm", "--", "x", "--journal=o-{index}.db")
    done = call("shards", "3", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "it is of shard 0/4, not 0/3" in done.stderr


@pytest.mark.parametrize(
    ("before", "peaks", "found"),
    [(1000, [], 1500), (1000, [900, 300], 1800), (1000, [100], 1500), (None, [7], 14)],
)
def test_memory_grows_by_what_was_seen(before, peaks, found):
    states = [
        again.ShardState(index=0, kinds=frozenset(), is_running=False, peak=peak)
        for peak in peaks
    ]
    assert again.more_memory(before, states) == found


# --- The command ----------------------------------------------------------------------

BATCH = ("--", "coresize", "batch", "jobs:run", "--journal", "o-{index}.db")
CLUSTER = ("--on", "slurm")


@pytest.mark.usefixtures("journals")
def test_again_is_the_first_command_for_some_shards_with_more_memory(call):
    more = ("--memory", "1GiB", "--time", "2h", "--cpus", "2", "--name", "n")
    assert call("shards", "4", *CLUSTER, *more, *BATCH).returncode == 0
    for _time in range(2):  # what is printed was not submitted
        done = call("shards", "--again", "oom", *CLUSTER)
        assert done.returncode == 0, done.stderr
        assert {
            "--job-name=n-2",
            "--array=1",
            "--mem=1536M",
            "--time=0-02:00:00",
            "--cpus-per-task=2",
        } <= {*directives(done.stdout)}
        assert "export CORESIZE_RETRY=oom\n" in done.stdout
    failed = call("shards", "--again", "failed", *CLUSTER)
    assert {"--array=2", "--mem=1G"} <= {*directives(failed.stdout)}
    named = call("shards", "--again", "oom", *CLUSTER, "--memory", "5GiB")
    assert "--mem=5G" in directives(named.stdout)
    missing = call("shards", "--again", "missing", *CLUSTER)
    assert "--array=3" in directives(missing.stdout)
    assert "CORESIZE_RETRY" not in missing.stdout
    nothing = call("shards", "--again", "killed", *CLUSTER)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no shard is killed" in nothing.stderr


@pytest.mark.usefixtures("journals")
@pytest.mark.parametrize(
    ("queue", "left"), [("echo 1; echo 3", "2"), ("echo N/A", "1-3"), ("exit 1", "1-3")]
)
def test_shards_in_the_queue_are_left_alone(call, tmp_path, path, queue, left):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho '12;cluster'\n")
    first = ("shards", "4", "--on", "slurm", "--memory", "1G", "--submit", *BATCH)
    assert call(*first, env=path).stdout == "12;cluster\n"
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(f'#!/bin/sh\necho "$*" > asked\n{queue}\n')
    squeue.chmod(0o755)
    done = call("shards", "--again", "oom,failed,missing", *CLUSTER, env=path)
    assert f"--array={left}" in directives(done.stdout)
    assert "--jobs=12" in (tmp_path / "asked").read_text().split()


@pytest.mark.usefixtures("journals")
def test_a_submission_that_fails_is_no_attempt(call, tmp_path, path):
    first = ("shards", "4", "--on", "slurm", "--memory", "1G", *BATCH)
    assert call(*first, env=path).returncode == 0
    kept = (tmp_path / "shards" / "job.json").read_text()
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    again = ("shards", "--again", "oom", *CLUSTER, "--submit")
    assert call(*again, env=path).returncode == 2
    assert (tmp_path / "shards" / "job.json").read_text() == kept


#: A command of a scheduler that keeps what it was given, and prints a number.
SUBMIT = '#!/bin/sh\necho "$0" "$@" > got; cat >> got; echo "id $(wc -l < got)"\n'


@pytest.fixture
def path(tmp_path):
    """A search path with the commands of the schedulers."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "kubectl"):
        (tmp_path / "bin" / name).write_text(SUBMIT)
        (tmp_path / "bin" / name).chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("--on", "slurm"), "sbatch --parsable"),
        (
            ("--on", "kubernetes", "--image=i", "--memory=1Gi"),
            "kubectl create --output=name --filename=-",
        ),
    ],
)
def test_a_job_is_submitted_as_it_is_printed(call, tmp_path, path, words, command):
    line = ("shards", "2", *words, *BATCH)
    printed = call(*line)
    done = call(*line[:4], "--submit", *line[4:], env=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("id ")
    first, _, rest = (tmp_path / "got").read_text().partition("\n")
    assert first.endswith(command)
    assert rest == printed.stdout
    assert call(*line[:4], "-o", "job", *line[4:]).stdout == ""
    assert (tmp_path / "job").read_text() == rest


@pytest.mark.usefixtures("journals")
def test_each_submission_of_a_part_takes_more_memory_and_a_name(call, tmp_path, path):
    first = ("shards", "4", "--memory", "1GiB", "--on", "slurm", "--submit", *BATCH)
    assert call(*first, env=path).returncode == 0
    for name, memory in (("shards-2", "1536M"), ("shards-3", "2304M")):
        done = call("shards", "--again", "oom", *CLUSTER, "--submit", env=path)
        assert done.returncode == 0, done.stderr
        got = directives((tmp_path / "got").read_text())
        assert {f"--job-name={name}", f"--mem={memory}"} <= {*got}


def test_words_that_are_no_text_reach_the_script(run, tmp_path):
    done = run("shards", "2", "--on", "slurm", "-o", "job", "--", "caf\udce9\t\x1b")
    assert done.returncode == 0, done.stderr
    assert b"caf\xe9\t\x1b" in (tmp_path / "job").read_bytes()
    again = subprocess.run(
        ["bash", "-n", tmp_path / "job"], capture_output=True, check=True
    )
    assert again.stderr == b""


def test_the_memory_of_a_shard_is_that_of_its_workers(call, tmp_path):
    (tmp_path / "task.toml").write_text(
        'peak_memory = "700MiB"\nidle_memory = "100MiB"\nshared_memory = "1600MiB"\n'
    )
    more = ("--cpus", "4", "--profile", "./task.toml")
    done = call("shards", "2", *CLUSTER, *more, *BATCH)
    assert done.returncode == 0, done.stderr
    assert "--mem=6128M" in directives(done.stdout)  # (1600 + 4 * 800) / 0.8 + 128


@pytest.fixture
def history(tmp_path):
    """Record tasks of a function where `call` looks for them."""
    before = dict(os.environ)
    os.environ["XDG_STATE_HOME"] = str(tmp_path)
    peaks = [(None, 400 << 20, 1.0, 1.0)] * 3
    store.record("jobs:run", peaks, workers=1, throughput=1.0)
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("history")
def test_the_history_tells_the_memory_of_a_shard(call):
    more = ("--cpus", "2", "--profile", "history:jobs:run")
    done = call("shards", "2", *CLUSTER, *more, *BATCH)
    assert done.returncode == 0, done.stderr
    assert "--mem=1229M" in directives(
        done.stdout
    )  # 2 * 1.1 * 400 / 0.8 + 128, and a bit


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("2 --time 2h -- true", "--time cannot be used: it needs --on"),
        ("2 --again oom -- true", "--again cannot be used: it needs --on"),
        ("2 --submit -- true", "--submit cannot be used: it needs --on"),
        ("-- true", "no number of shards: N comes before -- CMD"),
        ("2 --on slurm", "no program is named"),
        ("0 --on slurm -- true", "shards=0"),
        ("2 --on slurm --image i -- true", "--image cannot be used"),
        ("2 --on kubernetes --sbatch=-p -- true", "--sbatch cannot be used"),
        ("2 --on slurm --retry-oom -- true", "--retry-oom cannot be used"),
        ("2 --on slurm --time 90 -- true", "--time='90'"),
        ("2 --on slurm --time 30s -- true", "--grace"),
        ("2 --on slurm --memory 4 -- true", 'did you mean "4GB"?'),
        ("2 --on slurm --memory 1G --profile p -- true", "--profile cannot be used"),
        ("2 --on slurm --profile none -- true", "none"),
        ("2 --on slurm --profile history:none -- true", "none"),
        ("2 --on slurm --cpus 0 -- true", "--cpus"),
        ("2 --on slurm --at-once 0 -- true", "--at-once=0"),
        ("2 --on slurm -- x --journal o.db", "--journal='o.db'"),
        ("2 --on slurm --logs file/x -- true", "file/x, cannot be created"),
        ("2 --on slurm -o no/file -- true", "no/file cannot be written"),
        ("2 --on kubernetes --memory 1G -- true", "--image=None"),
        ("2 --on kubernetes --image i -- true", "--memory=None"),
        ("2 --on kubernetes --image i --memory 1G --claim c -- true", "--claim='c'"),
        ("--again oom --on slurm", "no job is kept in shards"),
        ("--again lost --on slurm", "--again='lost'"),
        ("2 --again oom --on slurm -- true", "--journal=None"),
    ],
)
def test_bad_usage_exits_2_with_a_message(call, tmp_path, words, message):
    (tmp_path / "file").write_text("")
    done = call("shards", *words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("status", "message"), [(None, "cannot be started"), (7, "refuses the job (7): no")]
)
def test_a_scheduler_that_takes_no_job_is_told(call, tmp_path, status, message):
    (tmp_path / "bin").mkdir()
    if status is not None:
        command = tmp_path / "bin" / "sbatch"
        command.write_text(f"#!/bin/sh\necho no >&2\nexit {status}\n")
        command.chmod(0o755)
    env = {"PATH": str(tmp_path / "bin")}
    done = call("shards", "2", *CLUSTER, "--submit", *BATCH, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_inside_a_shard_no_job_for_all_is_made(call):
    done = call("shards", "2", *CLUSTER, *BATCH, env={"CORESIZE_SHARD": "0/2"})
    assert done.returncode == 2
    assert "CORESIZE_SHARD" in done.stderr


def test_a_kept_job_that_is_none_is_told(call, tmp_path):
    (tmp_path / "shards").mkdir()
    wrong = (
        *({"count": "x"}, {"words": 5}, {"words": [5]}, {"cpus": "x"}, {"memory": [1]}),
        *({"time": 3}, {"sbatch": "x"}, {"sbatch": [1]}, {"journal": 7}, {"name": {}}),
        *({"attempt": "x"}, {"at_once": "x"}, {"grace": []}),
    )
    whole = {"on": "slurm", "count": 2, "words": ["a", "--journal", "o-{index}.db"]}
    for content in ("[]", "{", *(json.dumps({**whole, **one}) for one in wrong)):
        (tmp_path / "shards" / "job.json").write_text(content)
        done = call("shards", "--again", "oom", *CLUSTER)
        assert (done.returncode, done.stdout) == (2, ""), content
        assert "Traceback" not in done.stderr


def test_a_kept_job_that_everybody_may_write_is_not_obeyed(call, tmp_path):
    assert call("shards", "4", *CLUSTER, *BATCH).returncode == 0
    (tmp_path / "shards" / "job.json").chmod(0o666)
    done = call("shards", "--again", "missing", *CLUSTER)
    assert (done.returncode, done.stdout) == (2, "")
    assert "everybody may write to it" in done.stderr
    other = ("--again", "missing", "--logs", "other")
    assert call("shards", "4", *other, *CLUSTER, *BATCH).returncode == 0


def test_journals_that_a_pod_would_lose_are_told(call):
    words = ("--on", "kubernetes", "--image", "i", "--memory", "1Gi")
    for more, journal, lost in (
        ((), "/j/o-{index}.db", True),
        (("--claim", "c:/j"), "/k/o-{index}.db", True),
        (("--claim", "c:/j"), "/j/o-{index}.db", False),
    ):
        done = call("shards", "2", *words, *more, "--", "x", "--journal", journal)
        assert done.returncode == 0, done.stderr
        assert ("are lost" in done.stderr) == lost


def test_what_is_kept_can_be_read_by_a_person(call, tmp_path):
    call("shards", "2", *CLUSTER, "--memory", "1GiB", *BATCH)
    kept = json.loads(Path(tmp_path, "shards", "job.json").read_text())
    assert kept["words"] == [*BATCH[1:]]
    assert (kept["count"], kept["on"], kept["memory"]) == (2, "slurm", "1073741824B")


# --- The guides -----------------------------------------------------------------------

GUIDES = Path(__file__).parents[1] / "docs" / "how-to"


@pytest.mark.parametrize(
    ("page", "language"), [("run-on-slurm", "bash"), ("run-on-kubernetes", "yaml")]
)
def test_a_guide_shows_what_is_printed(call, page, language):
    text = (GUIDES / f"{page}.md").read_text()
    found = re.search(rf"```sh\n(.*?)\n```\n\n```{language}\n(.*?)```", text, re.DOTALL)
    done = call(*shlex.split(found[1])[1:])
    assert done.stdout == found[2]
    assert done.stderr == ""
