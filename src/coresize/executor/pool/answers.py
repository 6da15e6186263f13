"""The answers of workers, and the jobs that they answer."""

from __future__ import annotations

import pickle
from itertools import islice
from typing import Protocol

from coresize.executor import protocol
from coresize.executor.pool import exits
from coresize.processes import transfer


TYPE_CHECKING = False
if TYPE_CHECKING:
    from coresize.executor.jobs import Job
    from coresize.executor.pool.call_times import CallTimes
    from coresize.executor.pool.handle import WorkerHandle
    from coresize.executor.pool.options import PoolOptions
    from coresize.processes.buffers import Row


#: The messages that tell of the large buffers of the next value.
_BUFFERS = frozenset({protocol.BUFFERS, protocol.CONTENTS})

#: A call of more than these seconds is answered alone: it may have started processes.
_LONG = 0.1


class Listener(Protocol):
    """The part of the dispatcher that is told of messages from workers."""

    def on_ready(self, worker: WorkerHandle) -> None:
        """Note that a worker is ready for its first task."""

    def on_end(self, worker: WorkerHandle, job: Job, peak: int) -> None:
        """Note that a worker has ended a job, and its peak memory in bytes."""

    def explain(
        self, worker: WorkerHandle, message: protocol.Message
    ) -> BaseException | None:
        """The error if memory ran out for a process that the task started, or None."""

    def run_again(self, worker: WorkerHandle, job: Job) -> bool:
        """Queue a job with such an error to run again; False if it must not."""


class Answers:
    """Passes the answers of one pool's workers to the jobs that they answer.

    An answer counts if its number is that of the call that is due. An answer with
    another number shows that the worker is *confused*: some task has written to
    descriptors that it has not opened. Such a worker is killed, its later answers are
    ignored, and all of its jobs fail.

    Args:
        options: how workers are made, and what bounds their tasks.
        times: learns from the seconds that calls took.
        listener: is told when workers get ready and jobs end.
    """

    def __init__(
        self, options: PoolOptions, times: CallTimes, listener: Listener
    ) -> None:
        self._options = options
        self._times = times
        self._listener = listener
        self._answered: set[Job] = set()

    def wake(self) -> None:
        """Wake the readers of all jobs that were answered since the last call."""
        for job in self._answered:
            job.wake()
        self._answered.clear()

    def take(self, worker: WorkerHandle, messages: list[protocol.Message]) -> None:
        """Settle the messages of a worker, in order."""
        done = 0
        while done < len(messages) and worker.kill_reason != "confused":
            chunk = worker.running and worker.running[0].is_chunk
            values = self._values(worker, messages, done) if chunk else 0
            if not values:
                self._understand(worker, messages[done])
            done += values or 1
        if worker.kill_reason == "confused":
            self._give_up(worker)

    def _give_up(self, worker: WorkerHandle) -> None:
        """Fail all jobs of a confused worker, since any of them may have begun."""
        jobs = list(worker.running)
        worker.running.clear()
        for job in jobs:
            job.abandon(exits.confused(job.attempts))

    def _values(
        self, worker: WorkerHandle, messages: list[protocol.Message], first: int
    ) -> int:
        """Take consecutive values of one chunk together; returns how many.

        A map has thousands of values, so common work is done once for all of them. The
        last value of a chunk is not among them, since it also ends the job.
        """
        if self._options.measured or worker.has_buffers:
            return 0
        job, seconds = worker.running[0], 0.0
        number, payloads = job.number, []
        for kind, told, _, took, payload in islice(
            messages, first, first + job.size - 1
        ):
            if kind != protocol.VALUE or told != number or took > _LONG:
                break
            payloads.append(payload)
            seconds += took
            number += 1
        job.number = number
        if payloads:
            job.received(sum(map(len, payloads)))
            job.take_some(payloads)
            self._answered.add(job)
            self._times.learn(job, seconds / len(payloads))
        return len(payloads)

    def _understand(self, worker: WorkerHandle, message: protocol.Message) -> None:
        kind, number, peak, _, payload = message
        if kind == protocol.READY and not worker.ready:
            worker.on_ready(peak, inherits_memory=payload == protocol.INHERITS_MEMORY)
            self._listener.on_ready(worker)
        elif kind == protocol.BROKEN and not worker.ready:
            _, worker.init_error = pickle.loads(payload)  # noqa: S301 - of our own worker
        elif kind in _BUFFERS:
            worker.take_buffers(kind, payload)
        elif worker.running and worker.running[0].number == number:
            self._answer(worker, worker.running[0], message)
        else:
            worker.kill("confused")

    def _answer(
        self, worker: WorkerHandle, job: Job, message: protocol.Message
    ) -> None:
        kind, _, peak, seconds, payload = message
        job.number += 1
        rows, unmapped = worker.take_rows()
        if self._options.measured:
            job.measured(max(peak, worker.base + job.seen))
        killed = self._listener.explain(worker, message)
        if killed and self._listener.run_again(worker, job):
            return
        if killed:
            over = job.fail(killed)
        elif kind != protocol.ERROR:
            over = _deliver(job, payload, rows, unmapped)
        else:
            error = transfer.load_error(*pickle.loads(payload))  # noqa: S301 - as above
            over = job.fail(error)
            while seconds < 0 and not over:  # none of its calls could be unpickled
                over = job.fail(error)
        self._answered.add(job)
        self._times.learn(job, seconds)
        if over:
            worker.ended()
            self._listener.on_end(worker, job, peak)
            if not worker.running and worker.served == self._options.max_tasks:
                worker.stop()


def _deliver(
    job: Job, payload: bytes | bytearray, rows: list[Row], unmapped: OSError | None
) -> bool:
    """Pass a value to its job, with its large buffers; returns as `Job.take` does."""
    if unmapped is not None:
        return job.fail(transfer.lost("the result", unmapped))
    large = sum(view.nbytes for _, view in rows) if rows else 0
    job.received(len(payload) + large)
    return job.take_pickled(payload, rows)
