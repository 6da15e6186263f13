"""What is left of a process that has died: found by a mark, and ended.

A tool that a task has started outlives the worker that the kernel has killed, holds the
memory that the next try needs, and writes the files that the next try writes. Nothing
leads to it any more: its parent is process 1 now. So whatever coresize starts gets a
mark, a variable of the environment, which tools inherit and /proc shows of every
process (proc(5), /proc/PID/environ). A mark within a mark keeps the outer one, so that
the end of the outermost program ends all levels.

Who is killed cannot clean up. So beside a program that starts others a watchdog waits
on a socket: it is told that the program has ended as it should, or reads the end of the
socket, and then ends all that has the program's mark. It is a shell that waits, of one
MiB, in a session of its own and no child of the program, which may wait for all of its
children; only when it is needed it becomes Python.

Who wants to outlive all of this leaves the variable away, as Jenkins has it with its
cookie, whose way this is. Where there is no /proc nothing is found.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from multiprocessing import util

from coresize import processes
from coresize.host import MARK
from coresize.processes import lines


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

#: After all that multiprocessing does at the end of a process.
_LAST = -1000

#: Looks at all processes, until nothing is found that was started meanwhile.
_MOST_LOOKS = 100

#: Seconds by which the start of a process is told too early: it is counted in ticks.
_TICK = 0.02

#: Seconds between two looks at a process that was killed, and after which its end is
#: no longer waited for, as where it is in the middle of a read from a dead disk.
_LOOK, _PATIENCE = 0.002, 1.0

#: Waits for a line; where there is none but the end, becomes the program it is given.
#: In the background a shell reads from /dev/null, unless from another number.
_WAIT = 'exec 3<&0; { read -r _ <&3 || exec "$@"; } </dev/null &'

#: What that program does: with the module search path of ours.
_END = (
    "import sys; mark, *sys.path = sys.argv[1:]; "
    "from coresize.processes import orphans; orphans.end(mark)"
)


class Program:
    """This process, as what it starts is marked by it; with its watchdog.

    Attributes:
        pid: its number; a process that is forked from it is another.
        mark: what all marks that it gives begin with.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.mark = f"/{os.urandom(8).hex()}/"
        self._numbers = itertools.count(1)
        self._line = _start_watchdog(self.mark)
        # Also of a child of multiprocessing, which leaves out what atexit knows.
        util.Finalize(None, self.end, exitpriority=_LAST)

    def number(self) -> str:
        """A mark that no other process has."""
        return f"{self.mark}{next(self._numbers)}/"

    def end(self) -> None:
        """Tell the watchdog that all is well: what still runs is meant to."""
        if self._line is not None:
            with self._line, contextlib.suppress(OSError):
                self._line.send(b"\n")


_program: Program | None = None


def new() -> str:
    """A mark for a process that is to be started."""
    global _program  # noqa: PLW0603 - there is one of a process
    with lines.lock:  # one of two threads would be left with a program that nobody has
        if _program is None or _program.pid != os.getpid():
            _program = Program()
        return _program.number()


def variables(mark: str) -> dict[str, str]:
    """What marks a process and all that it starts, in its environment."""
    # That of this process begins and ends with a slash, too.
    return {MARK: f"{os.environ.get(MARK, '').rstrip('/')}{mark}"}


def end(mark: str, since: float = 0.0) -> None:
    """End at once what has a mark, apart from this process.

    Args:
        mark: as `new` gave it.
        since: spare what was started before, by time.monotonic().
    """
    for _ in range(_MOST_LOOKS):
        found = [pid for pid in _marked(mark) if _started(pid) >= since - _TICK]
        if not found:
            return
        kill(found)


def kill(pids: Iterable[int]) -> None:
    """End processes at once, and wait until the kernel has their memory back.

    A large one is on its way out for some time, and whoever starts the next task would
    find its memory still in use.
    """
    left = set(pids)
    for pid in left:
        processes.kill(pid)
    end = time.monotonic() + _PATIENCE
    while left and time.monotonic() < end:
        left = {pid for pid in left if not processes.has_exited(pid)}
        if left:
            time.sleep(_LOOK)


def _marked(mark: str) -> list[int]:
    """The processes that have it; what has ended has no environment any more."""
    return [pid for pid in _pids() if mark in processes.read(pid, "environ")]


def _pids() -> list[int]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _started(pid: int) -> float:
    """When a process was started, by time.monotonic(); 0 where it is gone."""
    return processes.start_ticks(pid) / os.sysconf("SC_CLK_TCK") - _asleep()


def _asleep() -> float:
    """Seconds that the machine was suspended, which time.monotonic() leaves out."""
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot - time.monotonic()


def _start_watchdog(mark: str) -> socket.socket | None:
    """What ends all that has a mark when this process is killed; its socket."""
    if not (sys.executable and processes.exists("self", "environ")):
        return None
    import subprocess  # few start one

    code = [sys.executable, "-I", "-S", "-c", _END, mark, *map(str, sys.path)]
    try:
        here, there = lines.pair()
        with there:
            # It ends at once, and leaves the one that waits to process 1.
            subprocess.run(  # noqa: S603 - the shell, and this interpreter
                ["/bin/sh", "-c", _WAIT, "sh", *code],
                stdin=there.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: value for name, value in os.environ.items() if name != MARK},
                start_new_session=True,
                check=True,
            )
    except (OSError, ValueError, subprocess.SubprocessError):
        return (
            None  # done without: a path with a zero in it, no shell, no more processes
        )
    return here
