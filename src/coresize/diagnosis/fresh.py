"""Programs of a few lines, run by a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from coresize import processes
from coresize.diagnosis.skipping import Skipped
from coresize.model import Value


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.diagnosis.patient import Patient

#: Seconds until it is ended, with all that it has started.
PATIENCE = 30.0

#: Bytes of what it starts, mostly.
_MEMORY = 64 * 1024**2


class Late(Skipped):
    """It took too long."""


class Told(Value):
    """What it has written.

    Attributes:
        out: to standard output.
        err: to standard error.
    """

    __slots__ = ("out", "err")  # noqa: RUF023

    out: str
    err: str


def run_python(patient: Patient, *words: str) -> Told:
    """Run this interpreter with these arguments.

    Raises:
        Late: it did not end in time.
        Skipped: there is too little memory to try.
    """
    patient.require(_MEMORY)
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            processes.kill_tree(process.pid)
            reason = f"a fresh process did not end within {PATIENCE:g} s"
            raise Late(reason) from None
        return Told(out=out, err=err)
