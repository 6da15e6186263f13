"""``coresize shards N --on slurm|kubernetes``: the shards as one job of a cluster."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath

from coresize import storage
from coresize.arguments import check_amount, check_count
from coresize.batch import shards
from coresize.batch.exit_codes import ExitCode
from coresize.cli import cluster_options, run, streams
from coresize.errors import ConfigError, CoresizeError
from coresize.host import SHARD
from coresize.launch import again, array_job, durations, kubernetes, slurm, submission
from coresize.launch.array_job import ArrayJob
from coresize.planning.plan import find_profile
from coresize.planning.settings import load_settings
from coresize.units import format_bytes, to_memory


TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any, TypeAlias

    #: The options of a job by name, as they were given.
    _Given: TypeAlias = dict[str, Any]


#: The text of a job.
_TEXTS: dict[str, Callable[[ArrayJob], str]] = {
    "slurm": slurm.script,
    "kubernetes": kubernetes.text,
}

#: The commands that take such a text on standard input.
_COMMANDS = {
    "slurm": ("sbatch", "--parsable"),
    "kubernetes": ("kubectl", "create", "--output=name", "--filename=-"),
}


# --- One call -------------------------------------------------------------------


def launch(options: argparse.Namespace) -> int:
    """Print, write or submit a job; returns the exit status."""
    _check(options)
    folder = cluster_options.logs_of(options)
    if options.again is None:
        given = _given(options)
        job = _job(given, folder)
        journal = _journal(job, given)
    else:
        kinds = again.kinds_of(options.again)
        given = _given_again(options, folder)
        job = _job(given, folder)
        journal = _journal(job, given)
        job = _some(job, journal, kinds, given, grows=options.memory is None)
        if not job.indices:
            streams.complain(f"coresize: no shard is {options.again}: nothing to do")
            return ExitCode.OK
    text = _TEXTS[options.on](job)
    _warn(job, journal)
    submission.make_folder(folder)
    number = _hand_over(options, text)
    if options.again is None or number:  # what is only printed may be printed again
        memory = None if job.memory is None else f"{job.memory}B"
        jobs = [*given.get("jobs", ()), *([number] if number else ())]
        content = {**given, "on": options.on, "memory": memory, "jobs": jobs}
        submission.keep(folder, {**content, "profile": None})
    return ExitCode.OK


def _given_again(options: argparse.Namespace, folder: str) -> _Given:
    """The options that are given, and else those of the first start."""
    kept = _kept(folder, options.on)
    if options.profile is not None:
        kept.pop("memory", None)
    attempt = kept.pop("attempt", 1) + 1
    return {**kept, **_given(options), "attempt": attempt}


def _journal(job: ArrayJob, given: _Given) -> str | None:
    return array_job.check_journal(given.get("journal"), job.words, job.count)


def _warn(job: ArrayJob, journal: str | None) -> None:
    """Warn if the journals are in the layer of a container, and end with it."""
    if job.image is None:
        return
    folder = None if job.claim is None else PurePosixPath(job.claim[1])
    if folder is None or (journal and folder not in PurePosixPath(journal).parents):
        streams.complain(
            "coresize: warning: journals that are not below the PATH of "
            "--claim NAME:PATH are lost when a pod ends"
        )


def _check(options: argparse.Namespace) -> None:
    cluster_options.check_cluster(options)
    outer = shards.own_shard()
    if outer is not None:
        allowed = "no value where a job for all shards of a batch is made"
        raise ConfigError(SHARD, str(outer), allowed)


#: The options of every job that are not only for a cluster, and the number of starts.
_OTHERS = {
    "count": int,
    "words": list,
    "memory": str,
    "at_once": int,
    "attempt": int,
    "jobs": list,
}


def _types(on: str) -> dict[str, type]:
    """What a job is made of: the types of the options by name."""
    rows = cluster_options.types(cluster_options.COMMON, cluster_options.PARTICULAR[on])
    return {**_OTHERS, **rows}


def _given(options: argparse.Namespace) -> _Given:
    """The options that are given, by name."""
    found = {name: getattr(options, name, None) for name in _types(options.on)}
    has_words = options.words or options.again is None
    found["words"] = run.words_of(options) if has_words else None
    return {name: value for name, value in found.items() if value is not None}


def _kept(folder: str, on: str) -> _Given:
    """The options that were kept of a job, if it was for the same scheduler.

    Raises:
        CoresizeError: the file has another content.
    """
    kept = submission.kept(folder)
    if kept.get("on") != on:
        return {}
    types = _types(on)
    found = {name: kept[name] for name in types if kept.get(name) is not None}
    for name, value in found.items():
        if not _is_of(types[name], value):
            msg = f"the job that is kept in {folder} has no valid {name}: {value!r:.50}"
            raise CoresizeError(msg)
    return found


def _is_of(kind: type, value: object) -> bool:
    if kind is list:
        return isinstance(value, list) and all(_is_of(str, part) for part in value)
    kinds = (int, float) if kind is float else (kind,)
    return type(value) in kinds


def _hand_over(options: argparse.Namespace, text: str) -> str | None:
    """Print a job, write it to a file, or submit it; returns the number of the job."""
    if options.output not in {None, "-"}:
        path = storage.check_path("--output", options.output)
        try:
            Path(path).write_bytes(os.fsencode(text))
        except OSError as error:
            msg = f"{path} cannot be written: {error.strerror}"
            raise CoresizeError(msg) from None
    if options.submit:
        number = submission.submit(_COMMANDS[options.on], text)
        streams.write(number)
        return number
    if options.output in {None, "-"}:
        streams.write_exactly(text)
    return None


# --- The job, from its options ----------------------------------------------------


def _job(given: _Given, folder: str) -> ArrayJob:
    """The job that runs all shards.

    Raises:
        ConfigError: an option is not valid, or is missing.
    """
    if "count" not in given or "words" not in given:
        missing = "N" if "count" not in given else "-- CMD"
        msg = f"no job is kept in {folder}: give {missing}, as at the first start"
        raise CoresizeError(msg)
    count = check_count("shards", given["count"], 1)
    cores = check_amount("--cpus", given.get("cpus", 1), "a number of cores above 0")
    grace = durations.seconds_of("--grace", given.get("grace", "60s"))
    return ArrayJob(
        name=given.get("name", "shards"),
        count=count,
        indices=tuple(range(count)),
        words=tuple(given["words"]),
        cores=cores,
        memory=_memory(given, cores),
        seconds=_seconds(given, grace),
        grace=grace,
        at_once=_count(given, "at_once", 1),
        logs=folder,
        retry=(),
        directives=tuple(given.get("sbatch", ())),
        image=given.get("image"),
        claim=_claim(given),
        restarts=_count(given, "restarts", 0, 3) or 0,
        max_failed=_count(given, "max_failed", 0),
    )


def _count(given: _Given, name: str, least: int, default: int | None = None) -> Any:
    if name not in given:
        return default
    return check_count(f"--{name.replace('_', '-')}", given[name], least)


def _seconds(given: _Given, grace: int) -> int | None:
    if "time" not in given:
        return None
    seconds = durations.seconds_of("--time", given["time"])
    if seconds <= grace:
        raise ConfigError(
            "--time", given["time"], f"more than the {grace} s of --grace"
        )
    return seconds


#: Bytes of the program itself, beside its workers.
_PROGRAM = 128 * 1024**2


def _memory(given: _Given, cores: float) -> int | None:
    """The memory of a shard: as given, or for a worker a core with one task each.

    The shard plans its workers with a part of its memory, the setting memory_fraction.
    """
    if "memory" in given:
        return to_memory("--memory", given["memory"])
    if "profile" not in given:
        return None
    settings = load_settings()
    profile = find_profile(settings, given["profile"])
    if profile is None or profile.memory is None:
        allowed = "a profile with peak_memory, or --memory"
        raise ConfigError("--profile", given["profile"], allowed)
    workers = max(1, int(cores // profile.threads))
    tasks = profile.shared_memory + workers * profile.memory
    return math.ceil(tasks / settings.memory_fraction) + _PROGRAM


def _claim(given: _Given) -> tuple[str, str] | None:
    if "claim" not in given:
        return None
    name, _, path = given["claim"].partition(":")
    if not name or not path.startswith("/"):
        allowed = 'the claim and an absolute path, such as "journals:/journals"'
        raise ConfigError("--claim", given["claim"], allowed)
    return name, path


# --- Some shards again --------------------------------------------------------------


def _some(
    job: ArrayJob,
    journal: str | None,
    kinds: tuple[str, ...],
    given: _Given,
    *,
    grows: bool,
) -> ArrayJob:
    """The job that runs the shards of some kinds again; it may have none.

    Args:
        job: the job of all shards.
        journal: the path of the journals.
        kinds: what their journals say.
        given: the options, with the earlier jobs.
        grows: shards that ran out of memory get more.
    """
    if journal is None:
        allowed = "the path of the journals, such as out-{index}.sqlite"
        raise ConfigError("--journal", journal, allowed)
    states = again.look(journal, job.count, job.logs)
    queued = _queued(given.get("jobs", []))
    busy = [one.index for one in states if one.is_running or one.index in queued]
    if busy:
        shown = array_job.ranges(busy)
        streams.complain(f"coresize: running or queued, and left alone: {shown}")
    chosen = again.chosen(states, kinds, busy)
    memory = job.memory
    if chosen and grows and again.OOM in kinds:
        memory = again.more_memory(memory, chosen)
        streams.complain(f"coresize: memory of a shard: {format_bytes(memory)}")
    return job.changed(
        name=f"{job.name}-{given['attempt']}",
        indices=tuple(one.index for one in chosen),
        retry=tuple(kind for kind in kinds if kind != again.MISSING),
        memory=memory,
    )


def _queued(jobs: list[str]) -> frozenset[int]:
    """The shards that earlier jobs still run or will run, as far as that is known."""
    numbers = [job for job in jobs if job[:1].isdigit()]  # of Slurm
    if not numbers:
        return frozenset()
    return slurm.indices_in(submission.ask(slurm.queue(numbers)))
