"""A worker as its parent sees it: a process, a socket, and the jobs it was given."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from multiprocessing import connection

from coresize import processes
from coresize.executor import protocol
from coresize.executor.pool.worker import work, work_beside
from coresize.executor.sharing import Later
from coresize.processes import buffers, inheritance, lines, orphans, schedstat
from coresize.processes.buffers import Attached, Packed
from coresize.processes.memory import Memory, read_memory
from coresize.processes.task_limits import recall


TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from multiprocessing.process import BaseProcess

    from coresize.executor.jobs import Job
    from coresize.executor.pool.options import PoolOptions
    from coresize.executor.pool.outgoing import Outgoing
    from coresize.model import OutOfMemory
    from coresize.processes.buffers import Row
    from coresize.processes.forkserver import Channel
    from coresize.processes.inheritance import Inheritance
    from coresize.processes.oom import OomCounter


#: Descriptors that have to be free for a start. It opens some, and the program and its
#: tasks' results need some when all workers run: for a journal, or a file in /proc.
FILES = 8

#: Seconds of a job after which no other one is given ahead, or stays so.
_LATE = 0.1

#: The number of reads from one worker before another worker has its turn.
_READS = 16


class WorkerHandle:
    """One worker.

    A job is pickled when it can be written, and not before the worker is ready. So a
    worker that starts slowly holds no job that cannot be taken back, and the parent
    holds no more pickled copies than are on their way.

    Args:
        options: how the worker is made.
        number: the number of the worker in its pool.
        outgoing: the bytes on their way to all workers of the pool.
        inherited: the state that the worker inherits, from when a task was submitted.
        channel: the channel of the forkserver; None for another start method.

    Attributes:
        process: the process.
        pipe: the parent's end of the socket for messages.
        channel: see above.
        running: the jobs that the worker was given, in order; it works on the first.
        ready: the worker has started.
        served: the number of jobs that the worker has ended.
        stopping: the worker was told to end.
        init_error: the error of the initializer, after which the worker ends by itself.
        kill_reason: why the pool has killed the worker, such as "timeout", "evicted",
            "interrupted", "stuck", or "confused" if it has sent something else than its
            answers; None if the pool has not killed it.
        ran: the time in which the worker's task could run.
        idle: the time in which the worker used no CPU.
        base: bytes that the worker held before its first task.
        inherits_memory: the worker inherited much memory by fork, which is not counted.
        rested: bytes that the worker held at its first rest, or None.
        began: when the first job of ``running`` began, or the last one ended
            (time.monotonic).
        gone: a descriptor that becomes readable when the process ends; None while the
            forkserver reports that, and where there is no such descriptor.
        kills: the kernel's count of kills for memory in the cgroup of the worker.
        mark: the mark in the environment of all processes that descend from the worker.
        started: the descendants of the worker at the last look, with the start of each.
        killed: whether the kernel has killed the worker for memory.
        lost: whether the kernel has killed a descendant of the worker for memory.
        suspected: the descendant was not seen to be killed: it is gone.
        watched: the socket is in the selector.
        reaped: the process has ended, and its parent has collected the exit code.
    """

    ready = False
    served = 0
    stopping = False
    init_error: str | None = None
    kill_reason: str | None = None
    base = 0
    rested: int | None = None
    inherits_memory = False
    began = 0.0
    kills: OomCounter | None = None
    killed: OutOfMemory = "no"
    lost: OutOfMemory = "no"
    suspected = False
    #: The number after that of the last call that has ended.
    _next = 0
    #: The value of _next at the last look.
    _looked = 0
    #: Bytes of segments that the worker may have mapped: those of the last call that
    #: was sent, and of the one before; and those of the last call alone.
    _mapped = _mapped_last = 0
    _faults = 0
    _folder: str | None = None
    _terminated = False
    _stops = False
    gone: int | None = None
    _pidfd: lines.End | None = None
    _line: socket.socket | None = None
    watched = False
    reaped = False
    is_closed = False

    def __init__(
        self,
        options: PoolOptions,
        number: int,
        outgoing: Outgoing,
        inherited: Inheritance,
        channel: Channel | None,
    ) -> None:
        self.mark = orphans.new()
        variables = {**inherited.environment, **orphans.variables(self.mark)}
        name = inheritance.Name(f"coresize-{number}")
        name.inheritance = inherited.changed(environment=variables)
        self.channel = channel
        self.running: deque[Job] = deque()
        self.started: dict[int, int] = {}
        self._inbox = protocol.Inbox()
        self._outgoing = outgoing
        self._unsent: deque[Job] = deque()
        #: What is not written yet: bytes, and what the segments belong to whose
        #: descriptors go with them.
        self._pieces: deque[tuple[memoryview, Packed | None]] = deque()
        #: The large buffers of the next value, or why they could not be mapped.
        self.rows: list[Row] = []
        self.unmapped: OSError | None = None
        self.process, self.pipe = self._start(options, name)
        self.pipe.settimeout(0)
        self.pid = self.process.pid or 0
        self.ran = schedstat.RunTime(self.pid)
        self.idle = schedstat.IdleTime(self.pid, time.monotonic())
        # The parent does this: the worker's main module may take too much memory
        # before the worker could do it.
        processes.offer_to_oom_killer(self.pid)
        if channel is None:
            self.watch()

    def _start(
        self, options: PoolOptions, name: inheritance.Name
    ) -> tuple[BaseProcess, socket.socket]:
        """Start the process, and return it with this end of its socket.

        Raises:
            OSError: the process cannot be started, or too few descriptors are free.
        """
        keep_free(FILES)
        if options.method is None:
            process, pipe, self._line = _start_foreign(options, name)
            return process, pipe
        from coresize.processes import children

        forks = options.forks
        own = children.Process(
            options.method,
            work,
            name,
            args=options.initial(),
            kwargs={
                "measured": options.measured,
                "least": options.sharing.least,
                "environment": name.inheritance.environment if forks else {},
            },
        )
        own.channel = self.channel
        own.start()
        assert own.here is not None
        return own, own.here

    def watch(self) -> None:
        """Open the descriptor that reports the end of the process.

        Processes that the worker forks may hold a sentinel of multiprocessing open, but
        not a pidfd.
        """
        self._pidfd = _open_pidfd(self.pid)
        self.gone = None if self._pidfd is None else self._pidfd.number
        if self._line is not None and self.gone is None:
            self.gone = self.process.sentinel

    def has_ended(self) -> bool:
        """Whether the process has ended; False if a pidfd will report its end."""
        return self._pidfd is None and self.process.exitcode is not None

    def wait(self, timeout: float | None) -> None:
        """Wait until the process has ended."""
        if self.channel is not None:
            self.channel.wait(self.pid, timeout)
        elif self._pidfd is not None:
            connection.wait([self._pidfd.number], timeout)
        self.process.join(timeout if self._pidfd is None else None)

    def room(self, max_tasks: int | None, most: int) -> int:
        """The number of jobs that the worker can still be given.

        Args:
            max_tasks: the tasks after which a worker is replaced, or None.
            most: the most jobs that a worker may have at a time.
        """
        left = most if max_tasks is None else max_tasks - self.served
        return min(left, most) - len(self.running)

    def is_free(self, max_tasks: int | None) -> bool:
        """Whether the worker can accept a job."""
        ends = self.stopping or self.is_closed or self.kill_reason is not None
        return self.ready and not ends and self.room(max_tasks, 1 << 30) > 0

    @property
    def is_idle(self) -> bool:
        """Whether the worker waits for a job."""
        return self.is_free(None) and not self.running

    @property
    def may_hold(self) -> bool:
        """Whether the worker can hold a job until it is ready."""
        ends = self.stopping or self.kill_reason is not None
        return not self.ready and not self.running and not ends

    def on_ready(self, base: int, *, inherits_memory: bool) -> None:
        """Note that the worker is ready, and its bytes before the first task."""
        self.ready, self.base, self.inherits_memory = True, base, inherits_memory
        self.began = time.monotonic()

    def give(self, jobs: list[Job]) -> bool:
        """Give jobs to the worker; returns False if some bytes could not be written.

        While the worker is not ready, nothing is sent, and the jobs may be taken back.
        """
        if not self.running:
            self.began = time.monotonic()
        self.running.extend(jobs)
        self._unsent.extend(jobs)
        return self.flush()

    def take_back(self) -> list[Job]:
        """Take back the jobs that were not sent, none of which has begun."""
        jobs = [] if self.ready else list(self.running)
        if jobs:
            self.running.clear()
            self._unsent.clear()
        for job in jobs:
            job.attempts -= 1
        return jobs

    @property
    def is_late(self) -> bool:
        """Whether a job takes longer than all that are given together may take."""
        return bool(self.running) and time.monotonic() - self.began > _LATE

    def recall(self) -> list[Job]:
        """Take back the calls that have not begun, though they were sent."""
        first, *others = self.running
        more = others or first.size > 1
        if not more or not self.is_free(None) or first in self._unsent:
            return []
        last = recall(self.pid, self.mark, first.number)
        if last is None:
            return []
        self._add(protocol.pack(protocol.RESUME, number=last))
        back = [job for job in others if job in self._unsent or job.number > last]
        self._unsent.clear()
        for job in back:
            self.running.remove(job)
            job.attempts -= 1
        begun = self.running[-1]
        kept = last + 1 - begun.number
        return [begun.split(kept), *back] if kept < begun.size else back

    def ended(self) -> None:
        """Note that the worker has ended its first job."""
        self._next = self.running.popleft().number
        self.served += 1
        self.began = time.monotonic()

    def stop(self) -> bool:
        """Tell the worker to end after its jobs; returns as `flush` does."""
        self.stopping = self._stops = True
        return self.flush()

    def flush(self) -> bool:
        """Write what the socket takes; returns False if pickled bytes are left."""
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
        """Pickle the next job, or several small ones."""
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
            if isinstance(payload, Later):
                self.running.remove(job)
                job.put_off()
                self._outgoing.put_off.append(job)
                continue
            if job.folder is not None and job.folder != self._folder:
                self._folder = job.folder
                together += protocol.pack(protocol.FOLDER, os.fsencode(job.folder))
            content = payload.content if isinstance(payload, Packed) else payload
            before, self._mapped_last = self._mapped_last, job.mapped
            self._mapped = before + self._mapped_last
            if isinstance(payload, Packed):
                self._add([b"".join(together)])
                together = []
                self._add([protocol.pack_buffers(payload)], payload)
            job.number = self._outgoing.numbers(job.size)
            kind = protocol.CALLS if job.is_chunk else protocol.CALL
            parts = protocol.pack(kind, content, number=job.number)
            size += len(content)
            if len(parts) == 1:
                together += parts
            else:
                self._add([b"".join(together), *parts])
                together = []
        self._add([b"".join(together)])

    def _add(self, parts: Iterable[bytes], packed: Packed | None = None) -> None:
        for part in filter(None, parts):
            self._outgoing.size += len(part)
            self._pieces.append((memoryview(part), packed))
            packed = None  # the descriptors go with the first byte

    def _write(self) -> bool:
        """Write pickled bytes; returns False if some are left."""
        while self._pieces:
            part, packed = self._pieces[0]
            try:
                attached = packed.descriptors if packed else []
                written = protocol.send(self.pipe, part, attached)
            except BlockingIOError:
                return False
            except OSError as error:
                if packed and protocol.is_refused(error) and self._send_contents():
                    continue
                # The worker has died, which the selector reports.
                self._forget()
                return True
            self._outgoing.size -= written
            if written < len(part):
                self._pieces[0] = part[written:], None
            else:
                self._pieces.popleft()
        return True

    def _send_contents(self) -> bool:
        """Send segments by their contents; False if they cannot be read."""
        part, packed = self._pieces[0]
        assert packed is not None
        try:
            parts = protocol.pack_contents(packed)
        except OSError:
            return False
        self._outgoing.size += sum(map(len, parts)) - len(part)
        self._pieces.popleft()
        self._pieces.extendleft((memoryview(each), None) for each in reversed(parts))
        return True

    def _forget(self) -> None:
        """Drop all that is not written yet."""
        self._outgoing.size -= sum(len(part) for part, _ in self._pieces)
        self._pieces.clear()
        self._unsent.clear()
        self._stops = False

    def receive(self) -> list[protocol.Message]:
        """The messages that have arrived; none from a confused worker."""
        for _ in range(_READS):
            try:
                if not self._inbox.receive(self.pipe):
                    self.is_closed = True
                    break
            except BlockingIOError:
                break
            except OSError:  # the worker has died
                self.is_closed = True
                break
        try:
            return [] if self.kill_reason == "confused" else self._inbox.messages()
        except protocol.StreamError:
            self.kill("confused")
            return []

    def take_buffers(self, kind: int, table: bytes | bytearray) -> None:
        """Map the large buffers of the next value.

        Args:
            kind: the kind of the message.
            table: its payload.
        """
        try:
            if kind == protocol.CONTENTS:
                self.rows = buffers.read(table)
            else:
                count = buffers.descriptors_of(table)
                descriptors = self._inbox.take_descriptors(count)
                self.rows = Attached().attach(table, descriptors)
        except (protocol.StreamError, buffers.BufferTableError):
            self.kill("confused")
        except OSError as error:  # there are no descriptors, or no address space
            self.unmapped = error

    @property
    def has_buffers(self) -> bool:
        """Whether large buffers belong to the next value."""
        return bool(self.rows) or self.unmapped is not None

    def take_rows(self) -> tuple[list[Row], OSError | None]:
        """The large buffers of the answer that has arrived, or why there are none."""
        taken = self.rows, self.unmapped
        self.rows, self.unmapped = [], None
        return taken

    def memory(self) -> Memory | None:
        """The memory of the process now, without that of its descendants.

        Segments that the worker has mapped for its tasks are left out: they belong to
        the pool, and are in memory once, whatever the number of workers.
        """
        memory = read_memory(self.pid, inherits=self.inherits_memory)
        mapped = self._mapped
        return memory.beside(mapped) if memory and mapped else memory

    def has_grown(self, most: int) -> bool:
        """Whether the memory has grown by more than some bytes since the first call."""
        memory = self.memory()
        held = 0 if memory is None else memory.private
        if self.rested is None:
            self.rested = held
        return held > self.rested + most

    def look(self) -> None:
        """Note the processes that descend from the worker."""
        tree = processes.descendants(self.pid)
        self.started = {pid: processes.start_ticks(pid) for pid in tree}
        del self.started[self.pid]
        self._looked = self._next

    def loss(self) -> int:
        """Look for lost descendants: 2 if one was killed, 1 if one is gone, else 0.

        What is gone since an earlier call of the worker is no loss of the present one.
        """
        known = set(self.started) if self._looked == self._next else set()
        self.look()
        if any(processes.is_killed(pid) for pid in self.started):
            return 2
        return 1 if known - set(self.started) else 0

    def has_reaped(self) -> bool:
        """Whether the worker has waited for an ended child since the last call."""
        before, self._faults = self._faults, processes.faults_of_children(self.pid)
        return self._faults != before

    def kill(self, why: str) -> None:
        """Kill the worker, with all processes that descend from it."""
        self.kill_reason = self.kill_reason or why
        processes.kill_tree(self.pid)

    def terminate(self) -> None:
        """Send SIGTERM to the worker, once; its later answers count."""
        if not self._terminated:
            self._terminated = True
            with contextlib.suppress(OSError):  # the worker has ended
                self.process.terminate()

    def reap(self) -> int | None:
        """Collect the process, which has ended; returns its exit code.

        If the worker died in a task, the processes that the task has started are
        killed, too.
        """
        self.reaped = True
        self.wait(None)
        code = self.process.exitcode
        if self.running or (code and not self.kill_reason):
            self._end_tools()
        self.close()
        return code

    def _end_tools(self) -> None:
        """Kill the processes that the task has started.

        A process that an earlier task has left behind goes on.
        """
        # A job that was not sent may still have the number from an earlier worker.
        begun = self.ready and self.running
        number = max(self._next, self.running[0].number) if begun else self._next
        orphans.end_task(self.mark, number, since=self.began)

    def close(self) -> None:
        """Close the socket, and the other descriptors of the worker."""
        self._forget()
        self._inbox.close()
        self.pipe.close()
        if self._line is not None:
            self._line.close()
        if self._pidfd is not None:
            self._pidfd.close()
            self._pidfd = None
        if self.channel is not None:
            self.channel.forget(self.pid)


def keep_free(count: int) -> None:
    """Check that a number of descriptors is free.

    Raises:
        OSError: fewer are free.
    """
    with contextlib.ExitStack() as spare:
        first, _ = map(spare.enter_context, processes.socket_pair())
        for _ in range(count - 2):
            spare.enter_context(first.dup())


def _start_foreign(
    options: PoolOptions, name: inheritance.Name
) -> tuple[BaseProcess, socket.socket, socket.socket]:
    """Start a process of a context that has a way of its own.

    Returns:
        The process, the parent's end of its socket, and the parent's end of another
        socket, which ends the process when it is closed.
    """
    with contextlib.ExitStack() as opened:
        pipe, there = map(opened.enter_context, lines.pair())
        line, its_line = map(opened.enter_context, lines.pair())
        # Windows passes no socket ahead of the arguments.
        early = sys.platform != "win32"
        name.line = its_line if early else None
        cls: type[BaseProcess] = options.context.Process  # type: ignore[attr-defined]
        process = cls(
            target=work_beside,
            name=name,
            args=(there, None if early else its_line, *options.initial()),
            kwargs={
                "measured": options.measured,
                "least": options.sharing.least,
                "environment": {},
            },
        )
        process.daemon = False
        with inheritance.startable():
            process.start()
        opened.pop_all()
        there.close()
        its_line.close()
        return process, pipe, line


def _open_pidfd(pid: int) -> lines.End | None:
    try:
        return lines.keep(os.pidfd_open(pid))
    except (AttributeError, OSError):  # Linux 5.3
        return None
