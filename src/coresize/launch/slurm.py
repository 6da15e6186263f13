"""The batch script of an array job on Slurm. Pure.

What the script asks for, and why (sbatch(1), Slurm 22.05 and later):

- One node, one task: a shard is one program, which starts workers itself.
- ``exec`` and no ``srun``: the program takes the place of the shell, so the SIGTERM of
  ``--signal=B:`` reaches the program alone, and not its workers, which it ends after
  their outcomes are written. A shell that waits for a program would deliver the signal
  after the program has ended; ``srun`` would send it to every process of the step, and
  since 22.05 it no longer takes ``--cpus-per-task`` from the batch script.
- ``--requeue`` and ``--open-mode=append``: a shard that was preempted, or whose node
  failed, runs again, goes on from its journal, and keeps the log of its first run.
- CORESIZE_SHARDS: an array that runs in part does not know its size.
"""

from __future__ import annotations

import shlex

from coresize.errors import ConfigError
from coresize.launch.array_job import COUNT, INDEX, SHARD, in_units, ranges, replaced


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coresize.launch.array_job import ArrayJob

#: Characters that end a value of a directive, or mean something in it.
_SPECIAL = set("\"'\\\n\r\0")

_WHY_EXEC = (
    "# exec, without srun: the SIGTERM before the time limit is for the program\n"
    "# alone, which ends its workers itself."
)


def script(job: ArrayJob) -> str:
    """The batch script.

    Raises:
        ConfigError: Slurm has no such job.
    """
    directives = "\n".join(f"#SBATCH {option}" for option in _options(job))
    return f"""\
#!/bin/bash
# {job.title}.
{directives}

set -euo pipefail
{_exports(job)}

{_WHY_EXEC}
exec {command(job)}
"""


def command(job: ArrayJob) -> str:
    """The command line of a shard, quoted for the shell."""
    values = {
        SHARD: '"$CORESIZE_SHARD"',
        INDEX: '"$SLURM_ARRAY_TASK_ID"',
        COUNT: str(job.count),
    }
    words = ["coresize", "run", "--quiet", "--", *job.words]
    # An empty word has no part that could be quoted.
    return " ".join(replaced(word, values, _quoted) if word else "''" for word in words)


def _quoted(text: str) -> str:
    """A text for the shell, without carriage returns: sbatch takes them for DOS's."""
    return shlex.quote(text).replace("\r", "'$'\\r''")


def _exports(job: ArrayJob) -> str:
    lines = [
        f"export CORESIZE_SHARDS=0-{job.count - 1}",
        f'export CORESIZE_SHARD="$SLURM_ARRAY_TASK_ID/{job.count}"',
    ]
    if job.retry:
        lines.append(f"export CORESIZE_RETRY={','.join(job.retry)}")
    return "\n".join(lines)


def _options(job: ArrayJob) -> Iterator[str]:
    most = f"%{job.at_once}" if job.at_once else ""
    yield f"--job-name={_value('--name', job.name)}"
    yield f"--array={ranges(job.indices)}{most}"
    yield "--nodes=1"
    yield "--ntasks=1"
    yield f"--cpus-per-task={_whole(job.cores)}"
    if job.memory is not None:
        number, unit = in_units(job.memory)
        yield f"--mem={number}{unit}"
    if job.seconds is not None:
        yield f"--time={_time(job.seconds)}"
    yield f"--signal=B:TERM@{job.grace}"
    yield "--requeue"
    logs = job.logs.replace("%", "%%")
    yield f"--output={_value('--logs', f'{logs}/%A_%a.log')}"
    yield "--open-mode=append"
    for option in job.directives:
        yield _directive(option)


def _whole(cores: float) -> int:
    if cores != int(cores):
        raise ConfigError("--cpus", cores, "a whole number: Slurm allocates CPUs")
    return int(cores)


def _time(seconds: int) -> str:
    """A length of time as D-HH:MM:SS."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day}-{hour:02}:{minute:02}:{second:02}"


def _value(name: str, text: str) -> str:
    """A value in a directive; white space and # need quotes there."""
    if _SPECIAL & set(text):
        allowed = "a text without quotes, backslashes and line breaks"
        raise ConfigError(name, text, f"{allowed}: sbatch cannot read them")
    return f'"{text}"' if set(text) & set(" \t#") else text


def _directive(option: str) -> str:
    if not option.startswith("-") or set("\n\r\0") & set(option):
        allowed = "an option of sbatch in one line, such as --sbatch=--partition=long"
        raise ConfigError("--sbatch", option, allowed)
    return option


# --- The queue --------------------------------------------------------------------


def queue(numbers: Iterable[str]) -> list[str]:
    """The command that prints the indices of jobs which run or wait, a line each.

    Args:
        numbers: what ``sbatch --parsable`` has printed: "12", or "12;cluster".
    """
    jobs = ",".join(number.partition(";")[0] for number in numbers)
    return ["squeue", "--noheader", "--array", "--format=%K", f"--jobs={jobs}"]


def indices_in(text: str) -> frozenset[int]:
    r"""The indices that the command has printed.

    >>> sorted(indices_in("3\n10\nN/A\n"))
    [3, 10]
    """
    words = text.split()
    return frozenset(int(word) for word in words if word.isascii() and word.isdigit())
