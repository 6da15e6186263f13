"""The only access to other processes, and to a process's own kernel settings.

Rule 1: texts are returned unchanged; `coresize.processes.memory` parses them.
Rule 2: a process that no longer exists is not an error; functions return an empty
answer for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from coresize.host import Live


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import NoReturn

#: proc(5): writing 5 to clear_refs resets the "high water mark" VmHWM to the memory
#: that is resident now; Linux 4.0.
_RESET_PEAK = b"5"

#: proc(5): the oom_score_adj of a process that the kernel kills first when memory runs
#: out. Raising the value of a process of the same user needs no privilege.
_FIRST_TO_GO = b"1000"


#: SIGKILL in a signal mask, and the flag of a process that a signal is ending (Linux,
#: include/linux/sched.h, PF_SIGNALED).
_KILL, _SIGNALED = 1 << (9 - 1), 0x400

#: Seconds between two looks at a process group that should end.
_LOOK = 0.005

_HERE = Live()

#: The number of forks between the first process and this one. Code that has noted the
#: number notices a fork without asking the kernel for its process id.
forks = 0


def _count_fork() -> None:
    global forks  # noqa: PLW0603 - it belongs to the process
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def read(pid: int | str, name: str) -> str:
    """A file of a process in /proc; empty without such a file or process."""
    try:
        return _HERE.read(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def exists(pid: int | str, name: str) -> bool:
    """Whether a process has a readable file of this name in /proc."""
    return os.access(f"/proc/{pid}/{name}", os.R_OK)


def own() -> int:
    """The id of this process."""
    return os.getpid()


def end_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End this process if a task has forked it and then returned in the child, too.

    Otherwise the child would go on as a second worker, or as a second program, and
    repeat all further work.

    Args:
        pid: the process in which the task began.
        error: the error that the task raised, or None.
    """
    if os.getpid() != pid:
        _end_child(error)


def _end_child(error: BaseException | None) -> NoReturn:
    """End a forked process as Python ends a program, but without exit handlers.

    Exit handlers and open resources belong to the parent process.

    Args:
        error: the error that ends the process; None if it has reached its end.
    """
    code: object = 0
    with contextlib.suppress(BaseException):
        if isinstance(error, SystemExit):
            code = error.code
            if not isinstance(code, (int, type(None))):
                sys.stderr.write(f"{code}\n")
                code = 1
        elif error is not None:
            code = 1
            sys.excepthook(type(error), error, error.__traceback__)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit((code or 0) & 0xFF if isinstance(code, int) else 0)


def is_alive(pid: int) -> bool:
    """Whether the process exists, whoever its user is."""
    if pid <= 0:
        return False
    import psutil

    return psutil.pid_exists(pid)


def is_running(pid: int) -> bool:
    """Whether the process is alive and not a zombie, which waits to be reaped."""
    if pid <= 0:
        return False
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # of another user
        return True


def has_exited(pid: int) -> bool:
    """Whether a process has given its memory back: it is gone or a zombie (Linux).

    The main thread may be a zombie while other threads still hold the memory.
    """
    state = read(pid, "stat").rpartition(")")[2].split()[:1]
    return state in ([], ["X"]) or (state == ["Z"] and len(threads(pid)) <= 1)


def descendants(pid: int) -> dict[int, int]:
    """The process and its descendants, each with its parent; parents come first."""
    parents = {pid: 0}
    todo = [pid]
    for parent in todo:  # grows during the loop
        for thread in threads(parent):
            children = read(parent, f"task/{thread}/children").split()
            todo += map(int, children)
            parents.update(dict.fromkeys(map(int, children), parent))
    return parents


def start_ticks(pid: int) -> int:
    """The start of a process in ticks since the boot; 0 if the process is gone.

    Together with its id, the start identifies a process even after the id is reused.
    """
    return _stat(pid, 22)


def faults_of_children(pid: int) -> int:
    """Page faults of the reaped children of a process; 0 if the process is gone.

    Every child has page faults, so the count rises whenever a child has been reaped.
    """
    return _stat(pid, 11)


def _stat(pid: int, field: int) -> int:
    """A field of /proc/PID/stat, numbered as in proc(5); 0 without such a field."""
    fields = read(pid, "stat").rpartition(")")[2].split()  # names may contain spaces
    return int(fields[field - 3]) if len(fields) > field - 3 else 0


def is_killed(pid: int) -> bool:
    """Whether SIGKILL has ended a process, or will before the process does more.

    Either the signal is pending; or the process is exiting, which takes long if it has
    much memory; or it is a zombie with an exit code (proc(5)).
    """
    for line in read(pid, "status").split("\n"):
        if line.startswith("SigPnd:") and int(line[7:], 16) & _KILL:
            return True
    signaled, code = _stat(pid, 9) & _SIGNALED, _stat(pid, 52) & 0x7F
    return bool(signaled) and code in {0, 9}  # 0: the code is not known yet


def threads(pid: int) -> list[int]:
    """The threads of a process; none if the process is gone, or without /proc."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        return []


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the process group that a process leads."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:  # Windows
            os.kill(pid, signal.SIGTERM)


def kill_group(pid: int, patience: float = 0.0) -> None:
    """Kill the remaining members of a process group, whose leader may have ended.

    Args:
        pid: the leader of the group.
        patience: seconds that the members have to end by themselves, as the resource
            tracker of multiprocessing does.
    """
    if not hasattr(os, "killpg"):  # Windows
        return
    end = time.monotonic() + patience
    with contextlib.suppress(OSError):  # the group is empty
        while time.monotonic() < end:
            os.killpg(pid, 0)
            time.sleep(_LOOK)
        os.killpg(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants."""
    for descendant in descendants(pid):
        kill(descendant)


def kill(pid: int) -> None:
    """Kill one process."""
    # Windows has no SIGKILL; there, SIGTERM ends a process just as surely.
    with contextlib.suppress(OSError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def kill_session(pid: int) -> None:
    """Kill a process that leads a session, and every process that it has started.

    Processes that have left the session are found by their parents, and processes that
    have lost their parents by the session. The leader must not have been reaped: its id
    could belong to another process.
    """
    kill_tree(pid)
    kill_group(pid)


def cpu_seconds() -> float:
    """The CPU time of this process and of its reaped children."""
    try:
        import resource

        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)
    except (ImportError, OSError):  # Windows; a sandbox
        return sum(os.times()[:4])


def resident_peak() -> int:
    """The peak of this process's resident memory, with pages of files; 0 if unknown.

    The call takes a hundredth of the time to read a file in /proc (getrusage(2), Linux:
    ru_maxrss in KiB; a child process inherits the value of its parent).
    """
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    except (ImportError, OSError):  # Windows; a sandbox
        return 0


def cpu_of_tree(pid: int) -> dict[int, tuple[float, float]]:
    """Seconds of CPU time of a process and its descendants.

    For each process, the pair holds its own time and the time of its reaped children;
    so the sum over all processes keeps the time of children that have ended.
    """
    import psutil

    seconds = {}
    for descendant in descendants(pid):
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(descendant).cpu_times()
            of_children = own.children_user + own.children_system
            seconds[descendant] = (own.user + own.system, of_children)
    return seconds


def reset_peak(pid: int | str) -> bool:
    """Reset VmHWM of a process; returns False if that is not permitted."""
    return _write(f"/proc/{pid}/clear_refs", _RESET_PEAK)


def offer_to_oom_killer(pid: int | str = "self") -> bool:
    """Make the kernel kill this process before others when memory runs out."""
    return _write(f"/proc/{pid}/oom_score_adj", _FIRST_TO_GO)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, even where a sandbox refuses socketpair().

    Raises:
        OSError: the sockets cannot be made.
    """
    import socket

    try:
        return socket.socketpair()
    except OSError:
        if not hasattr(socket, "SO_PEERCRED"):
            raise
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # unix(7), "Autobind feature": a unique name
        listener.listen(1)
        while True:
            here = socket.socket(socket.AF_UNIX)
            here.connect(listener.getsockname())
            there, _ = listener.accept()
            peer = there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if int.from_bytes(peer[:4], sys.byteorder) == os.getpid():
                return here, there
            here.close()  # another process has connected first
            there.close()


def _write(path: str, content: bytes) -> bool:
    try:
        file = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(file, content)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
