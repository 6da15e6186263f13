"""What stays beside a command that nobody looks at: its last words, and its end.

Rule 1: what it writes to standard error is read all the time, or it would wait.
Rule 2: the kernel's count of kills decides what ran out of memory. Who loses a process
and does not notice waits for it for ever, as `multiprocessing.Pool` does; so some time
after a kill it is ended. A count of the whole machine may be of another program: it
explains an end, and ends nothing.
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

#: Seconds that a command has to end by itself when some of it was killed for memory.
PATIENCE = 10.0

#: Seconds between two looks at the count of kills.
_LOOK = 0.1

#: Bytes of standard error that are kept, what is read at once, how often it is at the
#: end (a pipe holds 64 KiB), and how many characters are told.
_KEPT, _AT_ONCE, _LAST_READS, _TOLD = 4096, 65536, 4, 200


class Supervisor:
    """Reads what one run of a command complains of, and ends it where it does not.

    Args:
        timeout: seconds that it may take, in which it could run; None for ever.

    Attributes:
        late: it took longer than it may, and was ended.
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
        """It has been started, as the leader of a session; maybe with a pipe."""
        self._process = process
        self._open = process.stderr is not None
        self._kills = OomCounter(process.pid)
        self._ran = RunTime(process.pid)
        self._began = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let it run for a while, or end it."""
        end = time.monotonic() + seconds
        self._end_in_time(seconds)
        while (left := end - time.monotonic()) > 0:
            self._read(left)

    def close(self) -> None:
        """The command and what it left have ended: read the last of what it said."""
        self._look()
        for _ in range(_LAST_READS):
            self._read(0.0)
        if self._process and self._process.stderr:
            self._process.stderr.close()

    def failure(self, code: int | None) -> str:
        """Why the run was no good one; empty where it was.

        Args:
            code: what it ended with; minus the signal where one ended it.
        """
        if self._why or code == 0:
            return self._why
        if self._killed != "no":
            return "killed for memory"
        lines = self._tail.decode("utf-8", "replace").split("\n")
        said = [line.strip()[:_TOLD] for line in lines if line.strip()]
        return ": ".join([exits.describe(code), *said[-1:]])

    def _read(self, seconds: float) -> None:
        """What comes within some seconds."""
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
        if self._process:  # who measures it waits for it, as its end tells its CPU time
            processes.kill_session(self._process.pid)
