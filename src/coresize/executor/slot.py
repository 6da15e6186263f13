"""A worker as its parent sees it: a process, a socket, and what it was given to do."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque

from coresize import footprint, processes, procfs, transfer
from coresize.executor import frames, worker
from coresize.processes import lines, orphans


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

    from coresize.executor.jobs import Job
    from coresize.executor.setup import Setup
    from coresize.kills import Kills
    from coresize.model import OutOfMemory

#: So much is read at a time before another worker has its turn.
_READS = 16


class Slot:
    """One worker.

    Attributes:
        process: the process.
        pipe: the parent's end of the socket.
        line: the parent's end of another, which ends the worker when it is closed.
        running: what it was given, in order; the first is what it works on.
        ready: it has started.
        served: how many jobs it has ended.
        retiring: it was told to end.
        unfit: why it ends by itself without having started; None where it does not.
        doomed: why it was killed by us: "timeout", "evicted", "interrupted".
        base: bytes it held before its first task.
        heir: it holds much that it inherited by fork, which is not counted.
        began: when the first of running was given to it (time.monotonic).
        gone: what becomes readable when the process ends.
        kills: the kernel's count of kills for memory where it runs.
        mark: what all that its tasks start has in its environment.
        started: what descends from it, as of the last look, with the start of each.
        killed: whether the kernel has killed it for memory.
        lost: whether the kernel has killed for memory what its task has started.
        watched: its socket is in the selector.
        buried: it is no more.
    """

    def __init__(self, setup: Setup, number: int) -> None:
        self.pipe, there = lines.pair()
        self.line, its_line = lines.pair()
        self.pipe.settimeout(0)
        self.mark = orphans.new()
        self.process = self._make_process(setup, number, there, its_line)
        self.running: deque[Job] = deque()
        self.ready = False
        self.served = 0
        self.retiring = False
        self.unfit: str | None = None
        self.doomed: str | None = None
        self.base = 0
        self.heir = False
        self.began = 0.0
        self.kills: Kills | None = None
        self.started: dict[int, int] = {}
        self.killed: OutOfMemory = "no"
        self.lost: OutOfMemory = "no"
        self._faults = 0
        self.watched = self.buried = self.is_closed = False
        self._inbox = frames.Inbox()
        self._outgoing: deque[memoryview] = deque()
        self._start(there, its_line)
        self.pid = self.process.pid or 0
        # From here, as it may take too much before it can do so: by its main module.
        processes.offer_to_oom_killer(self.pid)
        # A sentinel may be held open by what the worker forks; a pidfd cannot.
        self._pidfd = _open_pidfd(self.pid)
        self.gone = self.process.sentinel if self._pidfd is None else self._pidfd

    def _make_process(
        self,
        setup: Setup,
        number: int,
        there: socket.socket,
        its_line: socket.socket,
    ) -> BaseProcess:
        marks = orphans.variables(self.mark)
        name = worker.Name(f"coresize-{number}")
        name.environment = {**setup.environment, **marks}
        # Windows hands on no socket before the rest; a fork runs its function at once.
        early = not setup.forks and sys.platform != "win32"
        name.line = its_line if early else None
        line = None if early else its_line
        return _process(setup.context)(
            target=worker.work,
            name=name,
            args=(there, line, setup.initializer, setup.initargs),
            kwargs={"measured": setup.measured, "marks": marks},
        )

    def _start(self, there: socket.socket, its_line: socket.socket) -> None:
        """Start the process, and leave it its ends of the sockets."""
        try:
            with _without_main():
                self.process.start()
        except BaseException:
            self.pipe.close()
            self.line.close()
            raise
        finally:
            there.close()
            its_line.close()

    def room(self, max_tasks: int | None, most: int) -> int:
        """How many jobs it can still be given, before it is replaced or has many."""
        left = most if max_tasks is None else max_tasks - self.served
        return min(left, most) - len(self.running)

    def is_free(self, max_tasks: int | None) -> bool:
        """Whether it can be given anything."""
        ends = self.retiring or self.doomed is not None
        return self.ready and not ends and self.room(max_tasks, 1 << 30) > 0

    def greet(self, base: int, *, heir: bool) -> None:
        """It is ready, and holds so many bytes before its first task."""
        self.ready, self.base, self.heir = True, base, heir
        self.began = time.monotonic()

    def give(self, jobs: list[Job]) -> bool:
        """Send jobs; False where not all of it could be written at once."""
        if not self.running:
            self.began = time.monotonic()
        parts = []
        for job in jobs:
            self.running.append(job)
            parts += frames.pack(job.kind, job.payload)
        return self._send(parts)

    def ended(self) -> None:
        """It has ended the first of what it was given."""
        self.running.popleft()
        self.served += 1
        self.began = time.monotonic()

    def stop(self) -> bool:
        """Tell it to end after what it was given."""
        self.retiring = True
        return self._send(frames.pack(frames.STOP))

    def _send(self, parts: list[bytes]) -> bool:
        small = parts[0] if len(parts) == 1 else b"".join(parts)
        self._outgoing.append(memoryview(small))
        return self.flush()

    def flush(self) -> bool:
        """Write what is still to be written; False where some is left."""
        while self._outgoing:
            part = self._outgoing[0]
            try:
                written = self.pipe.send(part)
            except BlockingIOError:
                return False
            except OSError:  # it has died, which is told by other means
                self._outgoing.clear()
                return True
            if written < len(part):
                self._outgoing[0] = part[written:]
            else:
                self._outgoing.popleft()
        return True

    def receive(self) -> list[frames.Message]:
        """The messages that have arrived."""
        for _ in range(_READS):
            try:
                if not self._inbox.receive(self.pipe):
                    self.is_closed = True
                    break
            except BlockingIOError:
                break
            except OSError:  # it has died
                self.is_closed = True
                break
        return self._inbox.messages()

    def memory(self) -> procfs.Memory | None:
        """What the process holds now, without what it has started."""
        return footprint.memory(self.pid, heir=self.heir)

    def look(self) -> None:
        """See what descends from it."""
        tree = processes.descendants(self.pid)
        self.started = {pid: processes.start_ticks(pid) for pid in tree}
        del self.started[self.pid]

    def loss(self) -> int:
        """2 where something that descends from it was killed; 1 where it is no more."""
        known = set(self.started)
        self.look()
        if any(processes.is_killed(pid) for pid in self.started):
            return 2
        return 1 if known - set(self.started) else 0

    def has_reaped(self) -> bool:
        """Whether a child of it has ended since this was asked the last time."""
        before, self._faults = self._faults, processes.faults_of_children(self.pid)
        return self._faults != before

    def kill(self, why: str) -> None:
        """End it at once, with all that its task has started."""
        self.doomed = self.doomed or why
        processes.kill_tree(self.pid)

    def bury(self) -> int | None:
        """Forget the process, which has ended; how, as an exit code.

        Where it died in a task, what that has started ends, too.
        """
        self.buried = True
        self.process.join()
        code = self.process.exitcode
        if self.running or (code and not self.doomed):
            self._end_tools()
        self.close()
        return code

    def _end_tools(self) -> None:
        """End what has lost its parent: what was seen, and what has the mark.

        What an earlier task has left, and no longer descends from the worker, goes on.
        """
        for pid, start in self.started.items():
            if processes.start_ticks(pid) == start:
                orphans.kill(pid)
        orphans.end(self.mark, since=self.began)

    def close(self) -> None:
        """Close what is open."""
        self.pipe.close()
        self.line.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _process(context: BaseContext) -> type[BaseProcess]:
    cls: type[BaseProcess] = context.Process  # type: ignore[attr-defined]
    return cls


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # Linux 5.3
        return None


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Let multiprocessing not look for the file of a program on standard input."""
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) != transfer.STDIN:
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = transfer.STDIN
