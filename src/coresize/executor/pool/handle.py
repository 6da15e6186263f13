"""A worker as its parent sees it: a process, a socket, and what it was given to do."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque

from coresize import processes
from coresize.executor import protocol
from coresize.executor.pool.worker import work
from coresize.processes import inheritance, lines, orphans, schedstat
from coresize.processes.memory import Memory, read_memory


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

    from coresize.executor.jobs import Job
    from coresize.executor.pool.options import PoolOptions
    from coresize.model import OutOfMemory
    from coresize.processes.inheritance import Inheritance
    from coresize.processes.oom import OomCounter


#: Files that a start may open, that of a fork server and of its tracker included.
_FILES = 10

#: So much is read at a time before another worker has its turn.
_READS = 16

#: Bytes on their way to all workers of a pool, beyond which no more is pickled.
_SENT = 64 * 1024**2


class Outgoing:
    """What a pool sends to its workers, all of them together.

    Attributes:
        size: bytes that are pickled and not written yet.
        held: a worker has to wait until there are fewer.
    """

    __slots__ = ("_number", "held", "size")

    def __init__(self) -> None:
        self.size = 0
        self.held = False
        self._number = 0

    def numbers(self, count: int) -> int:
        """The first of as many numbers that no call has had."""
        first = self._number
        self._number += count
        return first

    def has_room(self) -> bool:
        """Whether more may be pickled."""
        self.held |= self.size >= _SENT
        return self.size < _SENT


class WorkerHandle:
    """One worker.

    What it is given is pickled when it can be written, and not before the worker is
    ready: so one that takes long to start has nothing that could not be taken back, and
    the parent holds no more copies than are on their way.

    Args:
        options: what it is like.
        number: of the worker, in its pool.
        outgoing: what is on its way to all workers of the pool.
        inherited: what it has from the moment when a task was submitted.

    Attributes:
        process: the process.
        pipe: the parent's end of the socket.
        line: the parent's end of another, which ends the worker when it is closed.
        running: what it was given, in order; the first is what it works on.
        ready: it has started.
        served: how many jobs it has ended.
        stopping: it was told to end.
        init_error: the error of its initializer, after which it ends by itself.
        kill_reason: why the pool has killed it: "timeout", "evicted", "interrupted",
            "stuck", or "confused", where it has sent what is no answer.
        ran: how long its task could run.
        idle: how long it did nothing.
        base: bytes it held before its first task.
        inherits_memory: it holds much that it inherited by fork, which is not counted.
        began: when the first of running was given to it (time.monotonic).
        gone: what becomes readable when the process ends.
        kills: the kernel's count of kills for memory where it runs.
        mark: what all that its tasks start has in its environment.
        started: what descends from it, as of the last look, with the start of each.
        killed: whether the kernel has killed it for memory.
        lost: whether the kernel has killed for memory what its task has started.
        watched: its socket is in the selector.
        reaped: it is no more.
    """

    def __init__(
        self,
        options: PoolOptions,
        number: int,
        outgoing: Outgoing,
        inherited: Inheritance,
    ) -> None:
        self.pipe, there, self.line, its_line = _open_sockets()
        self.pipe.settimeout(0)
        self.mark = orphans.new()
        variables = {**inherited.environment, **orphans.variables(self.mark)}
        name = inheritance.Name(f"coresize-{number}")
        name.inheritance = inherited.changed(environment=variables)
        self.process = _make_process(options, name, there, its_line)
        self.running: deque[Job] = deque()
        self.ready = False
        self.served = 0
        self.stopping = False
        self.init_error: str | None = None
        self.kill_reason: str | None = None
        self.base = 0
        self.inherits_memory = False
        self.began = 0.0
        self.kills: OomCounter | None = None
        self.started: dict[int, int] = {}
        self.killed: OutOfMemory = "no"
        self.lost: OutOfMemory = "no"
        self._faults = 0
        self.watched = self.reaped = self.is_closed = False
        self._folder: str | None = None
        self._terminated = False
        self._inbox = protocol.Inbox()
        self._outgoing = outgoing
        self._unsent: deque[Job] = deque()
        self._pieces: deque[memoryview] = deque()
        self._stops = False
        self._start(there, its_line)
        self.pid = self.process.pid or 0
        self.ran = schedstat.RunTime(self.pid)
        self.idle = schedstat.IdleTime(self.pid, time.monotonic())
        # From here, as it may take too much before it can do so: by its main module.
        processes.offer_to_oom_killer(self.pid)
        # A sentinel may be held open by what the worker forks; a pidfd cannot.
        self._pidfd = _open_pidfd(self.pid)
        self.gone = self.process.sentinel if self._pidfd is None else self._pidfd

    def _start(self, there: socket.socket, its_line: socket.socket) -> None:
        """Start the process, and leave it its ends of the sockets."""
        try:
            with inheritance.startable():
                self.process.start()
        except BaseException:
            self.pipe.close()
            self.line.close()
            raise
        finally:
            there.close()
            its_line.close()

    def has_ended(self) -> bool:
        """Whether the process has ended, where nothing else may tell."""
        return self._pidfd is None and self.process.exitcode is not None

    def room(self, max_tasks: int | None, most: int) -> int:
        """How many jobs it can still be given, before it is replaced or has many."""
        left = most if max_tasks is None else max_tasks - self.served
        return min(left, most) - len(self.running)

    def is_free(self, max_tasks: int | None) -> bool:
        """Whether it can be given anything."""
        ends = self.stopping or self.kill_reason is not None
        return self.ready and not ends and self.room(max_tasks, 1 << 30) > 0

    @property
    def may_hold(self) -> bool:
        """Whether it can be given a job before it is ready."""
        ends = self.stopping or self.kill_reason is not None
        return not self.ready and not self.running and not ends

    def on_ready(self, base: int, *, inherits_memory: bool) -> None:
        """It is ready, and holds so many bytes before its first task."""
        self.ready, self.base, self.inherits_memory = True, base, inherits_memory
        self.began = time.monotonic()

    def give(self, jobs: list[Job]) -> bool:
        """Send jobs; False where not all of it could be written at once.

        A worker that is not ready is sent none: it holds them, and they may be taken
        back until then.
        """
        if not self.running:
            self.began = time.monotonic()
        self.running.extend(jobs)
        self._unsent.extend(jobs)
        return self.flush()

    def take_back(self) -> list[Job]:
        """The jobs that it holds and was not sent, none of which has begun."""
        jobs = [] if self.ready else list(self.running)
        if jobs:
            self.running.clear()
            self._unsent.clear()
        for job in jobs:
            job.attempts -= 1
        return jobs

    def ended(self) -> None:
        """It has ended the first of what it was given."""
        self.running.popleft()
        self.served += 1
        self.began = time.monotonic()

    def stop(self) -> bool:
        """Tell it to end after what it was given."""
        self.stopping = self._stops = True
        return self.flush()

    def flush(self) -> bool:
        """Write what is still to be written; False where some is left."""
        while self._write():
            if self._unsent:
                if not self.ready or not self._outgoing.has_room():
                    return True
                self._pack()
            elif self._stops:
                self._stops = False
                self._add(protocol.pack(protocol.STOP))
            else:
                return True
        return False

    def _pack(self) -> None:
        """Pickle what is to be written next: one job, or several small ones."""
        together: list[bytes] = []
        size = 0
        while self._unsent and size < protocol.SMALL and self._outgoing.has_room():
            job = self._unsent.popleft()
            try:
                payload = job.message()
            except BaseException as error:  # noqa: BLE001 - pickle calls the user's code
                self.running.remove(job)
                job.abandon(error)
                continue
            if job.folder is not None and job.folder != self._folder:
                self._folder = job.folder
                together += protocol.pack(protocol.FOLDER, os.fsencode(job.folder))
            job.number = self._outgoing.numbers(job.size)
            kind = protocol.CALLS if job.is_chunk else protocol.CALL
            parts = protocol.pack(kind, payload, number=job.number)
            size += len(payload)
            if len(parts) == 1:
                together += parts
            else:
                self._add([b"".join(together), *parts])
                together = []
        self._add([b"".join(together)])

    def _add(self, parts: list[bytes]) -> None:
        for part in filter(None, parts):
            self._outgoing.size += len(part)
            self._pieces.append(memoryview(part))

    def _write(self) -> bool:
        """Write what is pickled; False where some is left."""
        while self._pieces:
            part = self._pieces[0]
            try:
                written = self.pipe.send(part)
            except BlockingIOError:
                return False
            except OSError:  # it has died, which is told by other means
                self._forget()
                return True
            self._outgoing.size -= written
            if written < len(part):
                self._pieces[0] = part[written:]
            else:
                self._pieces.popleft()
        return True

    def _forget(self) -> None:
        """Write nothing more."""
        self._outgoing.size -= sum(map(len, self._pieces))
        self._pieces.clear()
        self._unsent.clear()
        self._stops = False

    def receive(self) -> list[protocol.Message]:
        """The messages that have arrived; none of a worker that is confused."""
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
        try:
            return [] if self.kill_reason == "confused" else self._inbox.messages()
        except protocol.StreamError:
            self.kill("confused")
            return []

    def memory(self) -> Memory | None:
        """What the process holds now, without what it has started."""
        return read_memory(self.pid, inherits=self.inherits_memory)

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
        self.kill_reason = self.kill_reason or why
        processes.kill_tree(self.pid)

    def terminate(self) -> None:
        """Send it SIGTERM, once; what it still answers counts."""
        if not self._terminated:
            self._terminated = True
            with contextlib.suppress(OSError):  # it has ended
                self.process.terminate()

    def reap(self) -> int | None:
        """Forget the process, which has ended; how, as an exit code.

        Where it died in a task, what that has started ends, too.
        """
        self.reaped = True
        self.process.join()
        code = self.process.exitcode
        if self.running or (code and not self.kill_reason):
            self._end_tools()
        self.close()
        return code

    def _end_tools(self) -> None:
        """End what has lost its parent: what was seen, and what has the mark.

        What an earlier task has left, and no longer descends from the worker, goes on.
        """
        orphans.kill(
            pid
            for pid, start in self.started.items()
            if processes.start_ticks(pid) == start
        )
        orphans.end(self.mark, since=self.began)

    def close(self) -> None:
        """Close what is open."""
        self._forget()
        self.pipe.close()
        self.line.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _open_sockets() -> list[socket.socket]:
    """Both pairs of sockets of a worker, or an error and none of them.

    multiprocessing leaves files open where it runs out of them in the middle of a start
    (CPython's popen_forkserver, `os.dup`), so there have to be enough for all of it.
    """
    with contextlib.ExitStack() as opened:
        ends: list[socket.socket] = []
        for _ in range(2):
            ends += map(opened.enter_context, lines.pair())
        with contextlib.ExitStack() as spare:
            for _ in range(_FILES):
                spare.enter_context(ends[0].dup())
        opened.pop_all()
        return ends


def _make_process(
    options: PoolOptions,
    name: inheritance.Name,
    there: socket.socket,
    its_line: socket.socket,
) -> BaseProcess:
    # Windows hands on no socket before the rest; a fork runs its function at once.
    early = not options.forks and sys.platform != "win32"
    name.line = its_line if early else None
    process = _process(options.context)(
        target=work,
        name=name,
        args=(there, None if early else its_line, *options.initial()),
        kwargs={
            "measured": options.measured,
            "environment": name.inheritance.environment if options.forks else {},
        },
    )
    process.daemon = False
    return process


def _process(context: BaseContext) -> type[BaseProcess]:
    cls: type[BaseProcess] = context.Process  # type: ignore[attr-defined]
    return cls


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # Linux 5.3
        return None
