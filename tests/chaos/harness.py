"""Programs that are attacked: started, watched, and known by a mark afterwards.

Each row of the tables in this folder is one way to attack a pool or a batch. The
program runs in a session and a folder of its own; all of its processes carry a mark in
their environment, so whatever it leaves behind is found, whoever its parent is by then.
What is true afterwards is the same for every row: no process, no temporary file and no
descriptor is left, every item has ended exactly once, with its own value.

No test here says how long anything takes. `PATIENCE` ends what hangs, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

TESTS = Path(__file__).parents[1]

#: Seconds after which a program is said to hang. No program takes a tenth of it.
PATIENCE = 90.0

#: The variable that all processes of an attacked program carry.
_MARK = "CHAOS_MARK"

#: The variable with the seed of all dice; without it, one that is the same every day.
SEED = "CORESIZE_CHAOS_SEED"


# Taken away, as coresize tells of variables that look like its own and are none.
_seed = os.environ.pop(SEED, "12")


def dice(name: str) -> random.Random:
    """Dice for one test, which fall the same way for one seed; a failure shows it."""
    print(f"{SEED}={_seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(f"{_seed} {name}")


class Program:
    """A program under attack.

    Args:
        folder: what it may write into; its temporary files have one of their own, as a
            socket of the forkserver is there, whose path has to be short.
        words: ``python -m chaos.`` the first and the others; or ``python`` and all of
            them where the first is a path.
        shell: how a shell starts it, with limits and streams of its own.
    """

    def __init__(self, folder: Path, *words: object, shell: str = 'exec "$@"') -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        self.temporary = Path(tempfile.mkdtemp(prefix="chaos-"))
        environment = {
            **os.environ,
            _MARK: self.mark,
            "PYTHONPATH": str(TESTS),
            "TMPDIR": str(self.temporary),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        with (folder / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                ["sh", "-c", shell, "sh", sys.executable, *_module(*words)],
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env=environment,
                start_new_session=True,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left, so that a failed row disturbs no other."""
        self.process.kill()
        if self.process.stdout:
            self.process.stdout.close()
        self.process.wait()
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.temporary, ignore_errors=True)

    # --- What it consists of --------------------------------------------------

    def pids(self) -> list[int]:
        """All of its processes, whoever their parent is."""
        return marked(self.mark)

    def servers(self) -> list[int]:
        """The forkserver, of which workers are children."""
        return [
            pid
            for pid in self.pids()
            if b"forkserver" in _command(pid) and parent_of(pid) == self.process.pid
        ]

    def workers(self) -> list[int]:
        """The children of the forkserver, or of the program where there is none."""
        servers = self.servers()
        return [pid for pid in self.pids() if parent_of(pid) in servers]

    # --- How it ends ------------------------------------------------------------

    def end(self) -> int:
        """Wait for its end; its exit status.

        Raises:
            AssertionError: it hangs.
        """
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            message = f"it hangs:\n{self.told()}"
            raise AssertionError(message) from None
        return self.process.returncode

    def told(self) -> str:
        """What it has written to standard error."""
        return (self.folder / "stderr").read_text(errors="replace")[-6000:]

    def check_nothing_left(self) -> None:
        """See that all of its processes and temporary files are gone, or go now."""
        wait_for(lambda: not self.pids(), lambda: f"left: {named(self.pids())}")
        # After a kill what the standard library's forkserver had made stays there.
        left = [str(path) for path in self.temporary.rglob("*")]
        assert left == [] or self.process.returncode < 0


def _module(first: object, *words: object) -> list[str]:
    named = [str(first)] if isinstance(first, Path) else ["-m", f"chaos.{first}"]
    return [*named, *map(str, words)]


def marked(mark: str | None = None) -> list[int]:
    """All processes that carry a mark, by default that of this process."""
    text = f"{_MARK}={mark or os.environ[_MARK]}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and text in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def wait_for(holds, text=lambda: "it never came to be", patience=PATIENCE / 3) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it does not within the patience.
    """
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, text()
        time.sleep(0.02)


def parent_of(pid: int) -> int:
    """The parent of a process; 0 where it has gone."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(stat.rpartition(")")[2].split()[1])
    return 0


def state_of(pid: int) -> str:
    """The state of a process as a letter; "" where it has gone."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0]
    return ""


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def named(pids: Iterable[int]) -> str:
    """Processes, their states and commands, for messages."""
    return "; ".join(f"{pid} {state_of(pid)} {_command(pid)!r}" for pid in pids)
