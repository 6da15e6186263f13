"""Orphans: processes that a dead process has left behind, found by a mark and killed.

A tool that a task has started outlives a worker that the kernel kills. It still holds
the memory that the next try needs, and writes the same files. Its parent is now process
1, so nothing leads to it any more. Therefore every process that coresize starts gets a
mark: an environment variable, which tools inherit and which /proc shows of every
process (proc(5), /proc/PID/environ). Nested marks keep the outer one, so that the end
of the outermost program ends all levels.

A killed program cannot clean up. So beside each program that starts others, a watchdog
waits on a socket. Either the program reports its regular end, or the watchdog reads the
end of the socket and kills every process with the program's mark. The watchdog is a
shell of one MiB, in a session of its own. It is not a child of the program, because the
program may wait for all of its children. It becomes Python only when it is needed.

A process that wants to outlive its program removes the variable, as with the cookie of
Jenkins, from which this method is taken. Without /proc, no orphans are found.

When a worker of a pool dies, only what its last task has started ends with it. A second
mark, which `task_limits` explains, names the task. It also finds a process that was
given another environment, and a mere fork. A process has left on purpose only if it has
left both: it is in another session, and its environment is not empty but lacks the
variable. What was seen below the worker at some moment does not matter, because the
moment is chance.
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
from coresize.processes import lines, task_limits


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

#: The exit priority that comes after all exit functions of multiprocessing.
_LAST = -1000

#: The most searches through all processes, until a search finds no new one.
_MOST_LOOKS = 100

#: The error of a process's start time, in seconds: the kernel counts in ticks.
_TICK = 0.02

#: Seconds between two looks at a killed process, and the time limit for its end: a
#: process may hang in a read from a dead disk.
_LOOK, _PATIENCE = 0.002, 1.0

#: The shell script of the watchdog: it waits for a line; if it reads the end of the
#: socket instead, it becomes the given program. The file number 3 is needed because a
#: shell in the background reads from /dev/null as its standard input.
_WAIT = 'exec 3<&0; { read -r _ <&3 || exec "$@"; } </dev/null &'

#: The program of the watchdog, which gets our module search path.
_END = (
    "import sys; mark, *sys.path = sys.argv[1:]; "
    "from coresize.processes import orphans; orphans.end(mark)"
)


class Program:
    """This process as the source of marks, with its watchdog.

    Attributes:
        pid: the id of this process; a forked child is another program.
        mark: the beginning of all marks that this program gives.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.mark = f"/{os.urandom(8).hex()}/"
        self._numbers = itertools.count(1)
        self._line = _start_watchdog(self.mark)
        # Not atexit: a child of multiprocessing does not run its hooks.
        util.Finalize(None, self.end, exitpriority=_LAST)

    def number(self) -> str:
        """A new mark, which no other process has."""
        return f"{self.mark}{next(self._numbers)}/"

    def end(self) -> None:
        """Report the regular end to the watchdog, so that it kills nothing."""
        if self._line is not None:
            with self._line, contextlib.suppress(OSError):
                self._line.send(b"\n")


_program: Program | None = None


def new() -> str:
    """A new mark, for a process that is about to be started."""
    global _program  # noqa: PLW0603 - each process has one
    with lines.lock:  # two threads must not make two programs
        if _program is None or _program.pid != os.getpid():
            _program = Program()
        return _program.number()


def variables(mark: str) -> dict[str, str]:
    """The environment variable that marks a process and all that it starts."""
    # The mark of this process, if any, begins and ends with a slash, too.
    return {MARK: f"{os.environ.get(MARK, '').rstrip('/')}{mark}"}


def end(mark: str) -> None:
    """Kill every process with a mark, except for this process.

    Args:
        mark: a mark that `new` has returned.
    """
    _end(lambda pid: mark in processes.read(pid, "environ"))


def end_task(mark: str, number: int, since: float) -> None:
    """Kill what the last task of a worker has started; earlier tasks' processes go on.

    Args:
        mark: the mark of the worker, which has ended.
        number: the number of the task.
        since: when the task began, by time.monotonic(); decides where a process shows
            no number of a task.
    """
    _end(lambda pid: _is_of_task(pid, mark, number, since))


def _end(is_meant: Callable[[int], bool]) -> None:
    for _ in range(_MOST_LOOKS):
        pids = [pid for pid in _pids() if is_meant(pid)]
        if not pids:
            return
        kill(pids)


def _is_of_task(pid: int, mark: str, number: int, since: float) -> bool:
    variables = processes.read(pid, "environ")
    task = task_limits.task_of(pid, mark)
    if task is None:
        return mark in variables and _started(pid) >= since - _TICK
    if not task_limits.is_since(task, number) or processes.has_exited(pid):
        return False
    return mark in variables or not (variables and _has_left_session(pid))


def _has_left_session(pid: int) -> bool:
    """Whether a process is in another session than this process and its workers."""
    try:
        return os.getsid(pid) != os.getsid(0)
    except OSError:  # the process is gone
        return True


def kill(pids: Iterable[int]) -> None:
    """Kill processes, and wait until the kernel has their memory back.

    A large process takes some time to exit, and the next task would find its memory
    still in use.
    """
    every = set(pids)
    left = every
    for pid in every:
        processes.kill(pid)
    end = time.monotonic() + _PATIENCE
    while left and time.monotonic() < end:
        left = {pid for pid in left if not processes.has_exited(pid)}
        if left:
            time.sleep(_LOOK)
    for pid in every - left:
        # If this is process 1 of a container, it is their parent now.
        with contextlib.suppress(OSError, AttributeError):
            os.waitpid(pid, os.WNOHANG)


def _pids() -> list[int]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _started(pid: int) -> float:
    """The start of a process by time.monotonic(); 0 or less if the process is gone."""
    return processes.start_ticks(pid) / os.sysconf("SC_CLK_TCK") - _asleep()


def _asleep() -> float:
    """Seconds that the machine was suspended; time.monotonic() does not count them."""
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot - time.monotonic()


def _start_watchdog(mark: str) -> socket.socket | None:
    """Start the watchdog for a mark, and return its socket; None if that fails."""
    # In a frozen program, sys.executable is that program, and no Python.
    frozen = getattr(sys, "frozen", False)
    if frozen or not (sys.executable and processes.exists("self", "environ")):
        return None
    import subprocess  # few programs need it

    code = [sys.executable, "-I", "-S", "-c", _END, mark, *map(str, sys.path)]
    try:
        here, there = lines.pair()
        with there:
            # This shell ends at once; process 1 adopts its waiting child.
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
        # No shell, no more processes, a NUL character in a path: do without it.
        return None
    return here
