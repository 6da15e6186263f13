"""The only door to other processes, and to what a process may tell the kernel.

Rule 1: texts leave here as they are; `coresize.processes.memory` understands them.
Rule 2: a process that is gone is no error: there is nothing to say about it.
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

#: proc(5): 5 written to clear_refs resets the "high water mark" VmHWM to what is
#: resident now; Linux 4.0.
_RESET_PEAK = b"5"

#: proc(5): the first that the kernel kills when memory runs out. No privilege is needed
#: to raise that of a process of the same user.
_FIRST_TO_GO = b"1000"


#: SIGKILL in a mask of signals; and the flag of a process that a signal ends (Linux,
#: include/linux/sched.h, PF_SIGNALED).
_KILL, _SIGNALED = 1 << (9 - 1), 0x400

#: Seconds between two looks at a group that is to end.
_LOOK = 0.005

_HERE = Live()

#: How often this process, and what it was forked from, has been forked by Python: who
#: has noted the number knows a fork without asking the kernel for its own.
forks = 0


def _count_fork() -> None:
    global forks  # noqa: PLW0603 - it belongs to the process
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def read(pid: int | str, name: str) -> str:
    """A file of a process in /proc; empty where there is none or it is gone."""
    try:
        return _HERE.read(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def exists(pid: int | str, name: str) -> bool:
    """Whether a process has such a file in /proc."""
    return os.access(f"/proc/{pid}/{name}", os.R_OK)


def own() -> int:
    """The number of this process."""
    return os.getpid()


def end_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End this process if it was forked from another, and comes back from a task there.

    It would go on as a second worker, or a second program, with all that is to be done.

    Args:
        pid: the process in which the task has begun.
        error: what the task has raised.
    """
    if os.getpid() != pid:
        _end_child(error)


def _end_child(error: BaseException | None) -> NoReturn:
    """End a process that was forked, as Python ends a program, but for exit handlers.

    Those, and what is to be closed at the end, belong to the process that it was forked
    from.

    Args:
        error: what it ends with; None where it has come to its end.
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
    """Whether there is such a process, of this user or another."""
    if pid <= 0:
        return False
    import psutil

    return psutil.pid_exists(pid)


def is_running(pid: int) -> bool:
    """Whether it is alive, and no zombie, whose parent has not asked how it ended."""
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
    """Whether a process of Linux has given its memory back: it is gone, or a zombie.

    The first of its threads may be a zombie while others still hold the memory.
    """
    state = read(pid, "stat").rpartition(")")[2].split()[:1]
    return state in ([], ["X"]) or (state == ["Z"] and len(threads(pid)) <= 1)


def descendants(pid: int) -> dict[int, int]:
    """The process and all that descend from it, each with its parent, parents first."""
    found = {pid: 0}
    todo = [pid]
    for parent in todo:  # grows while it is walked
        for thread in threads(parent):
            children = read(parent, f"task/{thread}/children").split()
            todo += map(int, children)
            found.update(dict.fromkeys(map(int, children), parent))
    return found


def start_ticks(pid: int) -> int:
    """When a process was started, in ticks since the machine was; 0 where it is gone.

    With its number that names a process for ever, also after the number is another's.
    """
    return _stat(pid, 22)


def faults_of_children(pid: int) -> int:
    """Pages that children took which a process has waited for; 0 where it is gone.

    Each child takes some, so the count moves when a child has ended and was waited for.
    """
    return _stat(pid, 11)


def _stat(pid: int, field: int) -> int:
    """A field of /proc/PID/stat, as proc(5) numbers them; 0 where there is none."""
    fields = read(pid, "stat").rpartition(")")[2].split()  # the name may hold spaces
    return int(fields[field - 3]) if len(fields) > field - 3 else 0


def is_killed(pid: int) -> bool:
    """Whether SIGKILL has ended a process, or will before it does anything more.

    The signal is pending; or the process is on its way out, which takes long where it
    has much memory; or it is a zombie, and says how it ended (proc(5)).
    """
    for line in read(pid, "status").split("\n"):
        if line.startswith("SigPnd:") and int(line[7:], 16) & _KILL:
            return True
    signaled, code = _stat(pid, 9) & _SIGNALED, _stat(pid, 52) & 0x7F
    return bool(signaled) and code in {0, 9}  # 0 is for what is not known yet


def threads(pid: int) -> list[int]:
    """The threads of a process; none where it is gone, or not Linux."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        return []


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process that leads a group, and to all in it."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:  # Windows
            os.kill(pid, signal.SIGTERM)


def kill_group(pid: int, patience: float = 0.0) -> None:
    """End all that is left in the group of a process, which may have ended itself.

    Args:
        pid: the process.
        patience: seconds that what is left has to end by itself, as the process does
            that cleans up for multiprocessing.
    """
    if not hasattr(os, "killpg"):  # Windows
        return
    end = time.monotonic() + patience
    with contextlib.suppress(OSError):  # nothing is left
        while time.monotonic() < end:
            os.killpg(pid, 0)
            time.sleep(_LOOK)
        os.killpg(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """End a process and all that descend from it, at once."""
    for one in descendants(pid):
        # Windows has no SIGKILL, and SIGTERM ends a process there as surely.
        with contextlib.suppress(OSError):
            os.kill(one, getattr(signal, "SIGKILL", signal.SIGTERM))


def kill(pid: int) -> None:
    """End one process, at once."""
    with contextlib.suppress(OSError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def kill_session(pid: int) -> None:
    """End a process that leads a session, and all that it has started, at once.

    What has left the session is found by its parents, and what has lost its parents by
    the session. The process must not have been waited for: its number would be free.
    """
    kill_tree(pid)
    kill_group(pid)


def cpu_seconds() -> float:
    """The CPU time of this process and of the children it has waited for."""
    try:
        import resource

        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)
    except (ImportError, OSError):  # on Windows; where it is refused
        return sum(os.times()[:4])


def resident_peak() -> int:
    """Bytes that were resident here at most, pages of files too; 0 where not known.

    A hundredth of what a file in /proc costs to read (getrusage(2), Linux: ru_maxrss in
    KiB, of this process or before it of one that it was forked from).
    """
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    except (ImportError, OSError):  # on Windows; where it is refused
        return 0


def cpu_of_tree(pid: int) -> dict[int, tuple[float, float]]:
    """Seconds of CPU time of a process and of all that descend from it.

    Of each its own, and that of the children that it has waited for: so the sum of all
    keeps what a child has used when it ends.
    """
    import psutil

    found = {}
    for one in descendants(pid):
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(one).cpu_times()
            of_children = own.children_user + own.children_system
            found[one] = (own.user + own.system, of_children)
    return found


def reset_peak(pid: int | str) -> bool:
    """Let VmHWM of a process begin anew; False where that is not permitted."""
    return _write(f"/proc/{pid}/clear_refs", _RESET_PEAK)


def offer_to_oom_killer(pid: int | str = "self") -> bool:
    """Let the kernel kill a process before others when memory runs out."""
    return _write(f"/proc/{pid}/oom_score_adj", _FIRST_TO_GO)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected, also where a sandbox refuses socketpair().

    Raises:
        OSError: they cannot be made in another way either.
    """
    import socket

    try:
        return socket.socketpair()
    except OSError:
        if not hasattr(socket, "SO_PEERCRED"):
            raise
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # unix(7), "Autobind feature": a name that no other has
        listener.listen(1)
        while True:
            here = socket.socket(socket.AF_UNIX)
            here.connect(listener.getsockname())
            there, _ = listener.accept()
            peer = there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if int.from_bytes(peer[:4], sys.byteorder) == os.getpid():
                return here, there
            here.close()  # another process was first to find the name
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
