"""The manifest of an Indexed Job on Kubernetes. Pure.

What the manifest asks for, and why (batch/v1, Kubernetes 1.29 and later):

- ``backoffLimitPerIndex`` and ``podFailurePolicy``: a shard that fails costs no other,
  and the exit status decides whether its pod is started again (`ExitCode`). A pod that
  was preempted or evicted is started again without counting.
- ``podReplacementPolicy: Failed``: the next pod of a shard starts after the last one
  has ended, since a journal has one writer.
- Memory as request and limit: memory cannot be taken back from a pod. Cores as request
  alone: a CPU limit would throttle a pod on an idle node. So CORESIZE_MAX_CORES tells
  the number of cores; without it, a pod would count all cores of its node.
- ``coresize run`` as process 1, which passes SIGTERM on; most programs would ignore it.
- JOB_COMPLETION_INDEX stands in the list although Kubernetes adds it by itself, because
  CORESIZE_SHARD is made from it, and can only name variables that stand before it.
"""

from __future__ import annotations

import math
import re
import shlex

from coresize.batch.exit_codes import ExitCode
from coresize.errors import ConfigError
from coresize.launch import yaml_text
from coresize.launch.array_job import COUNT, INDEX, SHARD, in_units, replaced


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from coresize.launch.array_job import ArrayJob

    _Object: TypeAlias = dict[str, Any]

_INDEX_NAME = "JOB_COMPLETION_INDEX"
_INDEX_PATH = "metadata.annotations['batch.kubernetes.io/job-completion-index']"

#: The container, which the rules name: others in the pod may end in any way.
_CONTAINER = "shard"
_VOLUME = "journals"

#: The most shards of one job with a limit for each index.
_MOST = 100_000

#: RFC 1123; a pod's host name is the name of the job, a hyphen and its index.
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 63

#: Statuses of a shell that cannot start the program, in any pod. That of a container
#: which cannot be started, 128, may be the fault of one node.
_NOT_STARTED = (126, 127)
_FINAL = (ExitCode.FAILED, ExitCode.USAGE, ExitCode.OUT_OF_MEMORY)


def text(job: ArrayJob) -> str:
    """The manifest as YAML.

    Raises:
        ConfigError: Kubernetes has no such job, or an option is missing.
    """
    return f"# {job.title}.\n{_MEANING}{yaml_text.dump(manifest(job))}"


_MEANING = f"""\
# Exit status of a shard: {ExitCode.CONTINUE}, start it again, from its journal; \
{ExitCode.OUT_OF_MEMORY}, it needs more memory;
# {ExitCode.FAILED}, tasks have failed; {ExitCode.USAGE}, bad usage.
"""


def manifest(job: ArrayJob) -> _Object:
    """The manifest as a value.

    Raises:
        ConfigError: Kubernetes has no such job, or an option is missing.
    """
    _check(job)
    number = len(job.indices)
    spec = {
        "completionMode": "Indexed",
        "completions": number,
        "parallelism": min(job.at_once or number, number),
        "backoffLimitPerIndex": job.restarts,
        "maxFailedIndexes": job.max_failed and min(job.max_failed, number),
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _rules()},
        "template": {"metadata": {"labels": _labels(job)}, "spec": _pod(job)},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "labels": _labels(job)},
        "spec": _without_none(spec),
    }


def _check(job: ArrayJob) -> None:
    if job.image is None:
        allowed = "the image of the container, with coresize in it"
        raise ConfigError("--image", job.image, allowed)
    if job.memory is None:
        allowed = (
            "the memory of a shard, or --profile: a pod without it is killed first"
        )
        raise ConfigError("--memory", job.memory, allowed)
    if job.count > _MOST:
        raise ConfigError("shards", job.count, f"{_MOST} or fewer on Kubernetes")
    longest = _LONGEST_NAME - len(f"-{len(job.indices) - 1}")
    if not _LABEL.fullmatch(job.name) or len(job.name) > longest:
        allowed = f"at most {longest} lower-case letters, digits and hyphens"
        raise ConfigError("--name", job.name, f"{allowed}, with a letter first")


def _labels(job: ArrayJob) -> _Object:
    return {
        "app.kubernetes.io/name": job.name,
        "app.kubernetes.io/managed-by": "coresize",
    }


#: The status is required before Kubernetes 1.34.
_DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


def _rules() -> list[_Object]:
    return [
        {"action": "Ignore", "onPodConditions": [_DISRUPTED]},
        _rule("Count", [ExitCode.CONTINUE]),
        _rule("FailIndex", _FINAL),
        _rule("FailJob", _NOT_STARTED),
    ]


def _rule(action: str, codes: list[ExitCode] | tuple[int, ...]) -> _Object:
    return {
        "action": action,
        "onExitCodes": {
            "containerName": _CONTAINER,
            "operator": "In",
            "values": sorted(map(int, codes)),
        },
    }


def _pod(job: ArrayJob) -> _Object:
    volume = job.claim and {
        "name": _VOLUME,
        "persistentVolumeClaim": {"claimName": job.claim[0]},
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.grace,
        "activeDeadlineSeconds": job.seconds,
        "containers": [_container(job)],
        "volumes": [volume] if volume else None,
    }
    return _without_none(pod)


def _container(job: ArrayJob) -> _Object:
    number, unit = in_units(job.memory or 0)
    size = f"{number}{unit}i"
    mount = job.claim and {"name": _VOLUME, "mountPath": job.claim[1]}
    container = {
        "name": _CONTAINER,
        "image": job.image,
        "command": command(job),
        "env": _env(job),
        "resources": {
            "requests": {"cpu": f"{job.cores:g}", "memory": size},
            "limits": {"memory": size},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount] if mount else None,
    }
    return _without_none(container)


def _env(job: ArrayJob) -> list[_Object]:
    found: list[_Object] = [
        {
            "name": _INDEX_NAME,
            "valueFrom": {"fieldRef": {"fieldPath": _INDEX_PATH}},
        }
    ]
    if job.is_whole:
        found.append(_variable("CORESIZE_SHARD", f"$({_INDEX_NAME})/{job.count}"))
    found.append(_variable("CORESIZE_SHARDS", f"0-{job.count - 1}"))
    found.append(_variable("CORESIZE_MAX_CORES", str(math.ceil(job.cores))))
    if job.retry:
        found.append(_variable("CORESIZE_RETRY", ",".join(job.retry)))
    return found


def _variable(name: str, value: str) -> _Object:
    return {"name": name, "value": value}


def _without_none(fields: _Object) -> _Object:
    return {name: value for name, value in fields.items() if value is not None}


# -----------------------------------------------------------------------------
# The command line.
#
# Kubernetes replaces $(NAME) in the words of a command by the variable of the
# container, and $$ by $. So the first start of a batch needs no shell in the image. A
# start of some of its shards does: the indices of a job have no gaps, and the shell
# looks up the shard for which an index stands.


def command(job: ArrayJob) -> list[str]:
    """The command of the container.

    Raises:
        ConfigError: a word cannot be written in a manifest.
    """
    words = ["coresize", "run", "--quiet", "--", *job.words]
    for word in words:
        if not _is_unicode(word):
            raise ConfigError("CMD", word, "words in UTF-8: a manifest has no others")
    if job.is_whole:
        values = {
            SHARD: "$(CORESIZE_SHARD)",
            INDEX: f"$({_INDEX_NAME})",
            COUNT: str(job.count),
        }
        return [replaced(word, values, _literal) for word in words]
    return ["sh", "-c", _literal(_script(job, words))]


def _is_unicode(word: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in word)


def _literal(word: str) -> str:
    return word.replace("$", "$$")


def _script(job: ArrayJob, words: list[str]) -> str:
    """The shell script that starts one of some shards."""
    values = {
        SHARD: '"$CORESIZE_SHARD"',
        INDEX: f'"${_INDEX_NAME}"',
        COUNT: str(job.count),
    }
    line = " ".join(
        replaced(word, values, shlex.quote) if word else "''" for word in words
    )
    indices = " ".join(map(str, job.indices))
    return (
        f'set -- {indices}\nshift "${_INDEX_NAME}"\n'
        f'export {_INDEX_NAME}="$1" CORESIZE_SHARD="$1/{job.count}"\nexec {line}\n'
    )
