"""Running programs of a few lines in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from coresize import processes
from coresize.diagnosis.findings import Skipped
from coresize.model import Value
from coresize.processes import orphans


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from coresize.diagnosis.context import Context

#: Seconds until it is ended, with all that it has started.
PATIENCE = 30.0

#: Seconds that what it leaves behind has to end.
_LEFT = 0.5

#: Bytes of what it starts, mostly.
_MEMORY = 64 * 1024**2


class Late(Skipped):
    """The program took too long."""


class Told(Value):
    """The output of a program.

    Attributes:
        out: the text written to standard output.
        err: the text written to standard error.
    """

    out: str
    err: str


def run_python(context: Context, *words: str) -> Told:
    """Run this interpreter with these arguments.

    Raises:
        Late: the program did not end in time.
        Skipped: there is too little memory to run it.
    """
    context.require(_MEMORY)
    with (
        # No pipes: what it leaves behind may hold them open.
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as err,
    ):
        process = None
        try:
            with processes.starting():
                process = subprocess.Popen(  # noqa: S603 - this interpreter
                    # -P: no file of the working folder stands for Python's own.
                    [sys.executable, "-P", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env={**os.environ, **orphans.variables(orphans.new())},
                    start_new_session=True,
                )
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            reason = f"a fresh process did not end within {PATIENCE:g} s"
            raise Late(reason) from None
        finally:
            _end(process)
        return Told(out=_read(out), err=_read(err))


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """End it, if it was started, with what it has left behind."""
    if process is None:
        return
    if process.returncode is None:
        processes.kill_session(process.pid)
        process.wait()
    else:
        processes.kill_group(process.pid, _LEFT)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
