"""Supervising a command that runs unattended: its last words, and its end.

Rule 1: the command's standard error is read all the time; otherwise the command would
block. Rule 2: the kernel's count of kills decides what ran out of memory. A program
that loses a process without noticing waits for it for ever, as `multiprocessing.Pool`
does; so the command is killed some time after such a kill. A count of the whole machine
may come from another program: it explains an end, but ends nothing.
"""

from __future__ import annotations

import time
from multiprocessing import connection

from coresize import processes
from coresize.processes import exits
from coresize.processes.oom import OomCounter
from coresize.processes.schedstat import RunTime


TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

    from coresize.model import OutOfMemory

#: Seconds that a command has to end by itself after one of its processes was killed for
#: memory.
PATIENCE = 10.0

#: Seconds between two looks at the count of kills.
_LOOK = 0.1

#: The bytes of standard error to keep, the bytes to read at once, the number of reads
#: at the end (a pipe holds 64 KiB), and the characters of the last line to report.
_KEPT, _AT_ONCE, _LAST_READS, _SHOWN = 4096, 65536, 4, 200


class Supervisor:
    """Reads the standard error of a command, and kills the command if it hangs.

    Args:
        timeout: seconds that the command may take, as far as it could run; None for no
            limit.

    Attributes:
        late: whether the command exceeded its time limit and was killed.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.late = False
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._kills: OomCounter | None = None
        self._began = self._looked = self._killed_at = self._took = 0.0
        self._ran: RunTime
        self._killed: OutOfMemory = "no"
        self._open = False
        self._tail = b""
        self._why = ""

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        """Begin with a started process, which leads a session and may have a pipe."""
        self._process = process
        self._open = process.stderr is not None
        self._kills = OomCounter(process.pid)
        self._ran = RunTime(process.pid)
        self._began = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let the command run for some seconds, or kill it if it is time."""
        end = time.monotonic() + seconds
        self._end_in_time(seconds)
        while (left := end - time.monotonic()) > 0:
            self._read(left)

    def close(self) -> None:
        """Read the last output, after the command and its children have ended."""
        self._look()
        for _ in range(_LAST_READS):
            self._read(0.0)
        if self._process and self._process.stderr:
            self._process.stderr.close()

    def failure(self, code: int | None) -> str:
        """Why the run failed; empty if it succeeded.

        Args:
            code: the exit code; minus the signal number if a signal ended the command.
        """
        if self._why or code == 0:
            return self._why
        if self._killed != "no":
            return "killed for memory"
        lines = self._tail.decode("utf-8", "replace").split("\n")
        texts = [line.strip()[:_SHOWN] for line in lines if line.strip()]
        return ": ".join([exits.describe(code), *texts[-1:]])

    def _read(self, seconds: float) -> None:
        """Read what the command writes within some seconds."""
        pipe = self._process.stderr if self._process and self._open else None
        if pipe is None:
            time.sleep(seconds)
        elif connection.wait([pipe.fileno()], seconds):
            new = pipe.read(_AT_ONCE)
            self._tail = (self._tail + new)[-_KEPT:]
            self._open = bool(new)

    def _look(self) -> None:
        self._looked = time.monotonic()
        moved = self._kills.take_recent() if self._kills else "no"
        if moved != "no" and self._killed != "yes":
            self._killed, self._killed_at = moved, self._looked

    def _end_in_time(self, pause: float) -> None:
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._look()
            self._took = self._ran.look(self._began, now, max(_LOOK, pause))
        if self._timeout is not None and self._took > self._timeout:
            self.late = True
            self._end(f"took longer than {self._timeout:g} s, and was ended")
        elif self._killed == "yes" and now - self._killed_at > PATIENCE:
            self._end("killed for memory, and what was left of it did not end")

    def _end(self, why: str) -> None:
        self._why = self._why or why
        if self._process:
            # Not waited for here: the caller reaps it, and so learns its CPU time.
            processes.kill_session(self._process.pid)
