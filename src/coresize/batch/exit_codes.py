"""The exit status of the commands that run batches, for schedulers and scripts. Pure.

A scheduler decides by the status of a job whether the job runs again: Kubernetes by
``podFailurePolicy``, Slurm by ``RequeueExit``, a shell by ``$?``. So the numbers mean
one thing each, and none is a number that others use: 64 to 78 are those of sysexits.h
(75 is EX_TEMPFAIL there, "try again later"), 85 is a checkpoint of HTCondor, 99 and 100
are Grid Engine's, 124 to 128 those of timeout(1), Docker, shells and containers that do
not start, and 128 + n is the signal n.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The exit status of a program that runs a batch."""

    #: All tasks are ok.
    OK = 0
    #: Tasks have failed, after all retries: running the batch again will not help.
    FAILED = 1
    #: The command line, a setting or a file is wrong, and nothing else was tried.
    USAGE = 2
    #: Memory ran out, as ENOMEM (12) says: the same with more memory may help.
    OUT_OF_MEMORY = 12
    #: The batch was stopped: the same command goes on where it was.
    CONTINUE = 75


def worst(codes: set[int]) -> ExitCode:
    """The status of several parts together: what is to be done first.

    A part that can go on comes first, because it is not known yet how that part ends;
    then a part that needs more memory.

    >>> worst({0, 1, 12}), worst({12, 75}), worst({0, -9}), worst(set())
    (<ExitCode.OUT_OF_MEMORY: 12>, <ExitCode.CONTINUE: 75>, <ExitCode.FAILED: 1>, \
<ExitCode.OK: 0>)
    """
    for code in (ExitCode.CONTINUE, ExitCode.OUT_OF_MEMORY):
        if code in codes:
            return code
    return ExitCode.FAILED if codes - {ExitCode.OK} else ExitCode.OK
