"""Running programs of a few lines in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from coresize.diagnosis.findings import Skipped
from coresize.model import Value
from coresize.processes.commands import Command


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from coresize.diagnosis.context import Context

#: Seconds until a program is killed, with every process that it has started.
PATIENCE = 30.0

#: Seconds that processes left behind have to end by themselves.
_LEFT = 0.5

#: Bytes that most of the programs need.
_MEMORY = 64 * 1024**2


class Late(Skipped):
    """The program took too long."""


class Output(Value):
    """The output of a program.

    Attributes:
        out: the text written to standard output.
        err: the text written to standard error.
    """

    out: str
    err: str


def run_python(context: Context, *words: str) -> Output:
    """Run this interpreter with these arguments.

    Raises:
        Late: the program did not end in time.
        Skipped: there is too little memory to run it.
    """
    context.require(_MEMORY)
    with (
        # No pipes: processes left behind may hold them open.
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as err,
    ):
        command = Command(
            # -P: no file of the working folder shadows a module of Python.
            [sys.executable, "-P", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        try:
            command.start().wait(PATIENCE)
        except subprocess.TimeoutExpired:
            reason = f"a fresh process did not end within {PATIENCE:g} s"
            raise Late(reason) from None
        finally:
            command.close(patience=_LEFT)
        return Output(out=_read(out), err=_read(err))


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
